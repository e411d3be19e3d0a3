//! Bad input gives a clear error with a hint, no panic, and no build.

mod judge;

use std::fs;
use std::path::Path;

use assert_cmd::Command;

/// Runs the builder in a directory and returns its exit code and standard error.
fn builder(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::cargo_bin("builder")
        .unwrap()
        .current_dir(directory)
        .env_remove("ETCHAOS_SIGNING_KEY")
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().unwrap(), text)
}

/// Checks that the builder fails with a message that contains all of these texts.
fn fails(directory: &Path, arguments: &[&str], texts: &[&str]) {
    let (code, text) = builder(directory, arguments);
    assert_eq!(code, 1, "{text}");
    for expected in texts {
        assert!(text.contains(expected), "{arguments:?}: expected {expected:?} in:\n{text}");
    }
}

#[test]
fn unknown_variant_lists_known_ones() {
    let directory = tempfile::tempdir().unwrap();
    fails(directory.path(), &["run", "nosuch"], &["nosuch", "deb"]);
    assert!(
        !directory.path().join("out").exists(),
        "an unknown variant must not create the output directory"
    );
}

#[test]
fn rejects_invalid_variant_names_and_architectures() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["../etc/passwd", "Deb", ""] {
        assert_eq!(builder(directory.path(), &["run", name]).0, 2, "{name}");
    }
    assert_eq!(builder(directory.path(), &["run", "deb", "--arch", "mips"]).0, 2);
}

#[test]
fn shows_file_line_and_message_of_jsonnet_errors() {
    let directory = tempfile::tempdir().unwrap();
    let variants = directory.path().join("variants");
    fs::create_dir(&variants).unwrap();
    fs::write(variants.join("syntax.jsonnet"), "{\n  variant: 'syntax',\n  oops\n}\n").unwrap();
    fs::write(variants.join("runtime.jsonnet"), "{\n  variant: error 'not today',\n}\n").unwrap();
    fs::write(variants.join("shape.jsonnet"), "{ variant: 'shape' }\n").unwrap();
    fs::write(variants.join("import.jsonnet"), "import 'nowhere.libsonnet'\n").unwrap();
    let run = |name: &'static str| ["--variants", "variants", "render", name];
    fails(directory.path(), &run("syntax"), &["syntax.jsonnet", ":4", "expected"]);
    fails(directory.path(), &run("runtime"), &["runtime.jsonnet", ":2", "not today"]);
    fails(directory.path(), &run("shape"), &["shape.jsonnet", "missing field"]);
    fails(directory.path(), &run("import"), &["nowhere.libsonnet"]);
}

#[test]
fn rejects_invalid_keys_and_configurations_before_building() {
    if !nix::unistd::geteuid().is_root() {
        return judge::skip("a build needs root");
    }
    let directory = tempfile::tempdir().unwrap();
    let run = |more: &[&'static str]| [&["run", "deb"], more].concat();
    fails(
        directory.path(),
        &run(&["--signing-key", "@nowhere.key"]),
        &["nowhere.key", "No such file"],
    );
    fails(
        directory.path(),
        &run(&["--signing-key", "nonsense"]),
        &["signing key", "ed25519private"],
    );
    fs::write(directory.path().join("host.json"), "not JSON").unwrap();
    fails(directory.path(), &run(&["--host-config", "host.json"]), &["host.json", "JSON"]);
    fails(directory.path(), &run(&["--to", "/dev/null/cdn"]), &["/dev/null/cdn", "--to"]);
    fails(
        directory.path(),
        &run(&["--to", "https://host.example/os"]),
        &["a web server only serves files", "directory"],
    );
    fails(directory.path(), &run(&["--mirror", "http://x/a b"]), &["mirror", "space"]);
    let (_, text) = builder(directory.path(), &run(&["--mirror", "http://u:secret@x/debian"]));
    assert!(text.contains("credentials") && !text.contains("secret"), "{text}");
    assert_eq!(builder(directory.path(), &run(&["--without-security"])).0, 2);
    fs::write(directory.path().join("empty.key"), "\n").unwrap();
    fails(directory.path(), &run(&["--signing-key", "@empty.key"]), &["empty.key is empty"]);
    assert!(!directory.path().join("out/deb_amd64/logs/1-init.log").exists());
}

#[test]
fn full_standard_output_is_an_error() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&["variants"][..], &["render", "deb", "--arch", "amd64"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_builder"))
            .args(arguments)
            .stdout(full())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("No space left"), "{text}");
    }
}

#[test]
fn rejects_unknown_fields_in_variants() {
    let directory = tempfile::tempdir().unwrap();
    let variants = directory.path().join("variants");
    copy_variants(&variants);
    let file = variants.join("deb/debian.libsonnet");
    let text = fs::read_to_string(&file).unwrap();
    for (right, wrong) in [("  units: {", "  unitz: {"), ("    disable: [", "    dizable: [")] {
        fs::write(&file, text.replace(right, wrong)).unwrap();
        let name = wrong.trim().split(':').next().unwrap();
        fails(
            directory.path(),
            &["--variants", "variants", "render", "deb"],
            &[name, "unknown field"],
        );
    }
}

#[test]
fn renders_every_variant() {
    let directory = tempfile::tempdir().unwrap();
    let output =
        Command::cargo_bin("builder").unwrap().args(["variants", "--json"]).output().unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows.to_string().contains("deb_amd64"), "{rows}");
    for row in rows.as_array().unwrap() {
        let (name, arch) = (row["variant"].as_str().unwrap(), row["arch"].as_str().unwrap());
        let (code, text) = builder(directory.path(), &["render", name, "--arch", arch]);
        assert_eq!(code, 0, "{text}");
    }
}

#[test]
fn build_without_root_fails_with_hint() {
    if !nix::unistd::geteuid().is_root() {
        let directory = tempfile::tempdir().unwrap();
        fails(directory.path(), &["run", "deb"], &["root", "sudo"]);
        return;
    }
    // Drops root privileges. setpriv is an essential package of Debian.
    let program = assert_cmd::cargo::cargo_bin("builder");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("builder");
    fs::copy(program, &copy).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(directory.path(), open).unwrap();
    let variants = directory.path().join("variants");
    copy_variants(&variants);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(&copy)
        .arg("--variants")
        .arg(&variants)
        .args(["run", "deb", "--out"])
        .arg(directory.path().join("out"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("root"), "{text}");
}

/// Copies the variants to a directory that every user can read.
fn copy_variants(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
    for entry in walkdir::WalkDir::new(&from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(&from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn rejects_a_place_of_the_published_release_that_is_missing_or_ambiguous() {
    let directory = tempfile::tempdir().unwrap();
    let (code, text) = builder(directory.path(), &["test", "deb", "--from", "a", "--to", "b"]);
    assert_eq!(code, 2, "{text}");
    if nix::unistd::geteuid().is_root() {
        fails(directory.path(), &["test", "deb", "--from", "no/such"], &["no/such", "not exist"]);
    } else {
        judge::skip("\"builder test\" needs root");
    }
}
