//! The new file of deltas.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::image::Image;

/// The new file of any number of deltas. It is parsed once, and each of its blocks is compressed at most once,
/// because that takes most of the time for a kernel.
pub(crate) struct NewFile<'a> {
    pub(super) image: Image<'a>,
    /// For each block, whether hosts can compress it to the same bytes, as far as that is known.
    reproduced: Vec<Mutex<Option<bool>>>,
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
