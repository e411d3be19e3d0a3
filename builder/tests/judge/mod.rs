//! Independent programs that check our output: they know a format and share no code with this project.

#![allow(dead_code, reason = "each test file uses only some of these functions")]

use std::io::Write;
use std::process::Command;

/// Runs a program that has to succeed and returns the output of both streams.
///
/// Returns nothing if the program is not installed; see [`skip`].
pub(crate) fn judge(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{program} {arguments:?} failed:\n{text}");
            Some(text)
        }
        Err(error) => {
            skip(&format!("cannot run {program}: {error}"));
            None
        }
    }
}

/// Reports that a test cannot run here. With `CI=true`, panics instead.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    // The test harness hides the output of `eprintln!` for tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
