//! Standard output, which no other module writes to.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cli::Global;

/// Prints the result of a command that only reads, as JSON or as text. Fails if it cannot be written.
pub(super) fn print(global: &Global, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
    let line = if global.json { json.to_string() } else { text() };
    write_line(&mut io::stdout().lock(), &line).context("cannot write to standard output")
}

/// Prints the result of a command that changed something. A failed write is only logged, because the
/// change was made.
pub(super) fn print_or_warn(global: &Global, json: &Value, text: impl FnOnce() -> String) {
    if let Err(error) = print(global, json, text) {
        log::warn!("{error:#}");
    }
}

fn write_line(to: &mut impl Write, line: &str) -> io::Result<()> {
    match writeln!(to, "{line}").and_then(|()| to.flush()) {
        // A reader such as `head -1` may close the pipe early.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
