//! Outside judges of what we write: programs that know a format and were not written by us.

// Not every test that includes this needs all of it.
#![allow(dead_code)]

use std::io::Write;
use std::process::Command;

/// What a program says, on both streams, or nothing where it is not installed; see [`skip`].
pub fn judge(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{program} {arguments:?} says:\n{text}");
            Some(text)
        }
        Err(error) => {
            skip(&format!("no judge: {program}: {error}"));
            None
        }
    }
}

/// Says aloud that a test cannot judge what it should; with `CI=true` that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    // Not by a macro, whose output tests that pass keep to themselves.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
