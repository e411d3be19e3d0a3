//! Child processes that cannot outlive us.
//!
//! A VM that is left behind holds memory, ports and files until somebody finds it. So a child is
//! killed when its [`Process`] is dropped, and by the kernel when we die without dropping anything.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the end of a child is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How much of a child's own messages goes into an error.
const LOG_TAIL: usize = 2000;

/// A child process that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program} (through setpriv, logging to {}): {source}", log.display())]
pub struct StartError {
    program: String,
    log: PathBuf,
    source: std::io::Error,
}

/// A running child process.
///
/// The kernel is asked for a SIGKILL at the death of the parent (`setpriv --pdeathsig`, see
/// PR_SET_PDEATHSIG). It counts the *thread* that started the child as the parent, so every child
/// has a thread that starts it and lives as long as it.
pub struct Process {
    program: String,
    log: PathBuf,
    status: Arc<Mutex<Option<ExitStatus>>>,
    /// Dropping it tells the thread to kill.
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` in the directory `cwd`, with its standard output and error in the file `log`.
    pub fn start(
        program: &str,
        arguments: &[OsString],
        cwd: &Path,
        log: &Path,
    ) -> Result<Self, StartError> {
        let fail = |source| StartError { program: program.into(), log: log.into(), source };
        let output = File::create(log).map_err(fail)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .current_dir(cwd)
            // Ctrl-C in a terminal is for us; we end our children in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(fail)?)
            .stderr(output);
        log::debug!("{command:?}");

        let status = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel();
        let (started, outcome) = mpsc::channel();
        let shared = Arc::clone(&status);
        let keeper = thread::Builder::new()
            .name(format!("{program} keeper"))
            .spawn(move || match command.spawn() {
                Ok(child) => {
                    // Nobody listens only if the other side is gone, and then `stopped` says so.
                    let _ = started.send(Ok(()));
                    keep(child, &stopped, &shared);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .map_err(fail)?;
        match outcome.recv() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(fail(source)),
            Err(_) => return Err(fail(std::io::Error::other("its keeper thread ended early"))),
        }
        Ok(Self {
            program: program.into(),
            log: log.into(),
            status,
            stop: Some(stop),
            keeper: Some(keeper),
        })
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        *lock(&self.status)
    }

    /// Waits for its end, at most this long.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.exited() {
                None if start.elapsed() < timeout => thread::sleep(POLL_INTERVAL),
                status => return status,
            }
        }
    }

    /// How it ended and the last of what it said, for an error; nothing while it runs.
    pub fn exit_report(&self) -> Option<String> {
        let status = self.exited()?;
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let said = last_chars(said.trim(), LOG_TAIL);
        let said = if said.is_empty() { "it said nothing" } else { said };
        Some(format!("{} ended with {status}: {said}", self.program))
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            log::error!("the keeper thread of {} panicked", self.program);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the end of the child or of interest in it.
fn keep(mut child: Child, stopped: &mpsc::Receiver<()>, status: &Mutex<Option<ExitStatus>>) {
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(ended) => {
                *lock(status) = ended;
                return;
            }
            Err(error) => log::error!("cannot ask for the state of {}: {error}", child.id()),
        }
        if let Ok(()) | Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(POLL_INTERVAL) {
            // It fails only if the child has ended by itself.
            let _ = child.kill();
            *lock(status) = child.wait().ok();
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn last_chars(text: &str, count: usize) -> &str {
    let start = text.char_indices().rev().nth(count.saturating_sub(1)).map_or(0, |(at, _)| at);
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, dir: &Path) -> Process {
        Process::start("sh", &["-c".into(), text.into()], dir, &dir.join("log")).unwrap()
    }

    #[test]
    fn the_end_and_the_last_words_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell("echo out; echo err >&2; exit 3", dir.path());
        assert_eq!(child.wait(Duration::from_secs(10)).unwrap().code(), Some(3));
        let exit_report = child.exit_report().unwrap();
        assert!(exit_report.contains("exit status: 3: out\nerr"), "{exit_report}");
    }

    #[test]
    fn dropping_kills() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell("echo $$ >pid; exec sleep 1000", dir.path());
        let pid = loop {
            match std::fs::read_to_string(dir.path().join("pid")) {
                Ok(pid) if pid.ends_with('\n') => break pid,
                _ => thread::sleep(POLL_INTERVAL),
            }
        };
        assert!(child.exited().is_none());
        drop(child);
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_seen_in_the_obituary() {
        let dir = tempfile::tempdir().unwrap();
        let child = Process::start("no-such-program", &[], dir.path(), &dir.path().join("log"));
        let child = child.unwrap();
        child.wait(Duration::from_secs(10)).unwrap();
        assert!(child.exit_report().unwrap().contains("no-such-program"));
    }

    #[test]
    fn tails_end_at_characters() {
        assert_eq!(last_chars("aäö", 2), "äö");
        assert_eq!(last_chars("a", 2), "a");
        assert_eq!(last_chars("", 2), "");
    }
}
