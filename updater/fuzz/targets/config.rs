//! Configuration, as JSON and as a word on a command line. No complaint shows a value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use updater::config::{Fragment, Merged, Settings, Source};

/// What stands for a secret in the corpus.
const SECRET: &str = "SECRET";

fuzz_target!(|data: &[u8]| {
    check(Fragment::from_json(data), data);
    if let Ok(word) = str::from_utf8(data) {
        // In base64 the secret is not to be seen in the input, so nothing is asked of the complaint.
        let trimmed = word.trim();
        let json = if trimmed.starts_with('{') { trimmed } else { SECRET };
        check(Fragment::from_word(word), json.as_bytes());
    }
});

fn check(fragment: Result<Fragment, String>, json: &[u8]) {
    match fragment {
        Err(complaint) => no_value(&complaint, json),
        Ok(fragment) => {
            let mut merged = Merged::default();
            merged.add(&Source::Esp, fragment.clone());
            merged.add(&Source::Cmdline, fragment);
            let _ = (merged.to_json(), merged.rows());
            match Settings::try_from(&merged) {
                Err(error) => no_value(&error.to_string(), json),
                Ok(settings) => {
                    for cdn in settings.cdn {
                        assert!(!cdn.contains('@') || cdn.starts_with('/') || at_is_in_path(&cdn));
                    }
                    assert!(settings.listen.is_none_or(|listen| !listen.sources.is_empty()));
                }
            }
        }
    }
}

fn at_is_in_path(url: &str) -> bool {
    url.splitn(4, '/').nth(2).is_some_and(|host| !host.contains('@'))
}

/// Names are shown, values are not. Where the text is no JSON, what is a name is not known, and
/// complaints about syntax quote nothing.
fn no_value(complaint: &str, json: &[u8]) {
    let is_name = serde_json::from_slice(json).is_ok_and(|value| has_name(&value))
        // Of names that are there twice the value above has one.
        || complaint.contains("duplicate field")
        // The id of a key is its name.
        || complaint.contains("the key \"")
        || json == SECRET.as_bytes();
    assert!(is_name || !complaint.contains(SECRET), "{complaint}");
}

fn has_name(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.iter().any(|(name, value)| name.contains(SECRET) || has_name(value))
        }
        Value::Array(list) => list.iter().any(has_name),
        _ => false,
    }
}
