//! The shells that are open, for the decision about a reboot.
//!
//! Each has a file in `/run/etchaos/shells` with a text for operators. The process that serves the shell holds a
//! lock on it, so the file of a process that was killed does not count.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::host::{Host, read_limited};

const DIRECTORY: &str = "/run/etchaos/shells";
/// The limit on the text of a shell.
const TEXT_MAX: u64 = 4096;

/// A shell that is open until this is dropped.
#[derive(Debug)]
pub(crate) struct OpenShell {
    path: PathBuf,
    _lock: File,
}

impl OpenShell {
    /// Records a shell. `id` is its name, and `text` says whose it is.
    ///
    /// # Errors
    /// Fails if the file cannot be written or is locked. There must be no shell then, since the host could
    /// reboot under it.
    pub(crate) fn record(host: &Host, id: &str, text: &str) -> io::Result<Self> {
        let directory = host.path(DIRECTORY);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let path = directory.join(id);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.try_lock().map_err(io::Error::from)?;
        file.set_len(0)?;
        file.write_all(text.as_bytes())?;
        Ok(Self { path, _lock: file })
    }
}

impl Drop for OpenShell {
    fn drop(&mut self) {
        // A file that stays is not locked, and does not count.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns the texts of the shells that are open.
///
/// # Errors
/// Fails if the directory cannot be read.
pub(crate) fn list(host: &Host) -> io::Result<Vec<String>> {
    let entries = match host.path(DIRECTORY).read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut open = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // The shell may end meanwhile.
        let Ok(file) = File::open(&path) else { continue };
        if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
            let text = read_limited(&path, TEXT_MAX).ok().flatten().unwrap_or_default();
            open.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_shells_only_while_they_are_open() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        assert!(list(&host).unwrap().is_empty());
        let one = OpenShell::record(&host, "1", "one").unwrap();
        assert!(OpenShell::record(&host, "1", "again").is_err());
        let two = OpenShell::record(&host, "2", "two").unwrap();
        let mut texts = list(&host).unwrap();
        texts.sort();
        assert_eq!(texts, ["one", "two"]);
        drop(one);
        assert_eq!(list(&host).unwrap(), ["two"]);
        // As after a process was killed: the file stays, and nobody holds the lock.
        let path = two.path.clone();
        drop(two);
        std::fs::write(&path, "left over").unwrap();
        assert!(list(&host).unwrap().is_empty());
        OpenShell::record(&host, "2", "new").unwrap();
    }
}
