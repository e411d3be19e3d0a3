//! Locks between builder processes.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};

/// Locks a file, which is created if it does not exist. Calls `wait` first if another process holds the lock. The
/// lock is held until the returned file is closed.
pub(crate) fn lock_or_wait(path: &Path, wait: impl FnOnce()) -> Result<File> {
    let failed = || format!("locking {}", path.display());
    let lock = File::create(path).with_context(failed)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            wait();
            lock.lock().with_context(failed)?;
        }
        locked => locked.with_context(failed)?,
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn waits_until_the_lock_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = lock_or_wait(&path, || panic!("the lock is free")).unwrap();
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| lock_or_wait(&path, || sender.send(()).unwrap()).unwrap());
            receiver.recv().unwrap();
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap();
        });
    }
}
