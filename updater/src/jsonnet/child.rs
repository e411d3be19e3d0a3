//! The process that renders a Pattern, and its limits.
//!
//! It is the program `etchaos-render`. As a part of the updater, the renderer would take memory during each update,
//! because the kernel maps 64 KiB of a program around each page that is used.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use protocol::pattern::PatternError;

use super::evaluate::{Limits, evaluate};
use super::input::Input;

/// The maximum size of a rendered Pattern in bytes. The largest token has 1 MiB.
pub(super) const RENDERED_MAX: usize = 4 << 20;
/// The maximum address space in MiB. The program itself takes some of it.
const MEMORY_MIB: u64 = 384;
/// The maximum processor time in seconds.
const CPU_SECONDS: u64 = 5;
/// The maximum number of open files: the three that a process starts with. So no other can be opened.
const FILES: u64 = 3;
/// The maximum size of the input in bytes: a token of 1 MiB, escaped.
const INPUT_MAX: u64 = 8 << 20;
/// The maximum size of an error in characters.
const ERROR_MAX: usize = 2000;
/// The first character of an answer that is a rendered Pattern, or an error.
const RENDERED: char = '+';
const FAILED: char = '-';

/// Why a Pattern could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// What was rendered is not a Pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The Jsonnet is wrong.
    #[error("the Pattern cannot be rendered: {0}")]
    Jsonnet(String),
    /// It used more than a Pattern may.
    #[error("rendering the Pattern was stopped: {0}")]
    Limit(String),
    /// The child process could not be run.
    #[error("cannot start the process that renders the Pattern: {0}")]
    Process(String),
}

/// Reads the input from standard input, renders it, and writes the result to standard output.
///
/// # Errors
/// Fails if the limits cannot be set, or if the input is not that of the parent.
pub fn run() -> Result<()> {
    limit().context("cannot set the limits of this process")?;
    let mut input = Vec::new();
    io::stdin().lock().take(INPUT_MAX).read_to_end(&mut input).context("cannot read the input")?;
    let input: Input = serde_json::from_slice(&input).context("cannot read the input")?;
    let answer = match evaluate(&input, Limits::default()) {
        Ok(text) if text.len() > RENDERED_MAX => {
            format!("{FAILED}the result has {} bytes, more than {RENDERED_MAX}", text.len())
        }
        Ok(text) => format!("{RENDERED}{text}"),
        Err(error) => {
            let error: String = error.chars().take(ERROR_MAX).collect();
            format!("{FAILED}{error}")
        }
    };
    io::stdout().lock().write_all(answer.as_bytes()).context("cannot write the result")
}

fn limit() -> nix::Result<()> {
    for (resource, limit) in [
        (Resource::RLIMIT_AS, MEMORY_MIB << 20),
        (Resource::RLIMIT_CPU, CPU_SECONDS),
        (Resource::RLIMIT_NOFILE, FILES),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}

/// Reads the answer of the process.
pub(super) fn parse_answer(answer: &str) -> Result<String, RenderError> {
    if let Some(error) = answer.strip_prefix(FAILED) {
        return Err(RenderError::Jsonnet(error.to_owned()));
    }
    let text = answer.strip_prefix(RENDERED).map(str::to_owned);
    text.ok_or_else(|| RenderError::Process("it gave no answer".into()))
}

/// Returns why the process ended without an answer. `stderr` is the last line that it printed.
pub(super) fn explain(status: ExitStatus, stderr: &str) -> String {
    match status.signal().map(Signal::try_from) {
        // The hard limit is the soft one, so the kernel sends SIGKILL.
        Some(Ok(Signal::SIGXCPU | Signal::SIGKILL)) => {
            format!(
                "it used more than {CPU_SECONDS} s of processor time, or the memory of the host"
            )
        }
        Some(Ok(Signal::SIGABRT | Signal::SIGSEGV | Signal::SIGBUS)) => {
            format!("it needs more than {MEMORY_MIB} MiB of memory, or is nested too deep")
        }
        _ => format!("the process ended unexpectedly ({status}): {stderr}"),
    }
}
