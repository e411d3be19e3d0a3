//! What is wrong with a JSON text, without a value of it: a value may be a secret in the wrong place.

/// As much of a member's name as is shown.
const NAME_MAX: usize = 32;
/// As many levels as the configuration has, and some more.
const DEPTH_MAX: usize = 8;

/// Says which key at which line and column is wrong, and what was expected there.
///
/// serde's own text quotes what it found. Of that text nothing is taken but what comes from our own
/// types, and the name of a member that is not known.
pub(super) fn complaint(json: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let is_syntax = error.classify() != serde_json::error::Category::Data;
    if is_syntax || text.starts_with("nested deeper than ") {
        // It has line and column, and quotes nothing. What is before that place may be no JSON.
        return text;
    }
    let (line, column) = (error.line(), error.column());
    let at = match path(json, line, column) {
        path if path.is_empty() => format!("at line {line} column {column}"),
        path => format!("in \"{path}\" at line {line} column {column}"),
    };
    let place = format!(" at line {line} column {column}");
    let text = text.strip_suffix(&place).unwrap_or(&text);
    // The last one: what is quoted before it may hold these words, what comes after is ours.
    let (found, expected) = match text.rsplit_once(", expected ") {
        // Who writes JSON knows this by another name.
        Some((found, "a sequence")) => (found, ", expected a list, such as [\"…\"]".to_owned()),
        Some((found, expected)) => (found, format!(", expected {expected}")),
        None => (text, String::new()),
    };
    let what = match found.split_once(" field `") {
        Some((kind @ ("unknown" | "missing" | "duplicate"), name)) => {
            format!("{kind} field `{}`", shown(name.strip_suffix('`').unwrap_or(name)))
        }
        _ => "a value of another kind".to_owned(),
    };
    format!("{what}{expected}, {at}")
}

/// A name, shortened, on one line.
pub(super) fn shown(name: &str) -> String {
    let start: String = name.chars().take(NAME_MAX).collect();
    let dots = if start.len() < name.len() { "…" } else { "" };
    format!("{}{dots}", start.escape_debug())
}

/// The keys that lead to a place, with dots between. Lines and columns are counted from 1, columns
/// in bytes, as serde_json does.
fn path(json: &[u8], line: usize, column: usize) -> String {
    let before: usize =
        json.split_inclusive(|b| *b == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let json = &json[..json.len().min(before + column)];
    // For every object or list that is open: the key that was read last.
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
    let keys = open.iter().flatten().take(DEPTH_MAX).map(|key| shown(key));
    keys.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Fragment;

    fn complaint(json: &str) -> String {
        let error = Fragment::from_json(json.as_bytes()).unwrap_err();
        assert!(!error.contains("SECRET"), "{error}");
        error
    }

    #[test]
    fn values_are_not_shown_and_their_keys_are() {
        for (json, key, expected) in [
            (r#"{"keys":"ed25519private:SECRET:x"}"#, "\"keys\"", "a list, such as [\"…\"]"),
            (r#"{"keys":["x", {"SECRET": 1}]}"#, "\"keys\"", "a string"),
            (r#"{"keys":"SECRET, expected "}"#, "\"keys\"", "a list, such as [\"…\"]"),
            (r#"{"cdn":"x","reboot":"SECRET"}"#, "\"reboot\"", "`idle`, `never` or an object"),
            (r#"{"reboot":"SECRET`, expected x"}"#, "\"reboot\"", "`idle`, `never` or an object"),
            (r#"{"reboot":["SECRET"]}"#, "\"reboot\"", "`idle`, `never` or an object"),
            (r#"{"reboot":{"window":["SECRET"]}}"#, "\"reboot.window\"", "a string"),
            (r#"{"reboot":{"window":"SECRET"}}"#, "\"reboot\"", "`duration`"),
            (r#"{"cdn":["x",{"SECRET":1}]}"#, "\"cdn\"", "a string"),
            (r#"{"cdn":{"SECRET":1}}"#, "\"cdn\"", "a list of strings"),
            (r#"{"rateLimit":["SECRET"]}"#, "\"rateLimit\"", "a whole number or a text"),
            (r#"{"rateLimit":-1.5}"#, "\"rateLimit\"", "a whole number or a text"),
            (r#"{"health":{"checks":"SECRET"}}"#, "\"health.checks\"", "a list, such as"),
            (r#"{"health":{"deadline":{"SECRET":1}}}"#, "\"health.deadline\"", "a text"),
            (r#"{"variant":["SECRET"]}"#, "\"variant\"", "a string"),
            (r#"{"listen":"SECRET"}"#, "\"listen\"", "an object"),
            (r#"{"listen":{"sources":"SECRET"}}"#, "\"listen.sources\"", "a map"),
            (r#"{"listen":{"sources":{"ci":"SECRET"}}}"#, "\"listen.sources.ci\"", "an object"),
            (r#"{"listen":{"sources":{"ci":{"keys":"SECRET"}}}}"#, "sources.ci.keys\"", "a list"),
            (r#"{"listen":{"sources":{"ci":{}}}}"#, "\"listen.sources.ci\"", "`keys`"),
            (r#""SECRET""#, "at line 1 column", "an object"),
        ] {
            let error = complaint(json);
            assert!(error.contains(key) && error.contains(expected), "{json}: {error}");
        }
        // Found before the text is known to be whole, so what is a name is not known.
        let error = complaint(&format!(r#"{{"cdn":[{{"SECRET":{}"#, "[".repeat(40)));
        assert!(error.contains("nested deeper than 32 levels at line 1"), "{error}");
        let error = complaint("{\n  \"cdn\": \"a\",\n  \"keys\": \"SECRET\"\n}");
        assert!(error.contains("in \"keys\" at line 3 column"), "{error}");
    }

    proptest! {
        #[test]
        fn no_place_in_no_text_panics(json in "[\\[\\]{}\":,a\\\\é\n]{0,40}", line in 0usize..4, column in 0usize..50) {
            super::path(json.as_bytes(), line, column);
        }
    }

    #[test]
    fn unknown_names_are_shown_shortened() {
        let error = complaint(&format!(r#"{{"{}SECRET": 1}}"#, "x".repeat(32)));
        assert!(
            error.contains(&format!("unknown field `{}…`, expected", "x".repeat(32))),
            "{error}"
        );
        let error = complaint(r#"{"cdn": "a", "cdn": "b"}"#);
        assert!(error.contains("duplicate field `cdn`"), "{error}");
        let error =
            complaint(&format!(r#"{{"listen":{{"sources":{{"{}SECRET":1}}}}}}"#, "x".repeat(32)));
        assert!(error.contains("listen.sources.xxx"), "{error}");
    }
}
