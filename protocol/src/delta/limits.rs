//! The limits of deltas.

/// The name of the format in a manifest.
pub const FORMAT: &str = "etchaos-delta-1";

/// The maximum size of a delta. A larger one is hardly better than the file.
pub const DELTA_MAX: u64 = 24 << 20;

/// What a delta may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of the source, which the delta has to be for.
    pub source: u64,
    /// The size of the target, which the delta has to produce.
    pub target: u64,
    /// The memory in bytes that applying the delta may take.
    pub memory: u64,
}

/// The contents of extents that are kept in memory, in bytes. A delta mostly refers to neighbouring extents.
pub(super) const CACHE: u64 = 8 << 20;
/// The memory of an extent in the list.
pub(super) const EXTENT_SIZE: u64 = 32;
