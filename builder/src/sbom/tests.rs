//! Checks documents with the validator of the SPDX project and with an independent parser of purls.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use protocol::{Artifact, Release, Role, release};
use serde_json::Value;

use super::*;
use crate::judge::skip;

const TREE: &str = "updater v0.2.0 (/src/updater)|Apache-2.0\nbase v1.0.0+x|MIT/Apache-2.0\n";
const LOCK: &str = r#"
version = 4
[[package]]
name = "base"
version = "1.0.0+x"
source = "registry+https://registry.example/index"
checksum = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"
[[package]]
name = "updater"
version = "0.2.0"
"#;
const PACKAGES: &str = "libc6 2.41-12+b1 amd64 glibc 2.41-12\nlibstdc++6 14.2.0-19 amd64 gcc-14\n\
                        bsdutils 1:2.41-5 amd64 util-linux 2.41-5\nsed 4.9~rc1-2 amd64\n";

fn release() -> Release {
    let artifact = |role: Role| Artifact {
        role,
        name: format!("file.{role}"),
        size: 1,
        sha256: "ab".repeat(32),
        url: format!("file.{role}"),
        deltas: Vec::new(),
    };
    Release {
        schema: release::SCHEMA,
        variant: "deb".parse().unwrap(),
        arch: protocol::Arch::Amd64,
        version: "13.20261120-0123abcd".into(),
        build: 7,
        epoch: 1_763_600_000,
        kernel: "6.12.1".into(),
        recipe: "ef".repeat(32),
        artifacts: vec![artifact(Role::Kernel), artifact(Role::Initrd), artifact(Role::Disk)],
        packages: Package::parse_list(PACKAGES).unwrap(),
        bootloader: Package::parse_list("shim-signed 1.47+15.8-1 amd64 shim-signed 1.47").unwrap(),
        documents: Vec::new(),
        secure_boot: true,
        toolchain: [("rustc".to_owned(), "1.95.0".to_owned())].into(),
    }
}

fn document(release: &Release) -> String {
    let naming = Naming {
        kind: "deb".into(),
        namespace: "debian".into(),
        distro: Some("trixie".into()),
        source_arch: Some("source".into()),
        supplier: "Debian".into(),
    };
    let binary = Binary {
        name: "tool".into(),
        url: "https://host.example/tool".into(),
        sha256: "12".repeat(32),
        path: "/usr/bin/tool".into(),
    };
    let crates = crates::parse(TREE, LOCK).unwrap();
    let sbom = Sbom { release, naming: &naming, binaries: &[binary], crates: &crates };
    sbom.to_json().unwrap()
}

/// Runs the validator of the SPDX project.
fn validate(text: &str) -> Option<Output> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("document.spdx.json");
    fs::write(&path, text).unwrap();
    run("pyspdxtools", &["--infile", path.to_str().unwrap()])
}

/// Runs a program of `out/venv`, or of `PATH`.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/venv/bin").join(program);
    let program = if installed.is_file() { installed } else { program.into() };
    let output = Command::new(&program).args(arguments).output();
    output.map_err(|error| skip(&format!("cannot run {}: {error}", program.display()))).ok()
}

fn id_of(document: &Value, purl: &str) -> String {
    let packages = document["packages"].as_array().unwrap();
    let found = packages.iter().find(|p| p["externalRefs"][0]["referenceLocator"] == purl);
    found.unwrap_or_else(|| panic!("no {purl}"))["SPDXID"].as_str().unwrap().to_owned()
}

#[test]
fn spdx_validator_accepts_the_document_and_rejects_a_broken_one() {
    let text = document(&release());
    let Some(output) = validate(&text) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (good, broken) in [
        ("\"GENERATED_FROM\"", "\"MADE_FROM\""),
        ("urn:uuid:", "no namespace "),
        ("MIT OR Apache-2.0", "MIT/Apache-2.0"),
    ] {
        assert!(text.contains(good), "{good}");
        let output = validate(&text.replace(good, broken)).unwrap();
        assert!(!output.status.success(), "{broken} was accepted");
    }
}

#[test]
fn spdx_validator_accepts_the_document_of_a_build() {
    let Some(directory) = std::env::var_os("ETCHAOS_ARTIFACTS") else {
        return skip("ETCHAOS_ARTIFACTS does not name the directory of a build");
    };
    let path = Path::new(&directory).join("etchaos_deb_amd64.spdx.json");
    let Some(output) = validate(&fs::read_to_string(path).unwrap()) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn purl_parser_reads_what_the_purls_were_made_from() {
    let script = "import json, sys; from packageurl import PackageURL\n\
        for p in json.loads(sys.argv[1])['packages']:\n  \
          for r in p.get('externalRefs', []):\n    \
            purl = PackageURL.from_string(r['referenceLocator'])\n    \
            assert (purl.name, purl.version) == (p['name'], p['versionInfo']), purl\n    \
            assert purl.to_string() == r['referenceLocator'], purl\n    \
            print(purl.type)";
    let Some(output) = run("python3", &["-c", script, &document(&release())]) else { return };
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("ModuleNotFoundError") {
        return skip("the Python package packageurl is not installed");
    }
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 11);
}

#[test]
fn binary_packages_are_generated_from_source_packages() {
    let document: Value = serde_json::from_str(&document(&release())).unwrap();
    for (binary, source) in [
        ("libc6@2.41-12%2Bb1", "glibc@2.41-12"),
        ("libstdc%2B%2B6@14.2.0-19", "gcc-14@14.2.0-19"),
        ("bsdutils@1:2.41-5", "util-linux@2.41-5"),
        ("sed@4.9~rc1-2", "sed@4.9~rc1-2"),
    ] {
        let purl = |name: &str, arch: &str| {
            id_of(&document, &format!("pkg:deb/debian/{name}?arch={arch}&distro=trixie"))
        };
        let (binary, source) = (purl(binary, "amd64"), purl(source, "source"));
        let relationships = document["relationships"].as_array().unwrap();
        let found = relationships.iter().any(|relationship| {
            relationship["spdxElementId"] == binary.as_str()
                && relationship["relationshipType"] == "GENERATED_FROM"
                && relationship["relatedSpdxElement"] == source.as_str()
        });
        assert!(found, "{binary} is not generated from {source}");
    }
}

#[test]
fn document_depends_on_the_content_and_not_on_the_build_number() {
    let first = document(&release());
    assert_eq!(first, document(&Release { build: 8, ..release() }));
    let other = document(&Release { epoch: 1_763_600_001, ..release() });
    let namespace = |text: &str| -> Value {
        serde_json::from_str::<Value>(text).unwrap()["documentNamespace"].clone()
    };
    assert_ne!(namespace(&first), namespace(&other));
}

#[test]
fn rejects_crates_that_are_not_locked() {
    let error = crates::parse("other v1.0.0|MIT", LOCK).unwrap_err().to_string();
    assert!(error.contains("other 1.0.0"), "{error}");
    assert!(crates::parse("nonsense", LOCK).is_err());
}
