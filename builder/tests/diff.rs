//! `builder diff` compares published releases: it verifies manifests and lists of files, and its output
//! is what other programs expect.

mod judge;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use judge::judge;
use protocol::release::{Document, document};
use protocol::{Artifact, Claims, Package, PrivateKey, Release, Role, digest, release, token};
use serde_json::{Value, json};

/// Returns an entry for a setting in the list of files.
fn setting(path: &str, text: &str) -> Value {
    json!({
        "place": "system", "path": path, "kind": "file", "size": text.len(),
        "access": {"mode": 0o644, "uid": 0, "gid": 0},
        "sha256": digest::of_bytes(text.as_bytes()), "text": text,
    })
}

/// Publishes a release with the list of files at a relative URL.
fn publish(
    directory: &Path,
    key: &PrivateKey,
    version: &str,
    packages: &str,
    entries: &[Value],
    etchaos_figures: Option<Value>,
) {
    let artifact = |role: Role| Artifact {
        role,
        name: role.extension().to_owned(),
        size: 1000,
        sha256: "ab".repeat(32),
        url: role.extension().to_owned(),
        deltas: Vec::new(),
    };
    let list = json!({"schema": 1, "entries": entries}).to_string();
    let list = zstd::bulk::compress(list.as_bytes(), 3).unwrap();
    let name = "etchaos_deb_amd64.contents.json.zst";
    fs::create_dir_all(directory.join("releases/1")).unwrap();
    fs::write(directory.join("releases/1").join(name), &list).unwrap();
    let contents = Document {
        kind: document::CONTENTS.to_owned(),
        name: name.to_owned(),
        size: list.len() as u64,
        sha256: digest::of_bytes(&list),
        url: format!("releases/1/{name}"),
    };
    let release = Release {
        schema: release::SCHEMA,
        variant: "deb".parse().unwrap(),
        arch: protocol::Arch::Amd64,
        version: version.to_owned(),
        build: 7,
        epoch: 1_763_600_000,
        kernel: "6.12.57".into(),
        recipe: "cd".repeat(32),
        artifacts: Role::BOOT.map(artifact).to_vec(),
        packages: Package::parse_list(packages).unwrap(),
        bootloader: Vec::new(),
        documents: vec![contents],
        secure_boot: true,
        toolchain: Default::default(),
    };
    let etchaos_release = Some(release);
    let claims = Claims { etchaos_release, etchaos_figures, ..Claims::default() };
    let manifest = token::sign(key, &claims).unwrap();
    fs::write(directory.join("etchaos_deb_amd64.jwt"), manifest + "\n").unwrap();
}

struct Releases {
    directory: tempfile::TempDir,
}

impl Releases {
    fn new() -> Self {
        Self::with_figures(None, None)
    }

    fn with_figures(old_figures: Option<Value>, new_figures: Option<Value>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // The keys of two releases differ after a rotation.
        let (old, new) = (PrivateKey::generate(), PrivateKey::generate());
        fs::write(at("old.pub"), format!("{}\n", old.public())).unwrap();
        fs::write(at("new.pub"), format!("{}", new.public())).unwrap();
        let hosts = |text| setting("/etc/hosts", text);
        let entries = [hosts("127.0.0.1 localhost\n")];
        publish(&at("old"), &old, "13.1", "bash 5.2 amd64", &entries, old_figures);
        let evil = setting("/etc/x|`<script>alert(1)</script>", "```\n</details><b>\n# heading\n");
        let entries = [hosts("::1 localhost\n"), evil];
        publish(&at("new"), &new, "13.2", "bash 5.3 amd64", &entries, new_figures);
        Self { directory }
    }

    fn diff(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::cargo_bin("builder")
            .unwrap()
            .current_dir(self.directory.path())
            .args(["diff", "--keys", "old.pub"])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.diff(&[&["--keys", "new.pub"], arguments].concat());
        assert_eq!((code, &*error), (Some(0), ""), "{out}");
        out
    }

    fn fails(&self, arguments: &[&str], expected: &str) {
        let (code, out, error) = self.diff(arguments);
        assert_eq!((code, &*out), (Some(1), ""));
        assert!(error.contains(expected), "expected {expected:?} in {error}");
    }
}

