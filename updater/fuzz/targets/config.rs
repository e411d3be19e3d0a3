//! Configuration, as JSON and as an argument on the kernel command line. No error shows a value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use updater::config::{Fragment, Merged, Settings, Source};

/// The text that represents a secret in the corpus.
const SECRET: &str = "SECRET";

fuzz_target!(|data: &[u8]| {
    check(Fragment::from_json(data), data);
    if let Ok(Ok(json)) = str::from_utf8(data).map(Fragment::json_of) {
        check(Fragment::from_json(&json), &json);
    }
});

fn check(fragment: Result<Fragment, String>, json: &[u8]) {
    match fragment {
        Err(error) => assert_shows_no_value(&error, json),
        Ok(fragment) => {
            let mut merged = Merged::default();
            merged.add(&Source::Esp, fragment.clone());
            merged.add(&Source::Cmdline, fragment);
            let _ = (merged.to_json(), merged.rows());
            match Settings::try_from(&merged) {
                Err(error) => assert_shows_no_value(&error.to_string(), json),
                Ok(settings) => {
                    for cdn in settings.cdn {
                        assert!(
                            !cdn.contains('@')
                                || cdn.starts_with('/')
                                || has_at_sign_in_path_only(&cdn)
                        );
                    }
                    assert!(settings.listen.is_none_or(|listen| !listen.sources.is_empty()));
                }
            }
        }
    }
}

fn has_at_sign_in_path_only(url: &str) -> bool {
    url.splitn(4, '/').nth(2).is_some_and(|host| !host.contains('@'))
}

/// Asserts that an error shows no value. Errors may show names, but errors about syntax quote nothing.
fn assert_shows_no_value(error: &str, json: &[u8]) {
    let is_name = serde_json::from_slice(json).is_ok_and(|value| has_name(&value))
        // The parsed value does not contain both members of a duplicate name.
        || error.contains("duplicate field")
        // Errors show the id of a key, which is not secret.
        || error.contains("the key \"")
        // serde_json reads neither UTF-16 nor a byte order mark, so the names are not known.
        || json.contains(&0)
        || json.starts_with(b"\xef\xbb\xbf");
    assert!(is_name || !error.contains(SECRET), "{error}");
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
