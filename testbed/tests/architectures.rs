//! What the real binary says about architectures that cannot do what was requested.

use std::path::Path;
use std::process::{Command, Output};

use protocol::{Arch, PrivateKey};

/// Runs `testbed` with these arguments, in a directory of its own for everything that it writes.
fn testbed(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_testbed"))
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env("XDG_CACHE_HOME", directory)
        .output()
        .unwrap()
}

/// Runs a scenario for a release that does not exist.
fn scenario(name: &str, target: &str, more: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate().public().to_string();
    let common = [name, "--artifacts", "none", "--target", target, "--keys", &key];
    testbed(&[&common, more].concat(), directory.path())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn skips_scenarios_under_bios_for_arm64_and_says_so_once() {
    for name in ["faults", "kill", "powercut"] {
        let skipped = scenario(name, "deb_arm64", &["--firmware", "bios"]);
        assert!(skipped.status.success(), "{skipped:?}");
        assert_eq!(text(&skipped.stdout).matches("arm64 has no BIOS").count(), 1, "{skipped:?}");
        assert!(skipped.stderr.is_empty(), "{skipped:?}");

        let json = scenario(name, "deb_arm64", &["--firmware", "bios", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json["skipped"][0], "the whole scenario: arm64 has no BIOS");
        assert_eq!(json["steps"], serde_json::json!([]));
    }
    // The other scenarios are not skipped: they fail, because there is no release.
    for (target, more) in [("deb_arm64", &[][..]), ("deb_amd64", &["--firmware", "bios"])] {
        let run = scenario("faults", target, more);
        assert!(!run.status.success() && !text(&run.stdout).contains("skipped"), "{run:?}");
    }
}

#[test]
fn boots_no_disk_by_the_bios_of_arm64() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("disk.raw"), [1; 4096]).unwrap();
    let boot = ["boot", "--disk", "disk.raw", "--work", "work"];
    let bios = testbed(
        &[&boot[..], &["--arch", "arm64", "--firmware", "bios"]].concat(),
        directory.path(),
    );
    assert!(!bios.status.success() && text(&bios.stderr).contains("arm64 has no BIOS"), "{bios:?}");
    // Without a boot loader on the disk, nothing tells the architecture.
    let unknown = testbed(&boot, directory.path());
    assert!(
        !unknown.status.success() && text(&unknown.stderr).contains("use --arch"),
        "{unknown:?}"
    );
}

#[test]
fn refuses_kvm_for_a_foreign_architecture() {
    let foreign = if Arch::native() == Some(Arch::Arm64) { "deb_amd64" } else { "deb_arm64" };
    let run = scenario("run", foreign, &["--accel", "kvm"]);
    assert!(!run.status.success() && text(&run.stderr).contains("--accel tcg"), "{run:?}");
}
