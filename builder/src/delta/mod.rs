//! Makes deltas between the files of two releases, in the format of [`protocol::delta`].
//!
//! 1. [`image`] finds the compressed blocks of a file and what they contain: those of a SquashFS in an
//!    initrd ([`squashfs`]), and the payload of a kernel ([`kernel`]).
//! 2. [`plan`] decides for each block of the new file whether it is copied from the old one, compressed
//!    again, or stored as it is.
//! 3. [`difference`] compares the new content with the content of the same file in the old image.
//! 4. [`content`] collects the result.

mod content;
mod difference;
mod found;
mod image;
mod kernel;
mod new_file;
mod plan;
mod squashfs;
#[cfg(test)]
mod tests;

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use protocol::delta::{DELTA_MAX, Limits, apply, memory_of};

use self::image::Image;
pub(crate) use self::new_file::NewFile;

/// Returns the content of a file in the SquashFS of an initrd, or `None` if there is none with this path.
///
/// # Errors
/// Fails if the SquashFS is damaged.
pub(crate) fn file_of_initrd(initrd: &[u8], path: &str) -> Result<Option<Vec<u8>>> {
    let image = Image::of(initrd)?;
    let unit = image.units.iter().find(|unit| unit.name == path);
    unit.map(|unit| image.unit_content(&unit.pieces)).transpose()
}

/// A delta, and the memory in bytes that applying it takes.
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    pub(crate) memory: u64,
}

impl Made {
    /// Makes the delta from an old file to a new one. [`Made::check`] applies it.
    ///
    /// # Errors
    /// Fails if the old file is damaged, or if the delta is too large for hosts.
    pub(crate) fn between(old: &[u8], new: &NewFile<'_>) -> Result<Self> {
        let bytes = plan::delta(old, new)?.to_bytes().context("compressing the delta")?;
        ensure!(
            bytes.len() as u64 <= DELTA_MAX,
            "the delta has {} bytes; hosts accept at most {DELTA_MAX}",
            bytes.len()
        );
        let memory = memory_of(&bytes)?;
        Ok(Self { bytes, memory })
    }

    /// Applies the delta.
    ///
    /// # Errors
    /// Fails if it does not give the new file.
    pub(crate) fn check(&self, old: &[u8], new: &[u8]) -> Result<()> {
        let (source, target) = (old.len() as u64, new.len() as u64);
        let limits = Limits { source, target, memory: self.memory };
        let mut rest = new;
        apply(
            &self.bytes,
            Cursor::new(old),
            &limits,
            &mut |piece| match rest.strip_prefix(piece) {
                Some(left) => {
                    rest = left;
                    Ok(())
                }
                None => Err(std::io::Error::other("the delta gives other bytes than the file")),
            },
        )
        .context("applying the delta that was made")?;
        ensure!(rest.is_empty(), "the delta gives {} bytes too few", rest.len());
        Ok(())
    }
}
