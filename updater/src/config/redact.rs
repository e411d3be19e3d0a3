//! Error messages for JSON that do not contain its values: a value may be a misplaced secret.

/// What is shown in place of a PEM text, which may be a private key.
pub(super) const REDACTED_PEM: &str = "(PEM)";
/// The number of characters of a member's name that a message shows.
const NAME_MAX: usize = 32;
/// The number of levels of a path that a message shows: more than a valid configuration has.
const DEPTH_MAX: usize = 8;

/// Returns a message with the key, line and column of the error, and what was expected there.
///
/// serde's own message quotes the value that it found. This function keeps only the parts that come
/// from our own types, and the name of an unknown member.
pub(super) fn describe_error(json: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let is_syntax = error.classify() != serde_json::error::Category::Data;
    if is_syntax || text.starts_with("nested deeper than ") {
        // The message has line and column, and quotes nothing. Text that is not JSON has no path.
        return text;
    }
    let (line, column) = (error.line(), error.column());
    let at = match path(json, line, column) {
        path if path.is_empty() => format!("at line {line} column {column}"),
        path => format!("in \"{path}\" at line {line} column {column}"),
    };
    let place = format!(" at line {line} column {column}");
    let text = text.strip_suffix(&place).unwrap_or(&text);
    // Splits at the last occurrence, because a quoted value may contain the separator. The text after
    // it comes from our types.
    let (found, expected) = match text.rsplit_once(", expected ") {
        // serde calls a JSON list a sequence.
        Some((found, "a sequence")) => (found, ", expected a list, such as [\"…\"]".to_owned()),
        Some((found, expected)) => (found, format!(", expected {expected}")),
        None => (text, String::new()),
    };
    let what = match found.split_once(" field `") {
        Some((kind @ ("unknown" | "missing" | "duplicate"), name)) => {
            format!("{kind} field `{}`", shorten(name.strip_suffix('`').unwrap_or(name)))
        }
        _ => "invalid value".to_owned(),
    };
    format!("{what}{expected}, {at}")
}

/// Returns a name shortened and escaped, so that it fits on one line.
pub(super) fn shorten(name: &str) -> String {
    let start: String = name.chars().take(NAME_MAX).collect();
    let dots = if start.len() < name.len() { "…" } else { "" };
    format!("{}{dots}", start.escape_debug())
}

/// Returns the keys that lead to a position, separated by dots. Lines and columns are counted from 1,
/// columns in bytes, as in serde_json.
fn path(json: &[u8], line: usize, column: usize) -> String {
    let before: usize =
        json.split_inclusive(|b| *b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let json = &json[..json.len().min(before + column)];
    // For every open object or list, the key that was read last.
    let mut open: Vec<Option<String>> = Vec::new();
    let mut at = 0;
    let mut text = None;
    while let Some(byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let start = at;
                while json.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
                text = Some(String::from_utf8_lossy(&json[start..at.min(json.len())]).into_owned());
                at += 1;
            }
            b':' => {
                if let Some(key) = open.last_mut() {
                    *key = text.take();
                }
            }
            b'{' | b'[' => open.push(None),
            b'}' | b']' => _ = open.pop(),
            _ => {}
        }
    }
    let keys = open.iter().flatten().take(DEPTH_MAX).map(|key| shorten(key));
    keys.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fragment::Fragment;

    fn error_for(json: &str) -> String {
        let error = Fragment::from_json(json.as_bytes()).unwrap_err();
        assert!(!error.contains("SECRET"), "{error}");
        error
    }

    #[test]
    fn shows_keys_and_no_values() {
        for (json, key, expected) in [
            (r#"{"keys":{"ed25519private:SECRET:x":1}}"#, "\"keys\"", "a list of strings"),
            (r#"{"keys":["x", {"SECRET": 1}]}"#, "\"keys\"", "a string"),
            (r#"{"ca":"SECRET, expected "}"#, "\"ca\"", "a list, such as [\"…\"]"),
            (r#"{"cdn":"x","reboot":"SECRET"}"#, "\"reboot\"", "`idle`, `never` or an object"),
            (r#"{"reboot":"SECRET`, expected x"}"#, "\"reboot\"", "`idle`, `never` or an object"),
            (r#"{"reboot":["SECRET"]}"#, "\"reboot\"", "`idle`, `never` or an object"),
            (r#"{"reboot":{"window":["SECRET"]}}"#, "\"reboot.window\"", "a string"),
            (r#"{"reboot":{"window":"SECRET"}}"#, "\"reboot\"", "`duration`"),
            (r#"{"cdn":["x",{"SECRET":1}]}"#, "\"cdn\"", "a string"),
            (r#"{"cdn":{"SECRET":1}}"#, "\"cdn\"", "a list of strings"),
            (r#"{"rateLimit":["SECRET"]}"#, "\"rateLimit\"", "a whole number or a string"),
            (r#"{"rateLimit":-1.5}"#, "\"rateLimit\"", "a whole number or a string"),
            (r#"{"health":{"checks":"SECRET"}}"#, "\"health.checks\"", "a list, such as"),
            (
                r#"{"health":{"deadline":{"SECRET":1}}}"#,
                "\"health.deadline\"",
                "a whole number or a string",
            ),
            (r#"{"variant":["SECRET"]}"#, "\"variant\"", "a string"),
            (r#"{"listen":"SECRET"}"#, "\"listen\"", "an object"),
            (r#"{"listen":{"sources":"SECRET"}}"#, "\"listen.sources\"", "a map"),
            (r#"{"listen":{"sources":{"ci":"SECRET"}}}"#, "\"listen.sources.ci\"", "an object"),
            (
                r#"{"listen":{"sources":{"ci":{"keys":{"SECRET":1}}}}}"#,
                "sources.ci.keys\"",
                "a list",
            ),
            (r#"{"listen":{"sources":{"ci":{}}}}"#, "\"listen.sources.ci\"", "`keys`"),
            (r#""SECRET""#, "at line 1 column", "an object"),
        ] {
            let error = error_for(json);
            assert!(error.contains(key) && error.contains(expected), "{json}: {error}");
        }
        // The parser fails before the text is known to be JSON, so the message has no path.
        let error = error_for(&format!(r#"{{"cdn":[{{"SECRET":{}"#, "[".repeat(40)));
        assert!(error.contains("nested deeper than 32 levels at line 1"), "{error}");
        let error = error_for("{\n  \"cdn\": \"a\",\n  \"ca\": \"SECRET\"\n}");
        assert!(error.contains("in \"ca\" at line 3 column"), "{error}");
    }

    proptest! {
        #[test]
        fn path_does_not_panic_on_any_position(json in "[\\[\\]{}\":,a\\\\é\n]{0,40}", line in 0usize..4, column in 0usize..50) {
            super::path(json.as_bytes(), line, column);
        }
    }

    #[test]
    fn shortens_unknown_names() {
        let error = error_for(&format!(r#"{{"{}SECRET": 1}}"#, "x".repeat(32)));
        assert!(
            error.contains(&format!("unknown field `{}…`, expected", "x".repeat(32))),
            "{error}"
        );
        let error = error_for(r#"{"cdn": "a", "cdn": "b"}"#);
        assert!(error.contains("duplicate field `cdn`"), "{error}");
        let error =
            error_for(&format!(r#"{{"listen":{{"sources":{{"{}SECRET":1}}}}}}"#, "x".repeat(32)));
        assert!(error.contains("listen.sources.xxx"), "{error}");
    }
}
