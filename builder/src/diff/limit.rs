//! Limits what text and Markdown show. The JSON form has no limits.

use super::escape::plain;

/// The maximum number of rows of a table.
pub(super) const ROWS_MAX: usize = 200;
/// The maximum number of settings.
pub(super) const SETTINGS_MAX: usize = 50;
/// The maximum number of lines of a setting.
const LINES_MAX: usize = 60;
/// The maximum length of a line or of a cell in characters.
const LENGTH_MAX: usize = 300;

/// Returns the beginning of a list, and the number of items that were left out.
pub(super) fn first<T>(list: &[T], max: usize) -> (&[T], usize) {
    let shown = list.len().min(max);
    (&list[..shown], list.len() - shown)
}

/// Returns the beginning of a line.
pub(super) fn line(text: &str) -> String {
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the beginning of a unified diff with visible characters only, each line with a line end.
pub(super) fn diff(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (shown, left) = first(&lines, LINES_MAX);
    // A tab is part of many settings, and moves the cursor only forward.
    let visible = |text: &str| text.split('\t').map(plain).collect::<Vec<_>>().join("\t");
    let mut all: String = shown.iter().map(|text| visible(&line(text)) + "\n").collect();
    if left > 0 {
        all.push_str(&format!("… and {left} more lines\n"));
    }
    all
}
