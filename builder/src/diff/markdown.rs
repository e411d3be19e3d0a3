//! Shows differences as Markdown, for release notes.

use super::escape::{block, code};
use super::limit::{self, ROWS_MAX, SETTINGS_MAX};
use super::outline::{self, Section};
use super::{Diff, Identity};

/// The number of rows up to which a table is shown without a click.
const OPEN_MAX: usize = 25;

/// Returns the Markdown.
pub(crate) fn render(diff: &Diff) -> String {
    let identity =
        |release: &Identity| format!("{} (build {})", code(&release.version), release.build);
    let mut text = format!(
        "# EtchaOS {} {}\n\nDifferences from {} to {}.\n",
        code(&diff.new.target),
        code(&diff.new.version),
        identity(&diff.old),
        identity(&diff.new)
    );
    if let Some(note) = outline::note(diff) {
        text += &format!("\n{note}\n");
    }
    if diff.is_empty() {
        text += "\nThere are no differences.\n";
    }
    for section in outline::sections(diff) {
        text += &format!("\n## {}\n", section.title);
        text += &section.note.map(|note| format!("\n{note}\n")).unwrap_or_default();
        text += &table(&section);
        text += &settings(&section);
    }
    text
}

fn table(section: &Section) -> String {
    if section.rows.is_empty() {
        return String::new();
    }
    let mut text = row(section.columns.iter().map(|title| (*title).to_owned()));
    text += &row(section.columns.iter().map(|_| "---".to_owned()));
    let (rows, left) = limit::first(&section.rows, ROWS_MAX);
    for cells in rows {
        let cell = |(column, cell): (usize, &String)| match (section.columns[column], &**cell) {
            (_, "") => String::new(),
            // The sign is ours, and at most "+", "-" or "~".
            ("", sign) => format!("`{sign}`"),
            (_, cell) => code(&limit::line(cell)),
        };
        text += &row(cells.iter().enumerate().map(cell));
    }
    if left > 0 {
        text += &format!("\n… and {left} more\n");
    }
    let count = section.rows.len();
    if count > OPEN_MAX {
        collapsed(&format!("{count} differences"), &text)
    } else {
        format!("\n{text}")
    }
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn settings(section: &Section) -> String {
    let (settings, left) = limit::first(&section.settings, SETTINGS_MAX);
    let mut text = String::new();
    for setting in settings {
        let path = code(&limit::line(&setting.path));
        text += &format!("\n{path} ({})\n\n", outline::presence(setting.presence));
        text += &block("diff", &limit::diff(&setting.diff));
    }
    if left > 0 {
        text += &format!("\n… and {left} more\n");
    }
    let count = section.settings.len();
    if count > OPEN_MAX { collapsed(&format!("{count} settings"), &text) } else { text }
}

/// Returns a part that is shown after a click. `summary` is ours.
fn collapsed(summary: &str, text: &str) -> String {
    format!("\n<details>\n<summary>{summary}</summary>\n\n{}\n\n</details>\n", text.trim())
}
