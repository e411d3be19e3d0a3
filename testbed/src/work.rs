//! The directory of a run: disk copies, flash, sockets. It is gone when the run is over.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// How the directories of runs are named.
const PREFIX: &str = "testbed-";
/// Locked for as long as the run lives; the kernel unlocks it even after a SIGKILL.
const LOCK: &str = "lock";

/// A directory that could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a directory for this run in {}: {source}", within.display())]
pub struct WorkError {
    within: PathBuf,
    source: io::Error,
}

/// The directory of a run, deleted when this is dropped.
pub struct Work {
    dir: TempDir,
    _lock: File,
}

impl Work {
    /// Makes a new directory within `within`, and removes what killed runs have left there.
    pub fn new(within: &Path) -> Result<Self, WorkError> {
        let fail = |source| WorkError { within: within.into(), source };
        fs::create_dir_all(within).map_err(fail)?;
        let within = fs::canonicalize(within).map_err(fail)?;
        Self::make(&within).map_err(fail)
    }

    /// Where it is: an absolute path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn make(within: &Path) -> io::Result<Self> {
        // One at a time: a directory whose lock is not taken yet would look like a leftover.
        let turn = File::create(within.join(format!("{PREFIX}turn")))?;
        turn.lock()?;
        remove_leftovers(within)?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(within)?;
        let lock = File::create(dir.path().join(LOCK))?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock })
    }
}

fn remove_leftovers(within: &Path) -> io::Result<()> {
    for entry in fs::read_dir(within)? {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !ours || !entry.file_type()?.is_dir() {
            continue;
        }
        let abandoned = match File::open(entry.path().join(LOCK)) {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(error),
            },
            // Killed before it had a lock, or while it was being deleted.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if abandoned {
            log::info!("removing {}, which a killed run has left", entry.path().display());
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_nothing_and_cleans_up_after_killed_ones_alone() {
        let within = tempfile::tempdir().unwrap();
        let (killed, foreign) = (within.path().join("testbed-killed"), within.path().join("other"));
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join(LOCK), "").unwrap();
        fs::create_dir(&foreign).unwrap();
        let first = Work::new(within.path()).unwrap();
        assert!(!killed.exists() && foreign.exists());
        let second = Work::new(within.path()).unwrap();
        assert!(first.path().exists(), "a run that lives is no leftover");
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists() && first.path().exists());
    }
}
