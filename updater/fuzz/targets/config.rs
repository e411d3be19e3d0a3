//! Configuration, as JSON and as base64 of JSON. No error message shows a value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use updater::config::{Fragment, Merged, Settings, Source};

/// The placeholder for secrets in the corpus.
const SECRET: &str = "SECRET";

fuzz_target!(|data: &[u8]| {
    check(Fragment::from_json(data), data);
    if let Ok(text) = str::from_utf8(data) {
        // The secret cannot be found in base64, so the message of such an input is not checked.
        let trimmed = text.trim();
        let json = if trimmed.starts_with('{') { trimmed } else { SECRET };
        check(Fragment::from_json_or_base64(text), json.as_bytes());
    }
});

fn check(fragment: Result<Fragment, String>, json: &[u8]) {
    match fragment {
        Err(message) => assert_no_value(&message, json),
        Ok(fragment) => {
            let mut merged = Merged::default();
            merged.add(&Source::Esp, fragment.clone());
            merged.add(&Source::Cmdline, fragment);
            let _ = (merged.to_json(), merged.rows());
            match Settings::try_from(&merged) {
                Err(error) => assert_no_value(&error.to_string(), json),
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

/// Asserts that the message shows no value; names may be shown. If the text is not JSON, names cannot be
/// told from values, but messages about syntax quote nothing.
fn assert_no_value(message: &str, json: &[u8]) {
    let is_name = serde_json::from_slice(json).is_ok_and(|value| has_name(&value))
        // `value` keeps only one of two duplicate names.
        || message.contains("duplicate field")
        // The ID of a key is its name.
        || message.contains("the key \"")
        || json == SECRET.as_bytes();
    assert!(is_name || !message.contains(SECRET), "{message}");
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
