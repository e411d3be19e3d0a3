//! One Pattern runs at a time, whether it was pushed or is run again.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use crate::esp::RUN;
use crate::host::Host;

/// The file that is locked, in the directory of the updater.
const FILE: &str = "patterns.lock";
/// How long to wait for the turn. A Command may take ten minutes.
const TURN_TIMEOUT: Duration = Duration::from_secs(30 * 60);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The turn to run Patterns, which ends when this is dropped or when the process ends. Scripts of Commands do
/// not inherit it.
#[derive(Debug)]
pub(crate) struct Turn {
    lock: File,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Closing the file may not be enough: a process that another thread is just starting has it open, too, until
        // it executes its program. An error leaves the lock to the end of this process.
        let _ = self.lock.unlock();
    }
}

/// Waits until no other process runs Patterns, but at most [`TURN_TIMEOUT`]: a Command that waits for its own Pattern
/// would wait forever.
///
/// # Errors
/// Fails if the file cannot be opened or locked, or after the timeout.
pub(crate) fn wait_for_turn(host: &Host) -> io::Result<Turn> {
    let since = Instant::now();
    loop {
        if let Some(turn) = take_turn(host)? {
            return Ok(turn);
        }
        if since.elapsed() >= TURN_TIMEOUT {
            let reason = "another Pattern is running: try again when it has ended";
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// Takes the turn. Returns `None` if another process runs Patterns.
///
/// # Errors
/// Fails if the file cannot be opened or locked.
pub(crate) fn take_turn(host: &Host) -> io::Result<Option<Turn>> {
    let file = open(host)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Turn { lock: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn open(host: &Host) -> io::Result<File> {
    let directory = host.path(RUN);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(directory.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_turn_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        let turn = wait_for_turn(&host).unwrap();
        assert!(take_turn(&host).unwrap().is_none());
        drop(turn);
        assert!(take_turn(&host).unwrap().is_some());
    }
}
