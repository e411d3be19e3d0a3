//! The beginning of a delta, which says what applying it takes.

use super::codec::{Codec, Recompress};
use super::error::DeltaError;
use super::limits::{CACHE, EXTENT_SIZE, Limits};
use super::stream::{STREAM_BUFFERS, StreamLength, WINDOW_MAX};

/// The first bytes of a delta.
const MAGIC: &[u8; 8] = b"EtchaOSd";
/// The number of streams.
pub(super) const STREAMS: usize = 6;
/// The length of the header in bytes.
pub(super) const LENGTH: usize = 40 + 8 * STREAMS;
/// The maximum number of extents, far above that of an image.
const EXTENTS_MAX: u32 = 1 << 18;
/// The maximum size of the content of a frame, far above that of a kernel.
pub const FRAME_MAX: u32 = 512 << 20;

/// The beginning of a delta. Numbers are in little-endian byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The size of the source.
    pub source: u64,
    /// The size of the target.
    pub target: u64,
    /// The largest size of an extent or a frame, stored or decompressed.
    pub frame_max: u32,
    /// The number of extents.
    pub(super) extents: u32,
    /// How the frames of the target are compressed.
    pub recompress: Recompress,
    /// The streams, in the order of the delta: extents, segments, operations, gaps, differences, literals.
    pub(super) streams: [StreamLength; STREAMS],
}

impl Header {
    /// Reads the header of a delta.
    ///
    /// # Errors
    /// Fails if the header is malformed, or if the delta does not have the length that it says.
    pub fn read(delta: &[u8]) -> Result<Self, DeltaError> {
        let header = delta.get(..LENGTH).ok_or(DeltaError::Malformed("it is too short"))?;
        if header[..8] != *MAGIC {
            return Err(DeltaError::Malformed("it does not begin as a delta"));
        }
        let u32_at =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let u64_at =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let recompress = Recompress {
            codec: Codec::from_number(header[32])
                .ok_or(DeltaError::Malformed("its codec is unknown"))?,
            level: header[33],
            version: u32_at(36),
        };
        let streams = std::array::from_fn(|index| StreamLength {
            stored: u32_at(40 + 8 * index),
            plain: u32_at(44 + 8 * index),
        });
        let header = Self {
            source: u64_at(8),
            target: u64_at(16),
            frame_max: u32_at(24),
            extents: u32_at(28),
            recompress,
            streams,
        };
        let length = streams.iter().fold(LENGTH as u64, |sum, it| sum + u64::from(it.stored));
        match () {
            () if length != delta.len() as u64 => Err(DeltaError::Malformed("its length is wrong")),
            () if header.extents > EXTENTS_MAX => Err(DeltaError::Malformed("too many extents")),
            () if header.frame_max > FRAME_MAX => {
                Err(DeltaError::Malformed("its frames are too large"))
            }
            () if !recompress.is_valid() => Err(DeltaError::Malformed("its level is invalid")),
            () => Ok(header),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.source.to_le_bytes());
        bytes.extend(self.target.to_le_bytes());
        bytes.extend(self.frame_max.to_le_bytes());
        bytes.extend(self.extents.to_le_bytes());
        bytes.extend([self.recompress.codec.number(), self.recompress.level, 0, 0]);
        bytes.extend(self.recompress.version.to_le_bytes());
        for StreamLength { stored, plain } in self.streams {
            bytes.extend(stored.to_le_bytes());
            bytes.extend(plain.to_le_bytes());
        }
        bytes
    }

    /// Compares the header with the limits of this program.
    pub(super) fn check(&self, delta: &[u8], limits: &Limits) -> Result<(), DeltaError> {
        let sizes =
            [("source", limits.source, self.source), ("target", limits.target, self.target)];
        for (file, expected, found) in sizes {
            if found != expected {
                return Err(DeltaError::Size { file, expected, found });
            }
        }
        let needed = self.memory(delta.len() as u64);
        if needed > limits.memory {
            return Err(DeltaError::Memory { needed, limit: limits.memory });
        }
        self.recompress.check_version()
    }

    /// Returns an upper limit for the memory in bytes that applying the delta takes, including the delta of
    /// `length` bytes.
    pub fn memory(&self, length: u64) -> u64 {
        let frame = u64::from(self.frame_max);
        let windows: u64 = self
            .streams
            .iter()
            .map(|it| u64::from(it.plain).next_power_of_two().min(WINDOW_MAX))
            .sum();
        length
            + windows
            + STREAM_BUFFERS
            + u64::from(self.extents) * EXTENT_SIZE
            + CACHE.max(frame)
            // The stored bytes of an extent, the content of a frame of the target, and the result.
            + 3 * frame
            + self.recompress.memory(frame)
    }
}

/// Returns an upper limit for the memory in bytes that applying a delta takes.
///
/// # Errors
/// Fails if the header of the delta is malformed.
pub fn memory_of(delta: &[u8]) -> Result<u64, DeltaError> {
    Ok(Header::read(delta)?.memory(delta.len() as u64))
}
