//! Checks the variants of all distributions: that they render, that their scripts are sound, and that what
//! differs between the releases of a family is small. `images.rs` builds images with their package managers.

mod images;
#[path = "../judge/mod.rs"]
mod judge;
mod repositories;
#[path = "../publish/server.rs"]
#[allow(dead_code, reason = "nothing is kept in a cache here")]
mod server;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The largest number of lines in which two releases of one family may differ.
const MOST_LINES: usize = 9;

fn variants() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("variants")
}

/// Returns the names of all variants.
fn names() -> Vec<String> {
    let entries = variants().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries
        .filter_map(|name| name.into_string().unwrap().strip_suffix(".jsonnet").map(str::to_owned))
        .collect();
    names.sort();
    names
}

fn render(name: &str, arch: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_builder"))
        .arg("--variants")
        .arg(variants())
        .args(["render", name, "--arch", arch])
        .output()
        .unwrap()
}

#[test]
fn renders_all_variants_for_their_architectures() {
    let names = names();
    for name in ["deb", "ubu", "ubu24", "fed", "alm", "alm9", "sus", "arc"] {
        assert!(names.iter().any(|known| known == name), "the variant {name} is missing");
    }
    for name in names {
        for arch in ["amd64", "arm64"] {
            let output = render(&name, arch);
            let error = String::from_utf8_lossy(&output.stderr);
            let refused = error.contains("is not built for");
            assert!(output.status.success() || refused, "{name} for {arch}: {error}");
            assert!(arch != "amd64" || !refused, "{name} is not built for amd64");
        }
    }
}

#[test]
fn releases_of_a_family_differ_in_few_lines() {
    for (one, other) in [("ubu", "ubu24"), ("alm", "alm9")] {
        let lines = |name: &str| -> BTreeSet<String> {
            let text = fs::read_to_string(variants().join(format!("{name}.jsonnet"))).unwrap();
            text.lines().map(str::to_owned).collect()
        };
        let (one_has, other_has) = (lines(one), lines(other));
        assert_ne!(one_has, other_has, "{one} and {other} are the same");
        for (name, only) in
            [(one, one_has.difference(&other_has)), (other, other_has.difference(&one_has))]
        {
            let count = only.count();
            assert!(count <= MOST_LINES, "{count} lines of {name} are its own");
        }
    }
}

/// Without fingerprints, any key that the source of a key offers would be trusted.
#[test]
fn variants_with_rpm_packages_pin_the_fingerprint_of_each_key() {
    for name in ["fed", "alm", "alm9", "sus"] {
        let output = render(name, "amd64");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let rendered = String::from_utf8(output.stdout).unwrap();
        let count = |call: &str| rendered.matches(call).count();
        let keys = count("\\n  add_key '");
        assert!(keys > 0, "{name} has no key");
        assert_eq!(count("\\n  check_key '"), keys, "{name}");
        for call in rendered.split("\\n  check_key '").skip(1) {
            let fingerprint = call.split('\'').nth(2).unwrap();
            let valid = fingerprint.len() == 40
                && fingerprint
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            assert!(valid, "{name}: {fingerprint:?} is no fingerprint");
        }
    }
}
