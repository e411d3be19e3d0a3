//! The directory of a run: disk copies, flash images and sockets. It is removed after the run.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::cancel::Cancel;

/// The name of the default work directory in the user's cache directory.
const NAME: &str = "etchaos-testbed";
/// The prefix of the directory names of runs.
const PREFIX: &str = "testbed-";
/// The name of the lock file, which is locked for the whole run. The kernel releases the lock even
/// after a SIGKILL.
const LOCK: &str = "lock";
/// Time between two attempts to take the lock that another run holds while it starts.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Permission to write for users that are neither the owner nor in the group.
const OTHERS_WRITE: u32 = 0o002;

/// A work directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// An operation on the directory failed.
    #[error("cannot create a directory for this run in {}: {source}", within.display())]
    Io {
        /// The work directory.
        within: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another user could put links into the directory or replace disks in it.
    #[error(
        "the work directory {} {problem}; choose a private directory with --work",
        within.display()
    )]
    NotPrivate {
        /// The work directory.
        within: PathBuf,
        /// Who else controls it.
        problem: &'static str,
    },
    /// A stop was requested.
    #[error("stopped while waiting for another run to start in {}", .0.display())]
    Cancelled(PathBuf),
}

/// The directory of a run. Dropping it removes the directory.
pub(crate) struct Work {
    dir: TempDir,
    _lock: File,
}

impl Work {
    /// Creates a new directory within `within`, and removes the directories of killed runs.
    ///
    /// `within` is created with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// Fails if `within` belongs to another user or if everybody may write to it, if a file
    /// operation fails, or if `cancel` requests a stop.
    pub(crate) fn new(within: &Path, cancel: &Cancel) -> Result<Self, WorkError> {
        let fail = |source| WorkError::Io { within: within.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(within).map_err(fail)?;
        let within = fs::canonicalize(within).map_err(fail)?;
        check_private(&within)?;
        // Runs start one at a time, because a directory that is not locked yet looks like a leftover.
        let turn = open_lock(&within.join(format!("{PREFIX}turn"))).map_err(fail)?;
        loop {
            match turn.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if cancel.is_cancelled() => {
                    return Err(WorkError::Cancelled(within));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_INTERVAL),
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
        Self::create(&within).map_err(fail)
    }

    /// Returns the absolute path of the directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn create(within: &Path) -> io::Result<Self> {
        remove_leftovers(within)?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(within)?;
        let lock = File::create_new(dir.path().join(LOCK))?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock })
    }
}

/// Returns the default work directory: one in the user's cache directory, which other users cannot
/// write to. Without a cache directory it is in the directory for temporary files, where
/// [`Work::new`] refuses a directory of another user.
pub(crate) fn default_work() -> PathBuf {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME");
    let cache = cache.or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    match cache {
        Some(cache) => cache.join(NAME),
        None => env::temp_dir().join(format!("{NAME}-{}", geteuid())),
    }
}

fn check_private(within: &Path) -> Result<(), WorkError> {
    let io = |source| WorkError::Io { within: within.into(), source };
    let metadata = fs::metadata(within).map_err(io)?;
    let problem = if metadata.uid() != geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & OTHERS_WRITE != 0 {
        "is writable by all users"
    } else {
        return Ok(());
    };
    Err(WorkError::NotPrivate { within: within.into(), problem })
}

/// Opens a lock file without truncating it and without following a symbolic link.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

fn remove_leftovers(within: &Path) -> io::Result<()> {
    for entry in fs::read_dir(within)? {
        let entry = entry?;
        let is_run = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_run || !entry.file_type()?.is_dir() {
            continue;
        }
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_NOFOLLOW.bits());
        let is_leftover = match options.open(entry.path().join(LOCK)) {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(error),
            },
            // The run was killed before it created its lock, or while it was being removed.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_leftover {
            log::info!("removing {}, left by a killed run", entry.path().display());
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn new(within: &Path) -> Result<Work, WorkError> {
        Work::new(within, &Cancel::default())
    }

    #[test]
    fn removes_only_its_own_directory_and_those_of_killed_runs() {
        let within = tempfile::tempdir().unwrap();
        let (killed, foreign) = (within.path().join("testbed-killed"), within.path().join("other"));
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join(LOCK), "").unwrap();
        fs::create_dir(&foreign).unwrap();
        let first = new(within.path()).unwrap();
        assert!(!killed.exists() && foreign.exists());
        let second = new(within.path()).unwrap();
        assert!(first.path().exists(), "a run in progress is not a leftover");
        let path = second.path().to_owned();
        drop(second);
        assert!(!path.exists() && first.path().exists());
    }

    #[test]
    fn does_not_follow_a_link_in_place_of_the_lock() {
        let within = tempfile::tempdir().unwrap();
        let victim = within.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, within.path().join("testbed-turn")).unwrap();
        assert!(new(within.path()).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn refuses_a_directory_that_all_users_may_write_to() {
        let within = tempfile::tempdir().unwrap();
        fs::set_permissions(within.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = new(within.path()).err().unwrap().to_string();
        assert!(error.contains("writable by all users") && error.contains("--work"), "{error}");
    }

    #[test]
    fn refuses_a_directory_of_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let foreign = if geteuid().is_root() {
            nix::unistd::chown(dir.path(), Some(1.into()), None).unwrap();
            dir.path()
        } else {
            Path::new("/usr")
        };
        let error = check_private(foreign).unwrap_err().to_string();
        assert!(error.contains("belongs to another user"), "{error}");
    }

    #[test]
    fn creates_the_work_directory_for_its_owner_only() {
        let parent = tempfile::tempdir().unwrap();
        let within = parent.path().join("work");
        drop(new(&within).unwrap());
        assert_eq!(fs::metadata(&within).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn stops_waiting_for_another_run_when_cancelled() {
        let within = tempfile::tempdir().unwrap();
        let turn = open_lock(&within.path().join("testbed-turn")).unwrap();
        turn.lock().unwrap();
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(matches!(Work::new(within.path(), &cancel), Err(WorkError::Cancelled(_))));
    }
}
