//! Texts from outside, in a form that fits in an error.

/// The maximum length, in characters.
const LENGTH_MAX: usize = 200;

/// Returns a text without control characters, shortened if it is long.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(LENGTH_MAX) {
        if matches!(character, '"' | '\'') {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    if text.chars().nth(LENGTH_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns a text as [`printable`] does, in quotes.
pub(super) fn excerpt(text: &str) -> String {
    format!("\"{}\"", printable(text))
}
