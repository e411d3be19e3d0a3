//! Excerpts of untrusted text for error messages.

/// Returns at most the first 32 characters of `text`, with an ellipsis if it is longer.
pub(crate) fn excerpt(text: &str) -> String {
    const LENGTH_MAX: usize = 32;
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
