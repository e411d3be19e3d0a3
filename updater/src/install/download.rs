//! One artifact, from the CDN to the disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use protocol::{Artifact, Role};
use sha2::{Digest, Sha256};

use crate::cdn::{Partial, Sink};
use crate::files::hex;

/// An artifact that is not what the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server announces another size.
    #[error(
        "the CDN announces {found} bytes for the {role}, and the manifest says {expected}: was it published whole?"
    )]
    Length {
        /// Which one.
        role: Role,
        /// The manifest's.
        expected: u64,
        /// The server's.
        found: u64,
    },
}

/// Compares a length that a server announces, if it does.
pub(super) fn check_length(artifact: &Artifact, found: Option<u64>) -> Result<(), DownloadError> {
    match found {
        Some(found) if found != artifact.size => {
            Err(DownloadError::Length { role: artifact.role, expected: artifact.size, found })
        }
        _ => Ok(()),
    }
}

/// A new file that is filled.
pub(super) struct Filling<'a> {
    file: &'a mut File,
    length: u64,
    digest: Sha256,
}

impl<'a> Filling<'a> {
    /// `file` is empty.
    pub(super) fn new(file: &'a mut File) -> Self {
        Self { file, length: 0, digest: Sha256::new() }
    }
}

impl Sink for Filling<'_> {
    fn restart(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.set_len(0)?;
        (self.length, self.digest) = (0, Sha256::new());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(())
    }
}

impl Partial for Filling<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn digest(&self) -> String {
        hex(self.digest.clone())
    }
}

/// SHA-256 as manifests write it.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}
