//! The one way to run a program of the host.

use std::ffi::{OsStr, OsString};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::log_file::LogFile;

/// Has the kernel end a program, all that it started and all that it mounted when the builder ends,
/// even by SIGKILL: `setpriv` ties `unshare` to the builder, `unshare` ties the first process of a PID
/// namespace to itself, and a namespace dies with its first process.
const TIED_TO_US: [&str; 9] = [
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
pub struct Tool {
    command: Command,
}

impl Tool {
    /// A program that is searched in `PATH`.
    pub fn new(program: &str) -> Self {
        let mut command = Command::new(TIED_TO_US[0]);
        command.args(&TIED_TO_US[1..]).args(["--", program]).stdin(Stdio::null());
        Self { command }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs it and returns its standard output. A failure carries the command line and the end of
    /// what it printed.
    pub fn run(mut self, log: &mut LogFile) -> Result<String> {
        let words: Vec<OsString> =
            self.command.get_args().skip(TIED_TO_US.len()).map(OsStr::to_owned).collect();
        let line = words.join(OsStr::new(" "));
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
    fn what_a_tool_started_in_the_background_dies_with_it() {
        if !nix::unistd::geteuid().is_root() {
            return skip("namespaces need root");
        }
        // A marker that no other process has on its command line.
        let marker = format!("sleep 97{}", std::process::id());
        let mut tool = Tool::new("sh").args(["-c", &format!("(setsid {marker} &); sleep 60")]);
        let mut child = tool.command.spawn().unwrap();
        let running = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
                let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&words).replace('\0', " ").starts_with(&marker)
            })
        };
        let start = Instant::now();
        while !running() {
            assert!(start.elapsed() < Duration::from_secs(20), "it did not start");
        }
        // What the kernel does when the builder ends.
        child.kill().unwrap();
        child.wait().unwrap();
        let start = Instant::now();
        while running() {
            assert!(start.elapsed() < Duration::from_secs(20), "it survived");
        }
    }
}
