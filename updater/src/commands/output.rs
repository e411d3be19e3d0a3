//! The one place that writes to standard output.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cli::Global;

/// Prints the answer: JSON, or text for people. For commands that do nothing else: an answer that
/// nobody got is an error.
pub(super) fn answer(global: &Global, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
    let line = if global.json { json.to_string() } else { text() };
    print(&mut io::stdout().lock(), &line).context("cannot write the answer to standard output")
}

/// The same for commands that did something: it is done, whether anybody is told or not.
pub(super) fn tell(global: &Global, json: &Value, text: impl FnOnce() -> String) {
    if let Err(error) = answer(global, json, text) {
        log::warn!("{error:#}");
    }
}

fn print(to: &mut impl Write, line: &str) -> io::Result<()> {
    match writeln!(to, "{line}").and_then(|()| to.flush()) {
        // `… | head -1` had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
