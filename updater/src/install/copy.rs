//! Copies an artifact from the other slot, which costs no download. A release without a new kernel has the
//! kernel of the release before.

use std::io::{self, Read as _, Seek as _, SeekFrom};

use protocol::Artifact;

use crate::cdn::ResumableSink;
use crate::files::{CHUNK, FileError, FileSystem, at};

/// A failed copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// The other slot's file could not be read.
    #[error(transparent)]
    Source(#[from] FileError),
    /// The other slot's file has changed since the slot was inspected.
    #[error("{path} now has the SHA-256 {found}, expected {expected}")]
    Digest {
        /// The path of the file.
        path: String,
        /// The digest in the manifest.
        expected: String,
        /// The digest of what was read.
        found: String,
    },
    /// The copy could not be written.
    #[error("cannot write the copy: {0}")]
    Sink(io::Error),
}

/// Copies the rest of an artifact. Clears the sink if the digest of the result is wrong.
pub(super) fn copy(
    esp: &dyn FileSystem,
    path: &str,
    artifact: &Artifact,
    sink: &mut dyn ResumableSink,
) -> Result<(), CopyError> {
    let mut file = esp.open(path)?;
    file.seek(SeekFrom::Start(sink.length())).map_err(at("read", path))?;
    let mut buffer = vec![0; CHUNK];
    while sink.length() < artifact.size {
        let left = usize::try_from(artifact.size - sink.length()).unwrap_or(CHUNK);
        let piece = &mut buffer[..left.min(CHUNK)];
        file.read_exact(piece).map_err(at("read", path))?;
        sink.write(piece).map_err(CopyError::Sink)?;
    }
    let found = sink.digest();
    if found == artifact.sha256 {
        return Ok(());
    }
    sink.restart().map_err(CopyError::Sink)?;
    Err(CopyError::Digest { path: path.to_owned(), expected: artifact.sha256.clone(), found })
}
