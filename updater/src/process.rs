//! Runs child processes, each with a timeout and a limit on the output that is kept.
//!
//! A child process gets a process group of its own, so that a timeout also kills its own children. Its
//! standard input is empty unless it is given one.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, PipeReader, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The timeout of a query, such as `systemctl list-timers`.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The default limit on the output that is kept.
pub(crate) const OUTPUT_MAX: usize = 256 * 1024;
/// How long to wait for the end of the output after the program has ended. A background process that
/// it leaves behind may keep its output open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const WAIT_INTERVAL: Duration = Duration::from_millis(10);
/// How many characters of the last line of stderr are quoted in an error.
const STDERR_MAX: usize = 400;

/// A program to run, with its arguments and limits.
pub(crate) struct Process {
    command: Command,
    /// The command line, as it is logged and quoted in errors.
    command_line: String,
    input: Option<File>,
    timeout: Duration,
    output_max: usize,
}

/// How a process ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit status; `None` if the process was killed because of its timeout.
    pub(crate) status: Option<ExitStatus>,
    /// What it printed.
    pub(crate) output: String,
}

/// A process that could not be run or did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// The program cannot be started, or waiting for it failed.
    #[error("cannot run {program}: {error}")]
    Start {
        /// The program.
        program: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The program ended with a status other than 0.
    #[error("\"{command}\" failed ({status}): {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// The exit status.
        status: ExitStatus,
        /// The last line that it printed to stderr.
        stderr: String,
    },
    /// The program did not end in time and was killed.
    #[error("\"{command}\" did not end within {seconds} s and was killed: {stderr}")]
    TimedOut {
        /// The command line.
        command: String,
        /// The timeout.
        seconds: u64,
        /// The last line that it printed to stderr.
        stderr: String,
    },
}

impl Process {
    /// Creates a process that runs `program`, which is looked up in PATH.
    pub(crate) fn new(program: impl AsRef<OsStr>, timeout: Duration) -> Self {
        let command_line = program.as_ref().to_string_lossy().into_owned();
        let command = Command::new(program);
        Self { command, command_line, input: None, timeout, output_max: OUTPUT_MAX }
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        for argument in arguments {
            let argument = argument.into();
            self.command_line.push(' ');
            self.command_line.push_str(&argument.to_string_lossy());
            self.command.arg(argument);
        }
        self
    }

    /// Adds an argument that is neither logged nor quoted, because it may contain secrets.
    pub(crate) fn secret_arg(mut self, argument: &str) -> Self {
        self.command_line.push_str(" …");
        self.command.arg(argument);
        self
    }

    /// Sets the standard input, which is then a file in memory: systemd-cryptenroll cannot read a key from a
    /// pipe.
    ///
    /// # Errors
    /// Fails if the file cannot be created.
    pub(crate) fn input(self, input: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memfd_create("input", MFdFlags::MFD_CLOEXEC)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(input)?;
        file.rewind()?;
        Ok(Self { input: Some(file), ..self })
    }

    /// Sets the working directory.
    pub(crate) fn directory(mut self, directory: Option<&str>) -> Self {
        if let Some(directory) = directory {
            self.command.current_dir(directory);
        }
        self
    }

    /// Sets environment variables, in addition to those of this process.
    pub(crate) fn envs(
        mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// Sets the number of bytes of output that are kept.
    pub(crate) fn output_max(self, output_max: usize) -> Self {
        Self { output_max, ..self }
    }

    /// Runs the process and returns how it ended, with stdout and stderr in one text.
    ///
    /// # Errors
    /// Fails if the process cannot be started.
    pub(crate) fn run_merged(mut self) -> io::Result<Finished> {
        let (reader, writer) = io::pipe()?;
        self.command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.spawn()?;
        let output = capture(reader, self.output_max);
        // The pipe ends only when all of its writers are closed, and the command holds two of them.
        drop(self.command);
        let status = wait(&mut child, self.timeout)?;
        Ok(Finished { status, output: collect(&output, self.output_max) })
    }

    /// Runs the process and returns its stdout.
    ///
    /// # Errors
    /// Fails if the process cannot be started, times out, or ends with a status other than 0. The error
    /// has the last line of stderr.
    pub(crate) fn stdout(mut self) -> Result<String, ProcessError> {
        let program = self.command.get_program().to_string_lossy().into_owned();
        let failed = |error| ProcessError::Start { program, error };
        let (status, stdout, stderr) = self.run_separate().map_err(failed)?;
        let (command, stderr) = (self.command_line, last_line(&stderr));
        match status {
            Some(status) if status.success() => Ok(stdout),
            Some(status) => Err(ProcessError::Failed { command, status, stderr }),
            None => {
                let seconds = self.timeout.as_secs();
                Err(ProcessError::TimedOut { command, seconds, stderr })
            }
        }
    }

    fn run_separate(&mut self) -> io::Result<(Option<ExitStatus>, String, String)> {
        let ((stdout, stdout_writer), (stderr, stderr_writer)) = (io::pipe()?, io::pipe()?);
        self.command.stdout(stdout_writer).stderr(stderr_writer);
        let mut child = self.spawn()?;
        let captured = [stdout, stderr].map(|reader| capture(reader, self.output_max));
        // The command holds the writers; this closes them.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = wait(&mut child, self.timeout)?;
        let [stdout, stderr] = captured.map(|output| collect(&output, self.output_max));
        Ok((status, stdout, stderr))
    }

    fn spawn(&mut self) -> io::Result<Child> {
        log::debug!("running {}", self.command_line);
        let input = self.input.take().map_or_else(Stdio::null, Stdio::from);
        let child = self.command.stdin(input).process_group(0).spawn();
        // The command holds the input.
        self.command.stdin(Stdio::null());
        child
    }
}

/// Runs a program of systemd and returns its stdout; see [`Process::stdout`].
pub(crate) fn systemd_stdout(
    command_line: &[impl AsRef<str>],
    timeout: Duration,
) -> Result<String, ProcessError> {
    systemd(command_line, timeout).stdout()
}

/// Creates a process for a program of systemd.
pub(crate) fn systemd(command_line: &[impl AsRef<str>], timeout: Duration) -> Process {
    let mut arguments = command_line.iter().map(|argument| argument.as_ref());
    let program = arguments.next().unwrap_or_default();
    // systemctl mistakes a mount namespace with few capabilities for a chroot, and then does nothing.
    let variables = [("SYSTEMD_IGNORE_CHROOT", "1")];
    Process::new(program, timeout).args(arguments).envs(variables)
}

/// Waits for the end of a process. After the timeout, kills its process group and returns `None`.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < timeout {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(WAIT_INTERVAL);
    }
    // The child was not reaped yet, so its process ID, which is also that of the group, was not reused.
    let group = Pid::from_raw(child.id().cast_signed());
    killpg(group, Signal::SIGKILL)?;
    // A process that is blocked in the kernel, for example by a hanging disk, does not end even then.
    let killed = Instant::now();
    while child.try_wait()?.is_none() && killed.elapsed() < DRAIN_TIMEOUT {
        std::thread::sleep(WAIT_INTERVAL);
    }
    Ok(None)
}

