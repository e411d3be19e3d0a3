//! The reason in an answer that is not the expected one.

/// The number of characters of an answer that an error shows.
const SHOWN_CHARS_MAX: usize = 500;

/// Returns the reason that a listener gives in `error` or `err`, or else the body, for an error message.
pub(crate) fn reason(status: u16, body: &[u8]) -> String {
    let object: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = object.as_ref().and_then(|object| {
        ["error", "err"].into_iter().find_map(|name| object.get(name)?.as_str())
    });
    match text.filter(|text| !text.is_empty()) {
        Some(text) => shown(text.as_bytes()),
        None if status == 404 && body.is_empty() => {
            "the host has no such source, or none of its keys verifies the token".into()
        }
        None => shown(body),
    }
}

/// Returns the beginning of a text from the network, without control characters.
pub(crate) fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(SHOWN_CHARS_MAX).map(printable).collect()
}
