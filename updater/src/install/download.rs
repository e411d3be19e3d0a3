//! One artifact, from the CDN to the disk.

use std::io::{self, Read, Write};

use protocol::{Artifact, Role};
use sha2::{Digest, Sha256};

use super::is_interrupted;
use crate::cdn::Body;
use crate::files::{CHUNK, hex};

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
    /// More came than was to come.
    #[error("the CDN sends more than the {expected} bytes that the manifest says for the {role}")]
    TooLong {
        /// Which one.
        role: Role,
        /// The manifest's size.
        expected: u64,
    },
    /// Less came.
    #[error("the download of the {role} ended after {found} of {expected} bytes{why}")]
    Truncated {
        /// Which one.
        role: Role,
        /// The manifest's size.
        expected: u64,
        /// What came.
        found: u64,
        /// What the system says, if anything.
        why: String,
    },
    /// Other bytes came.
    #[error(
        "the {role} has the SHA-256 {found}, and the manifest says {expected}: it was damaged or replaced on its way"
    )]
    Digest {
        /// Which one.
        role: Role,
        /// The manifest's.
        expected: String,
        /// What came.
        found: String,
    },
    /// The disk refused.
    #[error("cannot write: {0}")]
    Write(io::Error),
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

/// Copies an artifact, and checks size and digest on the way. Memory is bounded, and not a byte more
/// than the declared size is written.
pub(super) fn copy(
    artifact: &Artifact,
    body: Body,
    to: &mut impl Write,
) -> Result<(), DownloadError> {
    let (role, expected) = (artifact.role, artifact.size);
    check_length(artifact, body.length)?;
    // One more than is allowed shows that there is more.
    let mut reader = body.reader.take(expected.saturating_add(1));
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut found = 0;
    let ended = loop {
        let length = match reader.read(&mut buffer) {
            Ok(0) => break String::new(),
            Ok(length) => length,
            Err(error) if is_interrupted(&error) => continue,
            Err(error) => break format!(": {error}"),
        };
        found += length as u64;
        if found > expected {
            return Err(DownloadError::TooLong { role, expected });
        }
        digest.update(&buffer[..length]);
        to.write_all(&buffer[..length]).map_err(DownloadError::Write)?;
    };
    if found < expected {
        return Err(DownloadError::Truncated { role, expected, found, why: ended });
    }
    match hex(digest) {
        digest if digest == artifact.sha256 => Ok(()),
        digest => {
            Err(DownloadError::Digest { role, expected: artifact.sha256.clone(), found: digest })
        }
    }
}

/// SHA-256 as manifests write it.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(content: &[u8]) -> Artifact {
        Artifact {
            role: Role::Kernel,
            name: "x".into(),
            size: content.len() as u64,
            sha256: digest(content),
            url: "x".into(),
        }
    }

    fn play(artifact: &Artifact, sent: &'static [u8]) -> (Result<(), DownloadError>, Vec<u8>) {
        let mut written = Vec::new();
        let body = Body { reader: Box::new(sent), length: None };
        (copy(artifact, body, &mut written), written)
    }

    #[test]
    fn what_the_manifest_says_is_copied() {
        let (result, written) = play(&artifact(b"kernel"), b"kernel");
        assert!(result.is_ok());
        assert_eq!(written, b"kernel");
    }

    #[test]
    fn everything_else_is_refused_and_no_more_is_written() {
        let kernel = artifact(b"kernel");
        assert!(matches!(play(&kernel, b"kernex").0, Err(DownloadError::Digest { .. })));
        assert!(matches!(play(&kernel, b"kern").0, Err(DownloadError::Truncated { found: 4, .. })));
        assert!(matches!(play(&kernel, b"").0, Err(DownloadError::Truncated { found: 0, .. })));
        let (result, written) = play(&kernel, b"kernel and more");
        assert!(matches!(result, Err(DownloadError::TooLong { .. })));
        assert!(written.len() <= 6);
        assert!(matches!(check_length(&kernel, Some(7)), Err(DownloadError::Length { .. })));
    }

    #[test]
    fn the_end_of_a_broken_connection_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("connection reset"))
            }
        }
        let body = Body { reader: Box::new(Broken), length: None };
        let error = copy(&artifact(b"kernel"), body, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("0 of 6") && error.contains("connection reset"), "{error}");
    }
}
