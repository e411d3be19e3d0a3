//! Runs the shell texts of health checks and of a Pattern's Commands, with a timeout and a limit on the
//! output.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use protocol::pattern::{Exec, Output, Shell};

use crate::process::Process;

/// The default timeout. Pulling a container image over a slow line takes minutes.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The exit code that is reported for a Command that timed out, as by timeout(1).
pub(crate) const TIMED_OUT: i32 = 124;

/// A shell that runs texts with an interpreter, such as the `exec` of a Pattern.
pub(crate) struct LimitedShell<'a> {
    exec: &'a Exec,
    timeout: Duration,
}

impl<'a> LimitedShell<'a> {
    /// Creates a shell with the default timeout.
    pub(crate) fn new(exec: &'a Exec) -> Self {
        Self::with_timeout(exec, TIMEOUT)
    }

    /// Creates a shell that kills each text after `timeout`.
    pub(crate) fn with_timeout(exec: &'a Exec, timeout: Duration) -> Self {
        Self { exec, timeout }
    }
}

impl Shell for LimitedShell<'_> {
    type Error = io::Error;

    fn run(&mut self, text: &str, env: &BTreeMap<String, String>) -> io::Result<Output> {
        // The text is the operator's and may contain secrets, so it is not logged.
        let process = Process::new(&self.exec.command, self.timeout)
            .args(self.exec.flags.split_whitespace())
            .secret_arg(text)
            .envs(env);
        let finished = process.run_merged()?;
        let mut text = finished.output;
        let code = match finished.status {
            Some(status) => exit_code(status),
            None => {
                text.push_str(&format!("\nkilled after {} s\n", self.timeout.as_secs()));
                TIMED_OUT
            }
        };
        Ok(Output { code, text })
    }
}

/// Returns the exit code as a shell reports it: 128 plus the number of the signal, if there was one.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sh() -> Exec {
        Exec { command: "/bin/sh".into(), flags: "-e -c".into() }
    }

    fn run(text: &str, timeout: Duration) -> Output {
        let env = BTreeMap::from([("X".to_owned(), "value".to_owned())]);
        LimitedShell { exec: &sh(), timeout }.run(text, &env).unwrap()
    }

    #[test]
    fn returns_output_and_exit_code() {
        let output = run("echo out; echo err >&2; echo $X; exit 3", TIMEOUT);
        assert_eq!(output, Output { code: 3, text: "out\nerr\nvalue\n".into() });
        assert_eq!(run("kill -9 $$", TIMEOUT).code, 137);
    }

    #[test]
    fn kills_a_text_and_its_children_after_the_timeout() {
        let start = Instant::now();
        let output = run("echo started; sleep 60 & sleep 60", Duration::from_millis(200));
        assert_eq!(output.code, TIMED_OUT);
        assert!(output.text.starts_with("started\n"), "{}", output.text);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn does_not_wait_for_background_processes() {
        let start = Instant::now();
        assert_eq!(run("sleep 5 & echo started", TIMEOUT).text, "started\n");
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn truncates_long_output_without_blocking() {
        let output = run("head -c 3000000 /dev/zero | tr '\\0' x", TIMEOUT);
        assert_eq!(output.code, 0);
        assert!(output.text.len() < 256 * 1024 + 100);
        assert!(output.text.contains("dropped"));
    }

    #[test]
    fn fails_if_the_interpreter_cannot_be_started() {
        let exec = Exec { command: "/nonexistent/sh".into(), flags: String::new() };
        assert!(LimitedShell::new(&exec).run("true", &BTreeMap::new()).is_err());
        assert!(LimitedShell::new(&sh()).run("a\0b", &BTreeMap::new()).is_err());
    }
}
