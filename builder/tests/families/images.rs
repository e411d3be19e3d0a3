//! Builds images with the real package managers of the distributions, and boots one.

use std::fs;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::judge::skip;
use crate::repositories::Repositories;

/// The variants of `families.libsonnet`, and the stage in which each refuses packages of another key: only
/// zypper verifies the indexes, which are fetched first.
const FAMILIES: [(&str, &str); 3] =
    [("tdnf", "bootstrap"), ("tzypper", "init"), ("tpacman", "bootstrap")];

/// Makes repositories, and builds an image with each package manager. Boots and updates the one that dnf made.
/// Needs root and Debian's archive.
#[test]
#[ignore = "builds and boots images; .ci/nightly runs it"]
fn package_managers_make_images_of_signed_packages() {
    if !nix::unistd::geteuid().is_root() {
        return skip("a build needs root");
    }
    let repositories = timed("make the repositories", Repositories::make);
    for (name, stage) in FAMILIES {
        timed(&format!("{name}: refuse other keys"), || refuses(&repositories, name, stage));
        timed(&format!("{name}: check"), || checks(&repositories, name));
        timed(&format!("{name}: build"), || builds(&repositories, name));
    }
    timed("tdnf: boot and update", || {
        repositories.builder(&["test", "tdnf", "--arch", "amd64"]);
    });
    let record = fs::read_to_string(repositories.out("tdnf_amd64/tested.json")).unwrap();
    eprintln!("{record}");
}

/// Runs a step and prints its duration.
fn timed<T>(what: &str, step: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = step();
    eprintln!("{what}: {} s", started.elapsed().as_secs());
    result
}

fn build(name: &str) -> [&str; 6] {
    ["build", name, "--arch", "amd64", "--engine", "namespace"]
}

/// Checks that an image is built, and that its manifest has the packages.
fn builds(repositories: &Repositories, name: &str) {
    repositories.write_variant(name, "key", "key");
    repositories.builder(&build(name));
    let token =
        fs::read_to_string(repositories.out(&format!("{name}_amd64/etchaos_{name}_amd64.jwt")));
    let claims = URL_SAFE_NO_PAD.decode(token.unwrap().split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let packages = claims["etchaosRelease"]["packages"].as_array().unwrap();
    assert!(packages.len() > 80, "{name} has only {} packages", packages.len());
    // initramfs-tools is a dependency of the kernel, and purged.
    for (package, expected) in [("docker.io", true), ("systemd", true), ("initramfs-tools", false)]
    {
        let found = packages.iter().any(|found| found["name"] == package);
        assert_eq!(found, expected, "{name}: {package}");
    }
}

/// Checks that "builder check" resolves the packages that a build installs, and names one that does not exist.
fn checks(repositories: &Repositories, name: &str) {
    repositories.write_variant(name, "key", "key");
    let check = ["check", name, "--arch", "amd64", "--engine", "namespace", "--json"];
    let rows: Value = serde_json::from_slice(&repositories.builder(&check).stdout).unwrap();
    let packages = rows[0]["packages"].as_array().unwrap();
    for package in ["docker.io", "libc6", "initramfs-tools"] {
        let found = packages.iter().find(|found| found["name"] == package);
        let found = found.unwrap_or_else(|| panic!("{name}: no {package} in {rows}"));
        assert!(found["version"].as_str().unwrap().contains('-'), "{name}: {found}");
        assert_eq!(found["arch"] == "x86_64", package != "initramfs-tools", "{name}: {found}");
    }
    let drop_in = format!("{name}.d/misspelled.jsonnet");
    repositories.write_own(&drop_in, "{ packages: ['iptabels', 'awk'] }\n");
    let error = repositories.builder_fails(&check);
    let expected = format!(
        "the sources have no package \"iptabels\" (did you mean \"iptables\"?), which own/{drop_in} names"
    );
    assert!(error.contains(&expected), "{name}: {error}");
    // mawk provides awk.
    assert!(!error.contains("\"awk\""), "{name}: {error}");
    fs::remove_file(repositories.own(&drop_in)).unwrap();
}

/// Checks that no image is built from packages that another key signed, or if the key is not the expected one.
fn refuses(repositories: &Repositories, name: &str, stage: &str) {
    repositories.write_variant(name, "other", "other");
    let error = repositories.builder_fails(&build(name));
    assert!(error.contains(&format!("stage {stage} failed")), "{name}: {error}");
    eprintln!("{error}");
    if name != "tpacman" {
        repositories.write_variant(name, "other", "key");
        let error = repositories.builder_fails(&build(name));
        assert!(error.contains("the key test has the fingerprint"), "{name}: {error}");
    }
}
