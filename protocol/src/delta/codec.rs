//! The compression of the target's frames.

use std::io::{self, Write as _};

use zstd::bulk::Compressor;
use zstd::stream::write::Encoder;
use zstd::zstd_safe;

use super::error::DeltaError;

/// A way to compress with zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Each frame by one call that knows its size, as mksquashfs does. A frame has at most [`BLOCK_MAX`] bytes.
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

/// The maximum size of a block of a SquashFS (its format, version 4.0).
pub const BLOCK_MAX: u64 = 1 << 20;
/// What each call of zstd with a thread counts as work besides its content: it clears tables of up to 640 MiB.
const THREAD_WORK: u64 = 16 << 20;

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

/// The memory that zstd takes at the highest level, besides its two tables: their limits are 2^25 and 2^27 entries,
/// as the table of levels in zstd's source has them.
const COMPRESSOR_BASE: u64 = 2 << 20;
const HASH_TABLE_MAX: u64 = 4 << 25;
const CHAIN_TABLE_MAX: u64 = 4 << 27;
/// With a window of at least this size, zstd also searches for distant matches, for which it has another table.
const LONG_WINDOW: u64 = 1 << 27;
const LONG_MATCHES: u64 = 16 << 20;

impl Recompress {
    /// Returns how this program compresses, with its own version of zstd.
    pub fn here(codec: Codec, level: u8) -> Self {
        Self { codec, level, version: zstd_safe::version_number() }
    }

    pub(super) fn is_valid(&self) -> bool {
        (1..=22).contains(&self.level)
    }

    /// Returns what compressing a frame of `length` bytes counts as work, or `None` if it is longer than this codec
    /// allows. One call of zstd for [`Codec::Block`] cannot be interrupted, so the length is limited.
    pub(super) fn work(&self, length: u64) -> Option<u64> {
        match self.codec {
            Codec::Block => (length <= BLOCK_MAX).then_some(length),
            Codec::Stream => Some(length + THREAD_WORK),
        }
    }

    pub(super) fn check_version(&self) -> Result<(), DeltaError> {
        let (expected, found) = (self.version, zstd_safe::version_number());
        match expected == found {
            true => Ok(()),
            false => Err(DeltaError::Version { expected, found }),
        }
    }

    /// Returns an upper limit for the memory that compressing a frame takes, besides its content and the result.
    pub(super) fn memory(&self, frame: u64) -> u64 {
        match self.codec {
            Codec::Block => compressor_memory(frame.next_power_of_two()),
            // The thread has a copy of the content and of the result.
            Codec::Stream => compressor_memory(LONG_WINDOW) + 2 * frame,
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

/// Returns an upper limit for the memory of zstd with a window of this size. Each table has at most two entries of
/// four bytes for each byte of the window.
fn compressor_memory(window: u64) -> u64 {
    let table = 8 * window;
    let tables = table.min(HASH_TABLE_MAX) + table.min(CHAIN_TABLE_MAX);
    let long = if window >= LONG_WINDOW { LONG_MATCHES } else { 0 };
    COMPRESSOR_BASE + tables + long
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
    /// Compresses a frame into `to`, which keeps its allocation. A kernel takes half a minute, in which `check` is
    /// called repeatedly; its error ends the compression.
    ///
    /// # Errors
    /// Fails if zstd or `check` fails.
    pub fn compress(
        &mut self,
        content: &[u8],
        to: &mut Vec<u8>,
        check: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        to.clear();
        // While zstd compresses, it may need this much space, even if the result is smaller.
        to.try_reserve(zstd_safe::compress_bound(content.len()))?;
        match self {
            Self::Block(compressor) => compressor.compress_to_buffer(content, to).map(drop),
            Self::Stream { level } => compress_stream(content, *level, Checked { to, check }),
        }
    }
}

/// Receives the result of a compression.
struct Checked<'a> {
    to: &'a mut Vec<u8>,
    check: &'a mut dyn FnMut() -> io::Result<()>,
}

impl io::Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.check)()?;
        self.to.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses as `zstd --ultra -LEVEL` compresses its standard input. The program lets a thread compress, which
/// gives other bytes than a compression without threads. Their number does not matter.
fn compress_stream(content: &[u8], level: i32, to: Checked<'_>) -> io::Result<()> {
    let mut encoder = Encoder::new(to, level)?;
    encoder.multithread(1)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(false)?;
    encoder.write_all(content)?;
    encoder.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_takes_less_memory_than_the_limit() {
        for power in [0, 10, 17, 18, 20, 22] {
            for size in [1_usize << power, (1 << power) + 1] {
                let content = vec![7; size];
                for level in [1, 5, 9, 12, 15, 19, 22] {
                    let recompress = Recompress::here(Codec::Block, level);
                    let mut compressor = Compressor::new(i32::from(level)).unwrap();
                    compressor.compress(&content).unwrap();
                    let taken = compressor.context_mut().sizeof() as u64;
                    let limit = recompress.memory(size as u64);
                    assert!(taken <= limit, "{size} bytes at level {level}: {taken} > {limit}");
                }
            }
        }
    }
}
