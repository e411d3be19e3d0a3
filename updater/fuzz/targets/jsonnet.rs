//! Jsonnet of a Pattern, without the process that limits it: the syntax, imports and errors. Whatever the texts
//! are, the result is JSON or an error.
//!
//! Without the standard library and comprehensions, small texts take little time and memory, and libFuzzer reports
//! the ones that do not.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use protocol::pattern::{Filter, Pattern, PatternFiles};
use serde_json::{Value, json};
use updater::jsonnet::{Input, Limits, evaluate};

/// The number of bytes of Jsonnet that are evaluated. A text of this size cannot double another one often.
const EVALUATED_MAX: usize = 600;
/// Words with which few bytes can run forever.
const ENDLESS: [&str; 2] = ["for", "tailstrict"];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    // Names and contents of files, one after the other. The first file is the main one.
    let parts: Vec<&str> = text.split('\0').collect();
    let files: BTreeMap<String, String> = parts
        .chunks(2)
        .map(|file| (file[0].to_owned(), file.get(1).copied().unwrap_or_default().to_owned()))
        .collect();
    let pattern = PatternFiles { entrypoint: parts[0].to_owned(), files };
    if let Ok(filter) = Filter::new(text) {
        filter.selects("source > group");
    }
    if text.len() > EVALUATED_MAX || ENDLESS.iter().any(|word| text.contains(word)) {
        return;
    }
    let input = Input { pattern, config: json!({}), env: BTreeMap::new() };
    match evaluate(&input, Limits { stack: 30, with_std: false }) {
        Ok(json) => {
            let value: Value = serde_json::from_str(&json).expect("the result is JSON");
            let _ = Pattern::from_value(&value);
        }
        Err(error) => assert!(!error.is_empty()),
    }
});
