//! The compression of the target's frames.

use std::io::{self, Write as _};

use zstd::bulk::Compressor;
use zstd::stream::write::Encoder;
use zstd::zstd_safe;

use super::error::DeltaError;

/// A way to compress with zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Each frame by one call that knows its size, as mksquashfs does.
    Block,
    /// Each frame as the program `zstd` compresses its standard input: without the size of the content, and
    /// with a checksum.
    Stream,
}

impl Codec {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Block),
            2 => Some(Self::Stream),
            _ => None,
        }
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::Stream => 2,
        }
    }
}

/// How the frames of the target are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompress {
    /// The way to call zstd.
    pub codec: Codec,
    /// The level, 1 to 22.
    pub level: u8,
    /// The version of zstd as a number, such as 10507 for 1.5.7.
    pub version: u32,
}

/// The memory of a compression for each byte of content. At the highest levels, zstd has tables of several times
/// the size of the content.
const COMPRESSOR_FACTOR: u64 = 13;
/// The memory of a compression besides that.
const COMPRESSOR_BASE: u64 = 2 << 20;
/// The memory of a compression that does not know the size of the content, at the highest level: the tables
/// then have their full size.
const STREAM_COMPRESSOR: u64 = 840 << 20;

impl Recompress {
    /// Returns how this program compresses, with its own version of zstd.
    pub fn here(codec: Codec, level: u8) -> Self {
        Self { codec, level, version: zstd_safe::version_number() }
    }

    pub(super) fn is_valid(&self) -> bool {
        (1..=22).contains(&self.level)
    }

    pub(super) fn check_version(&self) -> Result<(), DeltaError> {
        let (expected, found) = (self.version, zstd_safe::version_number());
        match expected == found {
            true => Ok(()),
            false => Err(DeltaError::Version { expected, found }),
        }
    }

    /// Returns an upper limit for the memory that compressing a frame takes.
    pub(super) fn memory(&self, frame: u64) -> u64 {
        match self.codec {
            Codec::Block => COMPRESSOR_BASE + COMPRESSOR_FACTOR * frame,
            Codec::Stream => STREAM_COMPRESSOR,
        }
    }

    /// Returns a compressor, which can be used for any number of frames.
    ///
    /// # Errors
    /// Fails if zstd does not accept the parameters.
    pub fn compressor(&self) -> io::Result<FrameCompressor> {
        let level = i32::from(self.level);
        Ok(match self.codec {
            Codec::Block => FrameCompressor::Block(Compressor::new(level)?),
            Codec::Stream => FrameCompressor::Stream { level },
        })
    }
}

/// Compresses the frames of a target.
pub enum FrameCompressor {
    /// For [`Codec::Block`].
    Block(Compressor<'static>),
    /// For [`Codec::Stream`].
    Stream {
        /// The level.
        level: i32,
    },
}

impl FrameCompressor {
    /// Compresses a frame into `to`, which keeps its allocation.
    ///
    /// # Errors
    /// Fails if zstd fails.
    pub fn compress(&mut self, content: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
        to.clear();
        match self {
            Self::Block(compressor) => {
                // With less space, zstd fails where it needs the space only for a moment.
                to.reserve(zstd_safe::compress_bound(content.len()));
                compressor.compress_to_buffer(content, to).map(drop)
            }
            Self::Stream { level } => compress_stream(content, *level, to),
        }
    }
}

/// Compresses as `zstd --ultra -LEVEL` compresses its standard input. The program lets a thread compress, which
/// gives other bytes than a compression without threads. Their number does not matter.
fn compress_stream(content: &[u8], level: i32, to: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = Encoder::new(to, level)?;
    encoder.multithread(1)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(false)?;
    encoder.write_all(content)?;
    encoder.finish().map(drop)
}
