//! The command `builder diff`.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use protocol::KeyRing;

use super::load::load;
use super::{Diff, escape, markdown, text};

/// The form of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal.
    #[default]
    Text,
    /// For programs; has no limits.
    Json,
    /// For release notes.
    Markdown,
}

/// Prints the differences between two releases.
///
/// `old` and `new` are manifests, or directories with one manifest each: paths or URLs.
pub(crate) fn diff(
    old: &str,
    new: &str,
    keys: &KeyRing,
    format: Format,
    out: &mut impl Write,
) -> Result<()> {
    let diff = Diff::between(&load(old, keys)?, &load(new, keys)?);
    out.write_all(diff.render(format)?.as_bytes())?;
    Ok(())
}

impl Diff {
    /// Returns the differences in this form, with a line end.
    pub(crate) fn render(&self, format: Format) -> Result<String> {
        Ok(match format {
            Format::Text => text::render(self),
            Format::Json => escape::json(&serde_json::to_string_pretty(self)?) + "\n",
            Format::Markdown => markdown::render(self),
        })
    }
}
