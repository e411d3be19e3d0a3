//! Deltas of large files.

use std::fs;
use std::process::Command;

const MIB: usize = 1 << 20;

/// Making a delta takes a few times the size of the file. The memory grew with the square of the size when each
/// block had a buffer for its changes: 8 GiB for this file.
#[test]
fn delta_of_a_large_file_is_made_in_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("old"), "").unwrap();
    fs::write(path("new"), vec![b'x'; 64 * MIB]).unwrap();
    let mut builder = Command::new("prlimit");
    builder.arg(format!("--as={}", 2048 * MIB)).arg("--").arg(env!("CARGO_BIN_EXE_builder"));
    builder.args(["delta", "make"]).args(["old", "new", "delta"].map(path));
    let output = builder.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
