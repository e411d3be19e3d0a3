//! Outside judges of what we write: programs that know a format and were not written by us.

use std::process::Command;

/// What a program says, on both streams, or nothing where it is not installed, which is said aloud;
/// with `CI=true` an absent judge is a failure.
pub fn judge(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{program} {arguments:?} says:\n{text}");
            Some(text)
        }
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no judge: {program}: {error}");
            eprintln!(
                "SKIPPED: {program} cannot be started ({error}); it would have judged {arguments:?}"
            );
            None
        }
    }
}
