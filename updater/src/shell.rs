//! Runs a Command's text, with a limit for everything.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use protocol::pattern::{Exec, Output, Shell};

/// What is kept of a Command's output. A Pattern's answer is read by people.
const OUTPUT_MAX: usize = 256 * 1024;
/// Pulling an image over a bad line takes minutes. What takes longer is stuck.
const TIME_MAX: Duration = Duration::from_secs(600);
/// A process that a Command leaves behind may hold its output open; it is not waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Between two looks at a process.
const PAUSE: Duration = Duration::from_millis(10);
/// The exit code of a Command that was killed for its time, as of timeout(1).
pub(crate) const TIMED_OUT: i32 = 124;

/// Runs texts by a Pattern's `exec`.
pub struct Bounded<'a> {
    exec: &'a Exec,
    time_max: Duration,
}

impl<'a> Bounded<'a> {
    /// With the usual limits.
    pub fn new(exec: &'a Exec) -> Self {
        Self::within(exec, TIME_MAX)
    }

    /// With another limit of time for each text.
    pub fn within(exec: &'a Exec, time_max: Duration) -> Self {
        Self { exec, time_max }
    }
}

impl Shell for Bounded<'_> {
    type Error = io::Error;

    fn run(&mut self, text: &str, env: &BTreeMap<String, String>) -> io::Result<Output> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&self.exec.command);
        command.args(self.exec.flags.split_whitespace()).arg(text).envs(env);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        // A group of its own, so that a timeout ends what the text started, too.
        let mut child = command.process_group(0).spawn()?;
        // The pipe ends only when every writer is closed, and `command` holds two.
        drop(command);
        let output = capture(reader);
        let status = wait(&mut child, self.time_max)?;
        let mut text = collect(&output);
        let code = match status {
            Some(status) => exit_code(status),
            None => {
                text.push_str(&format!("\nended after {} s\n", self.time_max.as_secs()));
                TIMED_OUT
            }
        };
        Ok(Output { code, text })
    }
}

/// Waits for the end of a process, or ends its group.
fn wait(child: &mut Child, max: Duration) -> io::Result<Option<ExitStatus>> {
    let since = Instant::now();
    while since.elapsed() < max {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(PAUSE);
    }
    // The child was not waited for, so its id, which is the group's, is still its own.
    let group = Pid::from_raw(child.id().cast_signed());
    killpg(group, Signal::SIGKILL)?;
    child.wait()?;
    Ok(None)
}

/// As a shell says it: 128 and the signal.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads in a thread: what is not read would block the process.
fn capture(mut reader: PipeReader) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8 * 1024];
        let mut left = OUTPUT_MAX;
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            // Beyond the limit it is read and dropped, so that the process can go on. Nobody may
            // be waiting for it any more.
            let kept = length.min(left);
            left -= kept;
            if kept > 0 && sender.send(buffer[..kept].to_vec()).is_err() {
                left = 0;
            }
        }
    });
    receiver
}

/// What was captured, until the pipe ends or nothing came for a while.
fn collect(output: &Receiver<Vec<u8>>) -> String {
    let deadline = Instant::now() + LAST_WORDS;
    let mut bytes = Vec::new();
    while let Ok(more) = output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        bytes.extend(more);
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if bytes.len() == OUTPUT_MAX {
        text.push_str("\n(the rest of the output was dropped)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh() -> Exec {
        Exec { command: "/bin/sh".into(), flags: "-e -c".into() }
    }

    fn play(text: &str, time_max: Duration) -> Output {
        let env = BTreeMap::from([("X".to_owned(), "handed on".to_owned())]);
        Bounded { exec: &sh(), time_max }.run(text, &env).unwrap()
    }

    #[test]
    fn output_and_code_are_those_of_the_text() {
        let output = play("echo out; echo err >&2; echo $X; exit 3", TIME_MAX);
        assert_eq!(output, Output { code: 3, text: "out\nerr\nhanded on\n".into() });
        assert_eq!(play("kill -9 $$", TIME_MAX).code, 137);
    }

    #[test]
    fn a_text_that_takes_too_long_is_ended_with_what_it_started() {
        let since = Instant::now();
        let output = play("echo begun; sleep 60 & sleep 60", Duration::from_millis(200));
        assert_eq!(output.code, TIMED_OUT);
        assert!(output.text.starts_with("begun\n"), "{}", output.text);
        assert!(since.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_process_that_is_left_behind_is_not_waited_for() {
        let since = Instant::now();
        assert_eq!(play("sleep 5 & echo started", TIME_MAX).text, "started\n");
        assert!(since.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_flood_is_cut_and_does_not_block() {
        let output = play("head -c 3000000 /dev/zero | tr '\\0' x", TIME_MAX);
        assert_eq!(output.code, 0);
        assert!(output.text.len() < OUTPUT_MAX + 100);
        assert!(output.text.contains("dropped"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let exec = Exec { command: "/nonexistent/sh".into(), flags: String::new() };
        assert!(Bounded::new(&exec).run("true", &BTreeMap::new()).is_err());
        assert!(Bounded::new(&sh()).run("a\0b", &BTreeMap::new()).is_err());
    }
}
