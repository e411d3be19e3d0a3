//! Runs the shell texts of health checks and of a Pattern's Commands, with a timeout and a limit on the
//! output.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use protocol::pattern::{Invocation, Output, Shell, Stream};

use crate::process::{OUTPUT_MAX, Process};

/// The default timeout. Pulling a container image over a slow line takes minutes.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The limit on the output that is kept of all Commands of a Pattern. The answer to a push has most of it twice.
const TOTAL_OUTPUT_MAX: usize = 4 << 20;
/// How much of the output of each Command is kept beyond that limit.
const OUTPUT_MIN: usize = 1024;
/// The exit code that is reported for a Command that timed out, as by timeout(1).
pub(crate) const TIMED_OUT: i32 = 124;
/// The exit code that is reported for a Command whose interpreter cannot be started, as by env(1).
const NOT_STARTED: i32 = 126;

/// A shell that runs texts with an interpreter, such as the `exec` of a Pattern.
pub(crate) struct LimitedShell {
    timeout: Duration,
    /// How many bytes of output may still be kept.
    output_left: usize,
}

impl LimitedShell {
    /// Creates a shell with the default timeout.
    pub(crate) fn new() -> Self {
        Self::with_timeout(TIMEOUT)
    }

    /// Creates a shell that kills each text after `timeout`.
    pub(crate) fn with_timeout(timeout: Duration) -> Self {
        Self { timeout, output_left: TOTAL_OUTPUT_MAX }
    }

    /// Runs a text.
    ///
    /// # Errors
    /// Fails if the interpreter cannot be started.
    pub(crate) fn try_run(&self, invocation: &Invocation<'_>) -> io::Result<Output> {
        let mut words = invocation.exec.words();
        // The text is the operator's and may contain secrets, so it is not logged.
        let mut process = Process::new(words.next().unwrap_or_default(), self.timeout)
            .args(words)
            .secret_arg(invocation.script)
            .directory(invocation.exec.work_dir.as_deref())
            .envs(invocation.env)
            .output_max(OUTPUT_MAX.min(self.output_left.max(OUTPUT_MIN)));
        if let Some(input) = invocation.stdin {
            process = process.input(input.as_bytes())?;
        }
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

impl Shell for LimitedShell {
    type Error = io::Error;

    /// Runs a text. If its interpreter cannot be started, for example because a Command has one that is not
    /// installed, the Command has failed, so that the Commands for that case run.
    fn run(&mut self, invocation: &Invocation<'_>) -> io::Result<Output> {
        let output = self.try_run(invocation).unwrap_or_else(|error| {
            let program = invocation.exec.words().next().unwrap_or_default();
            Output { code: NOT_STARTED, text: format!("cannot run {program}: {error}\n") }
        });
        self.output_left = self.output_left.saturating_sub(output.text.len());
        Ok(output)
    }

    fn print(&mut self, id: &str, stream: Stream, output: &str) {
        match stream {
            Stream::Stdout => log::info!("the Command {id:?}: {output}"),
            Stream::Stderr => log::warn!("the Command {id:?}: {output}"),
        }
    }
}

/// Returns the exit code as a shell reports it: 128 plus the number of the signal, if there was one.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use protocol::pattern::Exec;

    use super::*;

    fn sh() -> Exec {
        Exec::new("/bin/sh", "-e -c")
    }

    fn run_with(
        exec: &Exec,
        script: &str,
        stdin: Option<&str>,
        timeout: Duration,
    ) -> io::Result<Output> {
        let env = BTreeMap::from([("X".to_owned(), "value".to_owned())]);
        let invocation = Invocation { id: "x", script, exec, stdin, env: &env };
        LimitedShell::with_timeout(timeout).run(&invocation)
    }

    fn run(script: &str, timeout: Duration) -> Output {
        run_with(&sh(), script, None, timeout).unwrap()
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
    fn limits_the_output_of_all_commands_together() {
        let (exec, env) = (sh(), BTreeMap::new());
        let script = "head -c 300000 /dev/zero | tr '\\0' x";
        let invocation = Invocation { id: "x", script, exec: &exec, stdin: None, env: &env };
        let mut shell = LimitedShell::new();
        let count = 2 * TOTAL_OUTPUT_MAX / OUTPUT_MAX;
        let mut total = 0;
        for _ in 0..count {
            let text = shell.run(&invocation).unwrap().text;
            assert!(text.len() >= OUTPUT_MIN && text.contains("dropped"), "{}", text.len());
            total += text.len();
        }
        assert!(total < TOTAL_OUTPUT_MAX + count * (OUTPUT_MIN + 100), "{total}");
        // A short output is whole.
        let short = Invocation { script: "echo short", ..invocation };
        assert_eq!(shell.run(&short).unwrap().text, "short\n");
    }

    #[test]
    fn an_interpreter_that_cannot_be_started_is_a_failure() {
        let exec = Exec::new("/nonexistent/sh", "");
        let output = run_with(&exec, "true", None, TIMEOUT).unwrap();
        assert_eq!(output.code, NOT_STARTED);
        assert!(
            output.text.starts_with("cannot run /nonexistent/sh: No such file"),
            "{}",
            output.text
        );
        assert_eq!(run("a\0b", TIMEOUT).code, NOT_STARTED);
        let invocation =
            Invocation { id: "x", script: "true", exec: &exec, stdin: None, env: &BTreeMap::new() };
        assert!(LimitedShell::new().try_run(&invocation).is_err());
    }

    #[test]
    fn gives_standard_input_and_a_directory() {
        let exec = Exec { work_dir: Some("/usr".into()), ..sh() };
        let output = run_with(&exec, "pwd; cat", Some("line 1\nline 2"), TIMEOUT).unwrap();
        assert_eq!(output.text, "/usr\nline 1\nline 2");
        assert_eq!(run("cat", TIMEOUT).text, "");
        // A script that does not read its input is not blocked by it.
        let start = Instant::now();
        let output = run_with(&sh(), "echo done", Some(&"x".repeat(1 << 20)), TIMEOUT).unwrap();
        assert_eq!((output.code, output.text.as_str()), (0, "done\n"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_default_exec_of_a_pattern_ends_a_script_at_the_first_failure() {
        for script in ["false | true", "false; true", "set -u; echo $UNSET_VARIABLE"] {
            let output = run_with(&Exec::default(), script, None, TIMEOUT).unwrap();
            assert_ne!(output.code, 0, "{script}");
        }
    }
}
