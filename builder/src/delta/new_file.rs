//! The new file of deltas.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::image::Image;
use crate::published::in_parallel;

/// The new file of any number of deltas. It is parsed once, and each of its blocks is compressed at most once,
/// because that takes most of the time for a kernel.
pub(crate) struct NewFile<'a> {
    pub(super) image: Image<'a>,
    /// For each block, whether hosts can compress it to the same bytes, as far as that is known.
    reproduced: Vec<Mutex<Option<bool>>>,
}

/// The numbers of blocks that were compressed in the file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockCounts {
    /// Those that have been compressed again.
    pub(crate) compressed: usize,
    /// Those of these that gave other bytes than the file has. Another version or level of zstd made these.
    pub(crate) not_reproduced: usize,
}

impl<'a> NewFile<'a> {
    /// Parses a file.
    ///
    /// # Errors
    /// Fails if it is a damaged initrd or kernel.
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self> {
        let image = Image::of(bytes)?;
        let reproduced = image.blocks.iter().map(|_| Mutex::new(None)).collect();
        Ok(Self { image, reproduced })
    }

    /// Compresses all blocks that are compressed in the file.
    pub(crate) fn compress_all(&self) -> Result<()> {
        let frames: Vec<usize> = (0..self.image.blocks.len())
            .filter(|block| self.image.blocks[*block].is_frame)
            .collect();
        in_parallel(&frames, |block| self.is_reproduced(*block).map(drop))?;
        Ok(())
    }

    /// Returns how many blocks have been compressed, and how many of these hosts cannot compress to the same bytes.
    pub(crate) fn block_counts(&self) -> BlockCounts {
        let known = self
            .reproduced
            .iter()
            .filter_map(|known| *known.lock().unwrap_or_else(PoisonError::into_inner));
        known.fold(BlockCounts::default(), |counts, is_reproduced| BlockCounts {
            compressed: counts.compressed + 1,
            not_reproduced: counts.not_reproduced + usize::from(!is_reproduced),
        })
    }

    /// Returns whether hosts can compress a block to the same bytes. If another thread is trying it, waits for the
    /// result.
    pub(super) fn is_reproduced(&self, block: usize) -> Result<bool> {
        let mut known = self.reproduced[block].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *known {
            return Ok(known);
        }
        let mut frame = Vec::new();
        let mut compressor = self.image.recompress.compressor()?;
        compressor.compress(&self.image.content(block)?, &mut frame, &mut || Ok(()))?;
        Ok(*known.insert(frame == self.image.stored(block)))
    }
}
