//! Which tokens were taken, in a file that lives as long as the boot.
//!
//! A token is taken once. What this process remembers is lost when the service is restarted, so it is
//! kept in `/run`, which is lost with the boot; tokens from before the boot are refused by their age:
//! see [`super::push`].

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use protocol::json;
use sha2::{Digest, Sha256};

use crate::host::read_limited;

/// More pushes than anybody sends within a token's hour: about one a second.
const SEEN_MAX: usize = 4096;
/// A digest, a time and some punctuation take 80 bytes.
const FILE_MAX: u64 = 100 * SEEN_MAX as u64;

/// Tokens that were taken.
pub struct Seen {
    path: PathBuf,
    /// The end of each token in Unix seconds, by a digest of who signed it and its `jti`.
    taken: BTreeMap<String, u64>,
}

/// A token that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// It was taken before.
    #[error("its jti was pushed before: sign a new one")]
    Again,
    /// There is no room to remember it.
    #[error("{SEEN_MAX} tokens that are still valid were pushed already: wait until they expire")]
    Full,
    /// It cannot be remembered, so it is not taken.
    #[error("what was pushed before cannot be looked up or noted in {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        why: io::Error,
    },
}

impl Seen {
    /// Reads what this boot has taken so far.
    pub fn open(path: PathBuf) -> Result<Self, SeenError> {
        let read = read_limited(&path, FILE_MAX).and_then(|bytes| match bytes {
            None => Ok(BTreeMap::new()),
            Some(bytes) => json::from_slice(&bytes).map_err(io::Error::from),
        });
        match read {
            Ok(taken) => Ok(Self { path, taken }),
            Err(why) => Err(SeenError::File { path: path.display().to_string(), why }),
        }
    }

    /// Takes a token that is valid until `until`, unless it was taken before. It is on record when
    /// this returns.
    pub fn take(&mut self, key: &str, jti: &str, until: u64, now: u64) -> Result<(), SeenError> {
        let id = digest(key, jti);
        if self.taken.contains_key(&id) {
            return Err(SeenError::Again);
        }
        // Not before room is needed: a clock that goes forth and back would make old tokens new.
        if self.taken.len() >= SEEN_MAX {
            self.taken.retain(|_, until| *until > now);
        }
        if self.taken.len() >= SEEN_MAX {
            return Err(SeenError::Full);
        }
        self.taken.insert(id, until);
        self.write().map_err(|why| SeenError::File { path: self.path.display().to_string(), why })
    }

    /// By a new file and a rename, which is atomic in `/run`. Not flushed: it is memory.
    fn write(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let new = self.path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        serde_json::to_writer(&file, &self.taken)?;
        std::fs::rename(&new, &self.path)
    }
}

/// Whoever signs chooses the `jti`, so it is not kept as it is. No key id has a zero byte.
fn digest(key: &str, jti: &str) -> String {
    let digest = Sha256::digest([key.as_bytes(), &[0], jti.as_bytes()].concat());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_once_whoever_asks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/etchaos/pushed");
        let mut seen = Seen::open(path.clone()).unwrap();
        seen.take("k", "1", 100, 0).unwrap();
        seen.take("k", "2", 100, 0).unwrap();
        seen.take("other", "1", 100, 0).unwrap();
        assert!(matches!(seen.take("k", "1", 900, 0), Err(SeenError::Again)));
        // Another process of the same boot, after the token's end by a clock that went back since.
        let mut again = Seen::open(path.clone()).unwrap();
        assert!(matches!(again.take("k", "2", 100, 500), Err(SeenError::Again)));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Seen::open(path), Err(SeenError::File { .. })));
    }

    #[test]
    fn what_cannot_be_noted_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("run"), "a file").unwrap();
        let mut seen = Seen { path: directory.path().join("run/pushed"), taken: BTreeMap::new() };
        assert!(matches!(seen.take("k", "1", 100, 0), Err(SeenError::File { .. })));
    }

    #[test]
    fn room_is_made_of_expired_ones_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pushed");
        let taken = (0..SEEN_MAX).map(|n| (digest("k", &n.to_string()), 100)).collect();
        let mut seen = Seen { path: path.clone(), taken };
        assert!(matches!(seen.take("k", "more", 200, 99), Err(SeenError::Full)));
        seen.write().unwrap();
        // The fullest file is read again.
        let mut seen = Seen::open(path).unwrap();
        assert_eq!(seen.taken.len(), SEEN_MAX);
        seen.take("k", "more", 200, 100).unwrap();
        assert_eq!(seen.taken.len(), 1);
    }
}
