//! Child processes that cannot outlive the testbed.
//!
//! A VM that keeps running would hold memory, ports and files. So a child is killed when its
//! [`Process`] is dropped, and the kernel kills it if the testbed is killed.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two checks whether a child has exited.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The number of characters of a child's output that an exit report contains.
const LOG_TAIL_CHARS: usize = 2000;

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
/// `setpriv --pdeathsig` makes the kernel send SIGKILL to the child when its parent exits; see
/// PR_SET_PDEATHSIG(2const). The parent in this sense is the *thread* that started the child, so each
/// child has a thread that starts it and waits for it.
pub(crate) struct Process {
    program: String,
    log: PathBuf,
    status: Arc<Mutex<Option<ExitStatus>>>,
    /// Makes the thread kill the child when dropped.
    stop: Option<mpsc::Sender<()>>,
    supervisor: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` in the directory `cwd` and writes its standard output and error to the file
    /// `log`.
    ///
    /// A program that does not exist is no error here: setpriv exits and its message is in the exit
    /// report.
    pub(crate) fn start(
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
            // Without a group of its own, the child would also receive SIGINT from Ctrl-C. The testbed
            // ends its children itself, in the right order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(fail)?)
            .stderr(output);
        log::debug!("{command:?}");

        let status = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel();
        let (started, outcome) = mpsc::channel();
        let shared = Arc::clone(&status);
        let supervisor = thread::Builder::new()
            .name(format!("{program} supervisor"))
            .spawn(move || match command.spawn() {
                Ok(child) => {
                    // If the receiver is gone, `stopped` is disconnected and the child is killed.
                    let _ = started.send(Ok(()));
                    supervise(child, &stopped, &shared);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            })
            .map_err(fail)?;
        match outcome.recv() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(fail(source)),
            Err(_) => return Err(fail(std::io::Error::other("the supervisor thread ended early"))),
        }
        Ok(Self {
            program: program.into(),
            log: log.into(),
            status,
            stop: Some(stop),
            supervisor: Some(supervisor),
        })
    }

    /// Returns the exit status, or `None` while the child runs.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        *lock(&self.status)
    }

    /// Waits up to `timeout` for the child to exit, and returns its status if it did.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            match self.exit_status() {
                None if start.elapsed() < timeout => thread::sleep(POLL_INTERVAL),
                status => return status,
            }
        }
    }

    /// Returns the exit status and the end of the output, or `None` while the child runs.
    pub(crate) fn exit_report(&self) -> Option<String> {
        let status = self.exit_status()?;
        let output = std::fs::read_to_string(&self.log).unwrap_or_default();
        let output = last_chars(output.trim(), LOG_TAIL_CHARS);
        let output = if output.is_empty() { "(no output)" } else { output };
        Some(format!("{} ended with {status}: {output}", self.program))
    }

    /// Kills the child and waits until it has exited.
    pub(crate) fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(supervisor) = self.supervisor.take()
            && supervisor.join().is_err()
        {
            log::error!("the supervisor thread of {} panicked", self.program);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until the child exits, or kills it when `stopped` is disconnected.
fn supervise(mut child: Child, stopped: &mpsc::Receiver<()>, status: &Mutex<Option<ExitStatus>>) {
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(exited) => {
                *lock(status) = exited;
                return;
            }
            Err(error) => log::error!("cannot check whether process {} runs: {error}", child.id()),
        }
        if let Ok(()) | Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(POLL_INTERVAL) {
            // This fails only if the child has already exited.
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

    fn shell(script: &str, dir: &Path) -> Process {
        Process::start("sh", &["-c".into(), script.into()], dir, &dir.join("log")).unwrap()
    }

    #[test]
    fn reports_exit_status_and_output() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell("echo out; echo err >&2; exit 3", dir.path());
        assert_eq!(child.wait(Duration::from_secs(10)).unwrap().code(), Some(3));
        let exit_report = child.exit_report().unwrap();
        assert!(exit_report.contains("exit status: 3: out\nerr"), "{exit_report}");
    }

    #[test]
    fn kills_child_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let child = shell("echo $$ >pid; exec sleep 1000", dir.path());
        let pid = loop {
            match std::fs::read_to_string(dir.path().join("pid")) {
                Ok(pid) if pid.ends_with('\n') => break pid,
                _ => thread::sleep(POLL_INTERVAL),
            }
        };
        assert!(child.exit_status().is_none());
        drop(child);
        assert!(!Path::new("/proc").join(pid.trim()).exists());
    }

    #[test]
    fn reports_missing_program_in_exit_report() {
        let dir = tempfile::tempdir().unwrap();
        let child = Process::start("no-such-program", &[], dir.path(), &dir.path().join("log"));
        let child = child.unwrap();
        child.wait(Duration::from_secs(10)).unwrap();
        assert!(child.exit_report().unwrap().contains("no-such-program"));
    }

    #[test]
    fn cuts_tail_at_character_boundary() {
        assert_eq!(last_chars("aäö", 2), "äö");
        assert_eq!(last_chars("a", 2), "a");
        assert_eq!(last_chars("", 2), "");
    }
}
