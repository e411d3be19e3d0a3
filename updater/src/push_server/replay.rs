//! Stores which tokens were accepted, so that each is accepted once.
//!
//! The file is in `/run`, so it survives a restart of the service and not a reboot. Tokens from before the
//! boot are refused because of their age: see `push`.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use protocol::json;

use crate::host::read_limited;

/// The limit on stored tokens, which is about one for each second of the validity of a token.
const TOKENS_MAX: usize = 4096;
/// A digest, a time and some punctuation need 80 bytes.
const FILE_MAX: u64 = 100 * TOKENS_MAX as u64;

/// The tokens that were accepted.
pub(super) struct ReplayGuard {
    path: PathBuf,
    /// The time until which each token is stored, in Unix seconds, by the digest of the token.
    accepted: BTreeMap<String, u64>,
}

/// A token that is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    /// The token was accepted before.
    #[error("it was pushed before: sign a new one")]
    Repeated,
    /// There is no room to store the token.
    #[error("{TOKENS_MAX} tokens were pushed that are still valid: wait until they expire")]
    Full,
    /// The token cannot be stored.
    #[error("cannot read or write {path}, which stores the tokens that were pushed: {error}")]
    File {
        /// The file.
        path: String,
        /// The error of the operating system.
        error: io::Error,
    },
}

impl ReplayGuard {
    /// Reads the tokens that were accepted during this boot.
    ///
    /// # Errors
    /// Fails if the file exists and cannot be read.
    pub(super) fn open(path: PathBuf) -> Result<Self, ReplayError> {
        let read = read_limited(&path, FILE_MAX).and_then(|bytes| match bytes {
            None => Ok(BTreeMap::new()),
            Some(bytes) => json::from_slice(&bytes).map_err(io::Error::from),
        });
        match read {
            Ok(accepted) => Ok(Self { path, accepted }),
            Err(error) => Err(ReplayError::File { path: path.display().to_string(), error }),
        }
    }

    /// Accepts the token with this digest and stores it until `until`.
    ///
    /// # Errors
    /// Fails if the token was accepted before or cannot be stored.
    pub(super) fn accept(&mut self, digest: &str, until: u64, now: u64) -> Result<(), ReplayError> {
        if self.accepted.contains_key(digest) {
            return Err(ReplayError::Repeated);
        }
        // Expired tokens are removed only if there is no room: after the clock was set forward and back
        // they would be accepted again.
        if self.accepted.len() >= TOKENS_MAX {
            self.accepted.retain(|_, until| *until > now);
        }
        if self.accepted.len() >= TOKENS_MAX {
            return Err(ReplayError::Full);
        }
        self.accepted.insert(digest.to_owned(), until);
        self.write()
            .map_err(|error| ReplayError::File { path: self.path.display().to_string(), error })
    }

    /// Replaces the file atomically. It is not flushed, because `/run` is in memory.
    fn write(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let new = self.path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        serde_json::to_writer(&file, &self.accepted)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use protocol::digest;

    use super::*;

    #[test]
    fn accepts_a_token_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/etchaos/pushed");
        let mut guard = ReplayGuard::open(path.clone()).unwrap();
        guard.accept("1", 100, 0).unwrap();
        guard.accept("2", 100, 0).unwrap();
        assert!(matches!(guard.accept("1", 900, 0), Err(ReplayError::Repeated)));
        // The process was restarted in the same boot, and for a while the clock was past the expiry of the token.
        let mut restarted = ReplayGuard::open(path.clone()).unwrap();
        assert!(matches!(restarted.accept("2", 100, 500), Err(ReplayError::Repeated)));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(ReplayGuard::open(path), Err(ReplayError::File { .. })));
    }

    #[test]
    fn rejects_tokens_that_cannot_be_stored() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("run"), "a file").unwrap();
        let mut guard =
            ReplayGuard { path: directory.path().join("run/pushed"), accepted: BTreeMap::new() };
        assert!(matches!(guard.accept("1", 100, 0), Err(ReplayError::File { .. })));
    }

    #[test]
    fn removes_only_expired_tokens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pushed");
        let accepted =
            (0..TOKENS_MAX).map(|n| (digest::of_bytes(n.to_string().as_bytes()), 100)).collect();
        let mut guard = ReplayGuard { path: path.clone(), accepted };
        assert!(matches!(guard.accept("more", 200, 99), Err(ReplayError::Full)));
        guard.write().unwrap();
        // A file of the largest size can be read.
        let mut guard = ReplayGuard::open(path).unwrap();
        assert_eq!(guard.accepted.len(), TOKENS_MAX);
        guard.accept("more", 200, 100).unwrap();
        assert_eq!(guard.accepted.len(), 1);
    }
}
