//! Why a delta cannot be applied.

use std::io;

/// A delta that could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The delta does not follow the format.
    #[error("the delta is malformed: {0}")]
    Malformed(&'static str),
    /// The delta is for files of other sizes.
    #[error("the delta is for a {file} of {found} bytes, expected {expected}")]
    Size {
        /// `source` or `target`.
        file: &'static str,
        /// The size that was expected.
        expected: u64,
        /// The size in the delta.
        found: u64,
    },
    /// Applying the delta takes too much memory.
    #[error("the delta takes {needed} bytes of memory, but only {limit} are allowed")]
    Memory {
        /// The memory that the delta takes.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The host has no memory left.
    #[error("the host has no memory left for the delta: {0}")]
    NoMemory(io::Error),
    /// The delta was made for another version of zstd.
    #[error("the delta is for zstd {expected}, but this program has zstd {found}")]
    Version {
        /// The version in the delta, as zstd numbers it.
        expected: u32,
        /// The version of this program.
        found: u32,
    },
    /// Applying the delta takes too much time.
    #[error(
        "applying the delta would read, decompress and compress more than {0} bytes, the limit for files of these sizes"
    )]
    Work(u64),
    /// The source differs from the file that the delta is for.
    #[error("the source has no zstd frame of {length} bytes at byte {offset}: is it damaged?")]
    SourceFrame {
        /// The offset of the frame in the source.
        offset: u64,
        /// The length of the frame.
        length: u64,
    },
    /// A part of the target was compressed to other bytes than those of the target.
    #[error("the frame at byte {0} of the target was compressed to other bytes than the original")]
    Frame(u64),
    /// The source could not be read.
    #[error("cannot read the source of the delta: {0}")]
    Source(io::Error),
    /// The target could not be written.
    #[error("cannot write the result of the delta: {0}")]
    Sink(io::Error),
    /// zstd failed.
    #[error("zstd failed: {0}")]
    Zstd(io::Error),
}
