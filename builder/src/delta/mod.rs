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
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use protocol::delta::{DELTA_MAX, Limits, apply, memory_of};

use self::image::Image;
pub(crate) use self::new_file::{BlockCounts, NewFile};

/// The time that making a delta may take. That of a kernel takes less than a minute on an idle processor.
const TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Returns the content of a file in the SquashFS of an initrd, or `None` if there is none with this path.
///
/// # Errors
/// Fails if the SquashFS is damaged.
pub(crate) fn file_of_initrd(initrd: &[u8], path: &str) -> Result<Option<Vec<u8>>> {
    let image = Image::of(initrd)?;
    let unit = image.units.iter().find(|unit| unit.name == path);
    unit.map(|unit| image.unit_content(&unit.pieces)).transpose()
}

/// Returns a delta if hosts accept its size.
fn accepted(bytes: Vec<u8>) -> Result<Vec<u8>> {
    let size = bytes.len();
    ensure!(
        size as u64 <= DELTA_MAX,
        "the delta has {size} bytes; hosts accept at most {DELTA_MAX}"
    );
    Ok(bytes)
}

/// A delta, and an upper limit for the memory in bytes that applying it takes.
pub(crate) struct MadeDelta {
    pub(crate) bytes: Vec<u8>,
    pub(crate) memory: u64,
}

impl MadeDelta {
    /// Makes the delta from an old file to a new one. [`MadeDelta::check`] applies it.
    ///
    /// # Errors
    /// Fails if the old file is damaged, if the delta is too large for hosts, or if making it takes too long.
    pub(crate) fn between(old: &[u8], new: &NewFile<'_>) -> Result<Self> {
        let delta = plan::delta(old, new, Instant::now() + TIME_MAX)?;
        let bytes = accepted(delta.to_bytes().context("compressing the delta")?)?;
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
