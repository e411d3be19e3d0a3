//! The interface to the program that runs scripts.

use std::collections::BTreeMap;

use super::exec::Exec;

/// A script of a Command, and how to run it.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// The id of the Command, for display.
    pub id: &'a str,
    /// The script.
    pub script: &'a str,
    /// The program that runs it. Its environment variables are part of `env`.
    pub exec: &'a Exec,
    /// Its standard input; nothing if it is absent.
    pub stdin: Option<&'a str>,
    /// Environment variables, in addition to those that the shell gives to every script.
    pub env: &'a BTreeMap<String, String>,
}

/// The result of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 0 means success.
    pub code: i32,
    /// Standard output and standard error.
    pub text: String,
}

/// A stream of the program that runs a Pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Runs the scripts of Commands.
pub trait Shell {
    /// Why a script could not be run.
    type Error;

    /// Runs a script and waits for it to exit.
    ///
    /// # Errors
    /// Fails if the script could not be run. A script that exits with a non-zero code is not an error.
    fn run(&mut self, invocation: &Invocation<'_>) -> Result<Output, Self::Error>;

    /// Prints the output of a Command that asks for it with the event `etcha:stdout` or `etcha:stderr`.
    fn print(&mut self, id: &str, stream: Stream, output: &str);
}