#[test]
fn prints_text_and_json_of_directories_and_manifests() {
    let releases = Releases::new();
    let text = releases.succeeds(&["old", "new"]);
    for expected in ["~  bash     5.2  5.3", "-127.0.0.1 localhost", "+::1 localhost"] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    let manifest = "new/etchaos_deb_amd64.jwt";
    let json = releases.succeeds(&["old", manifest, "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["packages"]["changed"][0]["to"], "5.3");
    assert_eq!(json["image"]["files"]["changed"][0]["path"], "/etc/hosts");
}

/// Returns figures in which the kernel took this time, and the name of the processor is hostile.
fn figures(kernel: f64) -> Value {
    json!({
        "schema": 1,
        "machine": {"arch": "x86_64", "cpus": 2, "model": "A\u{1b}[31mB", "accelerator": null},
        "stages": [{"name": "init", "seconds": 14.5, "cached": true}],
        "boots": [{
            "boot": "uefi", "firmwareSeconds": 4.1, "bootLoaderSeconds": 3.0,
            "kernelSeconds": kernel, "userspaceSeconds": 26.3,
            "memoryUsedMiB": 591, "memoryMiB": 1967,
        }],
    })
}

#[test]
fn compares_the_figures_in_manifests() {
    let releases = Releases::with_figures(Some(figures(5.0)), Some(figures(6.0)));
    let json = releases.succeeds(&["old", "new", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let values = json["figures"]["values"].as_array().unwrap();
    let kernel = values.iter().find(|value| value["name"] == "boot uefi: kernel").unwrap();
    assert_eq!((&kernel["to"], &kernel["ratio"]), (&json!(6.0), &json!(1.2)));
    assert!(releases.succeeds(&["old", "new"]).contains("× 1.20"));
    let releases = Releases::with_figures(Some(figures(-1.0)), None);
    releases.fails(&["old", "old"], "reading the figures in the manifest");
}

#[test]
fn inspect_shows_figures() {
    let releases = Releases::with_figures(Some(figures(5.0)), Some(figures(-1.0)));
    let inspect = |release: &str| {
        let mut command = Command::cargo_bin("builder").unwrap();
        let command = command.current_dir(releases.directory.path());
        let output = command.args(["inspect", &format!("{release}/etchaos_deb_amd64.jwt")]);
        String::from_utf8(output.output().unwrap().stdout).unwrap()
    };
    let text = inspect("old");
    for line in [
        "  etchaosFigures:",
        "    stage init: 14.5 s, partly from the cache",
        "    on x86_64, 2 CPUs, A\\u{1b}[31mB",
    ] {
        assert!(text.lines().any(|other| other == line), "no {line:?} in {text}");
    }
    assert!(text.contains("591 of 1967 MiB"), "{text}");
    assert!(inspect("new").contains("  etchaosFigures: {\"boots\""), "figures that are not valid");
}

#[test]
fn another_program_renders_hostile_markdown_as_text() {
    let releases = Releases::new();
    let markdown = releases.succeeds(&["old", "new", "--format", "markdown"]);
    let file = releases.directory.path().join("notes.md");
    fs::write(&file, &markdown).unwrap();
    let arguments = ["--unsafe", "-e", "table", "-e", "autolink", file.to_str().unwrap()];
    let Some(html) = judge("cmark-gfm", &arguments) else { return };
    assert!(
        html.contains("<td><code>/etc/x|`&lt;script&gt;alert(1)&lt;/script&gt;</code></td>"),
        "{html}"
    );
    assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
    assert_eq!(
        (html.matches("<h1>").count(), html.matches("</details>").count()),
        (1, 0),
        "{html}"
    );
    // One package with five cells, and two files with three.
    assert_eq!(html.matches("<td>").count(), 5 + 2 * 3, "{html}");
}

#[test]
fn rejects_untrusted_manifests_and_changed_or_missing_lists() {
    let releases = Releases::new();
    releases.fails(&["old", "new"], "--keys");
    releases.fails(&["old", "."], "0 manifests");
    releases.fails(&["old", "nowhere"], "nowhere");
    let list = releases.directory.path().join("old/releases/1/etchaos_deb_amd64.contents.json.zst");
    let mut bytes = fs::read(&list).unwrap();
    bytes[20] ^= 1;
    fs::write(&list, bytes).unwrap();
    releases.fails(&["old", "old"], "not the list of files that the manifest names");
    fs::remove_file(&list).unwrap();
    releases.fails(&["old", "old"], "which is not there");
}
