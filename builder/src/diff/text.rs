//! Shows differences as text, for a terminal.

use std::fmt::Write;

use super::escape::plain;
use super::limit::{self, ROWS_MAX, SETTINGS_MAX};
use super::outline::{self, Section};
use super::{Diff, Identity};

/// The maximum width that a column is padded to.
const WIDTH_MAX: usize = 60;

/// Returns the text.
pub(crate) fn render(diff: &Diff) -> String {
    let identity = |release: &Identity| {
        plain(&format!("{} {}, build {}", release.target, release.version, release.build))
    };
    let mut text = format!("old: {}\nnew: {}\n", identity(&diff.old), identity(&diff.new));
    if let Some(note) = outline::note(diff) {
        text += &format!("\n{note}\n");
    }
    if diff.is_empty() {
        text += "\nno differences\n";
    }
    for section in outline::sections(diff) {
        text += &format!("\n{}\n", heading(&section));
        text += &section.note.map(|note| format!("  {note}\n")).unwrap_or_default();
        text += &table(&section);
        text += &settings(&section);
    }
    text
}

fn heading(section: &Section) -> String {
    let count = section.rows.len() + section.settings.len();
    format!("{} ({count})", section.title)
}

fn table(section: &Section) -> String {
    let (rows, left) = limit::first(&section.rows, ROWS_MAX);
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(&limit::line(cell))).collect()).collect();
    let titles: Vec<String> = section.columns.iter().map(|title| (*title).to_owned()).collect();
    let all = || (!rows.is_empty()).then_some(&titles).into_iter().chain(&rows);
    let width = |column: usize| {
        let cells = all().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).filter(|width| *width <= WIDTH_MAX).max()
    };
    let widths: Vec<usize> =
        (0..section.columns.len()).map(|column| width(column).unwrap_or(WIDTH_MAX)).collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "  {cell:<width$}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    if left > 0 {
        text += &format!("  … and {left} more\n");
    }
    text
}

fn settings(section: &Section) -> String {
    let (settings, left) = limit::first(&section.settings, SETTINGS_MAX);
    let mut text = String::new();
    for setting in settings {
        let path = plain(&limit::line(&setting.path));
        text += &format!("  {} {path}\n", outline::presence(setting.presence));
        for line in limit::diff(&setting.diff).lines() {
            text += &format!("    {line}\n");
        }
    }
    if left > 0 {
        text += &format!("  … and {left} more\n");
    }
    text
}
