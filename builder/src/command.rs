//! Runs programs of the host.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::environment;
use crate::log_file::LogFile;

/// The prefix of command lines that makes a program end together with the builder, even after SIGKILL.
///
/// `setpriv` makes the kernel kill `unshare` when the builder ends. `unshare --kill-child` then kills the
/// first process of its PID namespace, and with it the kernel ends all its processes and mounts.
const LIFETIME_PREFIX: [&str; 9] = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    "--",
    "unshare",
    "--fork",
    "--kill-child",
    "--pid",
    "--mount-proc",
];

/// A program and its arguments.
#[derive(Debug)]
pub(crate) struct Tool {
    command: Command,
}

impl Tool {
    /// Creates a command for a program in `PATH`, with the environment of [`environment::of_tools`].
    pub(crate) fn new(program: &str) -> Self {
        let mut command = Command::new(LIFETIME_PREFIX[0]);
        command.env_clear().envs(environment::of_tools());
        command.args(&LIFETIME_PREFIX[1..]).args(["--", program]).stdin(Stdio::null());
        Self { command }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the working directory, which is otherwise that of the builder.
    pub(crate) fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Runs the program and returns its standard output.
    ///
    /// # Errors
    /// Fails if the program cannot be started or does not succeed. The error contains the command line
    /// and the last lines of the output.
    pub(crate) fn run(mut self, log: &mut LogFile) -> Result<String> {
        let arguments: Vec<OsString> =
            self.command.get_args().skip(LIFETIME_PREFIX.len()).map(OsStr::to_owned).collect();
        let line = arguments.join(OsStr::new(" "));
        let line = line.to_string_lossy();
        log.forget_tail();
        log.quote(&line);
        let (status, stdout) =
            log.stream(&mut self.command).with_context(|| format!("starting: {line}"))?;
        if !status.success() {
            bail!("{line}\n  ended with {status}; its last lines:\n{}", log.tail());
        }
        Ok(stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::skip;
    use std::time::{Duration, Instant};

    #[test]
    fn background_processes_end_with_tool() {
        if !nix::unistd::geteuid().is_root() {
            return skip("namespaces need root");
        }
        // The process ID makes the command line unique.
        let marker = format!("sleep 97{}", std::process::id());
        let mut tool = Tool::new("sh").args(["-c", &format!("(setsid {marker} &); sleep 60")]);
        let mut child = tool.command.spawn().unwrap();
        let running = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
                let argv = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&argv).replace('\0', " ").starts_with(&marker)
            })
        };
        let start = Instant::now();
        while !running() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "the background process did not start"
            );
        }
        // The kernel sends the same signal when the builder ends.
        child.kill().unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        while running() {
            assert!(start.elapsed() < Duration::from_secs(20), "the background process survived");
        }
    }
}