/// Reads the output in a thread, since a full pipe would block the process.
fn capture(mut reader: PipeReader, output_max: usize) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 8 * 1024];
        let mut left = output_max;
        while let Ok(length @ 1..) = reader.read(&mut buffer) {
            // Output beyond the limit is read and dropped, so that the process can continue. The receiver
            // may have been dropped.
            let kept = length.min(left);
            left -= kept;
            if kept > 0 && sender.send(buffer[..kept].to_vec()).is_err() {
                left = 0;
            }
        }
    });
    receiver
}

/// Returns the captured output when the pipe ends, or after [`DRAIN_TIMEOUT`].
fn collect(output: &Receiver<Vec<u8>>, output_max: usize) -> String {
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    let mut bytes = Vec::new();
    while let Ok(more) = output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        bytes.extend(more);
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if bytes.len() == output_max {
        text.push_str("\n(the rest of the output was dropped)\n");
    }
    text
}

fn last_line(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.unwrap_or("no output on stderr").chars().take(STDERR_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str, timeout: Duration) -> Process {
        Process::new("sh", timeout).args(["-c", script])
    }

    #[test]
    fn returns_stdout_of_a_program_that_succeeds() {
        assert_eq!(sh("echo out; echo err >&2", LONG).stdout().unwrap(), "out\n");
        let merged = sh("echo out; echo err >&2; exit 3", LONG).run_merged().unwrap();
        assert_eq!(
            (merged.status.unwrap().code(), merged.output.as_str()),
            (Some(3), "out\nerr\n")
        );
        assert_eq!(
            systemd_stdout(&["sh", "-c", "echo $SYSTEMD_IGNORE_CHROOT"], LONG).unwrap(),
            "1\n"
        );
    }

    #[test]
    fn quotes_the_last_line_of_stderr_and_no_secret() {
        let error = sh("echo first >&2; echo last >&2; exit 3", LONG).stdout().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("last") && text.contains("exit status: 3"), "{text}");
        let secret = Process::new("sh", LONG).args(["-c"]).secret_arg("exit 1 # SECRET");
        let text = secret.stdout().unwrap_err().to_string();
        assert!(text.contains("sh -c …") && !text.contains("SECRET"), "{text}");
        let text = Process::new("/nonexistent/x", LONG).stdout().unwrap_err().to_string();
        assert!(text.starts_with("cannot run /nonexistent/x: "), "{text}");
    }

    #[test]
    fn passes_a_secret_to_standard_input_only() {
        let script = "cat </dev/stdin; cat </dev/stdin; tr '\\0' ' ' </proc/$$/cmdline; exit 0";
        let output = sh(script, LONG).input(b"SECRET").unwrap().stdout().unwrap();
        assert!(output.starts_with("SECRETSECRETsh -c "), "{output}");
        assert_eq!(output.matches("SECRET").count(), 2, "{output}");
        assert_eq!(sh("cat", LONG).stdout().unwrap(), "");
    }

    #[test]
    fn kills_the_process_group_after_the_timeout() {
        let start = Instant::now();
        let script = "echo hung >&2; sleep 60 & sleep 60";
        let error = sh(script, Duration::from_millis(300)).stdout().unwrap_err();
        assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(error.to_string().ends_with("hung"), "{error}");
        assert!(start.elapsed() < LONG / 2);
    }

    #[test]
    fn does_not_wait_for_background_processes() {
        let start = Instant::now();
        assert_eq!(sh("sleep 5 & echo started", LONG).stdout().unwrap(), "started\n");
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn drops_output_beyond_the_limit() {
        let flood = sh("head -c 3000000 /dev/zero | tr '\\0' x; exit 3", LONG).output_max(1000);
        let Finished { status, output } = flood.run_merged().unwrap();
        assert_eq!(status.unwrap().code(), Some(3));
        assert!(output.len() < 1100 && output.contains("dropped"), "{}", output.len());
    }
}
