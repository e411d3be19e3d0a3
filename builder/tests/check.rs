//! Checks variants against Debian's real archive. `families/images.rs` checks the other package managers.

mod judge;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use judge::skip;

/// The longest time that a check of sources that do not answer may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Returns a directory for a check, unless this test cannot run here.
fn directory() -> Option<TempDir> {
    if !nix::unistd::geteuid().is_root() {
        skip("a check needs root");
        return None;
    }
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("out");
    fs::create_dir_all(&out).unwrap();
    let directory = tempfile::tempdir_in(out).unwrap();
    fs::create_dir(directory.path().join("own")).unwrap();
    Some(directory)
}

fn check(directory: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_builder"))
        .current_dir(directory.path())
        .args(["check", "--variants", "own", "--engine", "namespace"])
        .args(arguments)
        .output()
        .unwrap()
}

/// Returns the messages of a check, which has to fail.
fn error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// Needs root and Debian's archive.
#[test]
#[ignore = "needs Debian's archive; .ci/nightly runs it"]
fn resolves_the_packages_of_every_debian_target() {
    let Some(directory) = directory() else { return };
    let output =
        check(&directory, &["deb", "deb12", "debmetal", "--arch", "amd64,arm64", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let targets: Vec<&str> = rows.iter().map(|row| row["target"].as_str().unwrap()).collect();
    assert_eq!(
        targets,
        [
            "deb_amd64",
            "deb_arm64",
            "deb12_amd64",
            "deb12_arm64",
            "debmetal_amd64",
            "debmetal_arm64"
        ]
    );
    for row in rows {
        let packages = row["packages"].as_array().unwrap();
        let arch = row["target"].as_str().unwrap().rsplit('_').next().unwrap();
        let has = |name: &str| packages.iter().any(|package| package["name"] == name);
        assert!(has("docker.io") && has("shim-signed") && has("dpkg"), "{row}");
        assert_eq!(has("grub-pc-bin"), arch == "amd64", "{row}");
        assert!(
            packages.iter().all(|package| package["arch"] == arch || package["arch"] == "all"),
            "{row}"
        );
    }
}

/// Needs root and Debian's archive.
#[test]
#[ignore = "needs Debian's archive; .ci/nightly runs it"]
fn names_packages_and_sources_that_are_missing() {
    let Some(directory) = directory() else { return };
    let own = |path: &str| directory.path().join("own").join(path);
    fs::create_dir(own("deb.d")).unwrap();
    fs::write(own("deb.d/tools.jsonnet"), "{ packages: ['tcpdmp'] }\n").unwrap();
    let text = error(&check(&directory, &["deb", "--arch", "amd64"]));
    let expected = "the sources have no package \"tcpdmp\" (did you mean \"tcpdump\"?), which \
                    own/deb.d/tools.jsonnet names";
    assert!(text.contains(expected) && text.contains("deb_amd64"), "{text}");

    // Nothing listens on the port of the first; the second never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/debian", listener.local_addr().unwrap());
    for (mirror, expected) in [
        ("http://127.0.0.1:9/debian", "Could not connect to 127.0.0.1:9"),
        (silent.as_str(), "deb12_amd64: the check took longer than 30 s"),
    ] {
        let started = Instant::now();
        let arguments = ["deb12", "--arch", "amd64", "--mirror", mirror, "--timeout", "30s"];
        let text = error(&check(&directory, &arguments));
        assert!(text.contains(expected), "{text}");
        assert!(started.elapsed() < LIMIT, "{mirror}: {:?}", started.elapsed());
    }
}
