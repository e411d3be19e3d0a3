//! The one way to run a program of the host.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::log_file::LogFile;

/// A program and its arguments. It dies with the builder.
#[derive(Debug)]
pub struct Tool {
    command: Command,
}

impl Tool {
    /// A program that is searched in `PATH`.
    pub fn new(program: &str) -> Self {
        // setpriv has the kernel end the program when the builder ends, even by SIGKILL.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]).stdin(Stdio::null());
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
        let line: Vec<_> = self.command.get_args().skip(3).map(OsStr::to_string_lossy).collect();
        let line = line.join(" ");
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
