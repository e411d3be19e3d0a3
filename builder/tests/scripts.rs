//! Checks all scripts of the repository: shell scripts with shellcheck, and scripts for GRUB with
//! grub-script-check.

mod judge;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;
use walkdir::WalkDir;

use judge::skip;

/// Directories and files with scripts, relative to the root of the repository.
const PLACES: [&str; 4] = ["builder/variants", "builder/tests/families", ".ci", "updater/fuzz/run"];
/// The builder runs Commands with `bash -euo pipefail -c`. Without a line break, so that line numbers stay
/// those of the file.
const FLAGS: &str = "set -euo pipefail; ";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns all files below [`PLACES`] with their content, by path.
fn files() -> Vec<(PathBuf, String)> {
    let places = PLACES.map(|place| repository().join(place));
    let entries = places.iter().flat_map(|place| WalkDir::new(place).sort_by_file_name());
    entries
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.is_file())
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// `grep -q` ends at the first match. A program that still writes to it is then killed, and with `pipefail` the
/// pipeline fails although there is a match, depending on the timing.
#[test]
fn no_pipeline_ends_before_its_input() {
    for (path, text) in files() {
        for (number, line) in (1..).zip(text.lines()) {
            let readers = line.split('|').skip(1).map(str::trim_start);
            let is_early = |reader: &str| {
                let options = reader.strip_prefix("grep ").unwrap_or_default().split(' ');
                let mut options = options.take_while(|word| word.starts_with('-'));
                options.any(|word| !word.starts_with("--") && word.contains('q'))
            };
            assert!(!readers.into_iter().any(is_early), "{}:{number}: {line}", path.display());
        }
    }
}

/// Runs a program with this input, and returns its output if it fails.
fn problems(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (!output.status.success()).then_some(text)
}

/// Returns whether a program is installed; skips the test if it is not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    if let Err(error) = &found {
        skip(&format!("scripts cannot be checked: {program}: {error}"));
    }
    found.is_ok()
}

/// Returns what shellcheck finds in a script. A script without an interpreter line is one for the builder.
fn shellcheck(script: &str, options: &[&str]) -> Option<String> {
    let options = [options, &["--format=gcc", "-"]].concat();
    if script.starts_with("#!") {
        return problems("shellcheck", &options, script);
    }
    let options = [&["--shell=bash"], &options[..]].concat();
    problems("shellcheck", &options, &format!("{FLAGS}{script}"))
}

#[test]
fn shellcheck_accepts_all_shell_scripts() {
    if !has("shellcheck") {
        return;
    }
    let is_shell = |path: &Path, text: &str| {
        let first = text.lines().next().unwrap_or_default();
        let has_interpreter = first.starts_with("#!") && first.ends_with("sh");
        has_interpreter || path.extension().is_some_and(|extension| extension == "sh")
    };
    let scripts: Vec<_> = files().into_iter().filter(|(path, text)| is_shell(path, text)).collect();
    assert!(scripts.len() >= 14, "only {} shell scripts found", scripts.len());
    for (path, script) in scripts {
        if let Some(problems) = shellcheck(&script, &[]) {
            panic!("{}:\n{problems}", path.display());
        }
    }
}

#[test]
fn shellcheck_accepts_the_commands_of_variants() {
    if !has("shellcheck") {
        return;
    }
    for variant in ["alm", "alm9", "arc", "deb", "deb12", "debmetal", "fed", "sus", "ubu", "ubu24"]
    {
        check_commands(variant, "amd64");
        if variant != "arc" {
            check_commands(variant, "arm64");
        }
    }
}

fn check_commands(variant: &str, arch: &str) {
    let mut builder = Command::cargo_bin("builder").unwrap();
    let output = builder.args(["render", variant, "--arch", arch]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pattern: Value = serde_json::from_slice(&output.stdout).unwrap();
    let commands: Vec<&Value> = pattern["build"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|stage| stage["commands"].as_array().unwrap())
        .chain([&pattern["check"]["names"], &pattern["check"]["resolve"]])
        .collect();
    assert!(commands.len() >= 10, "only {} commands found", commands.len());
    for command in commands {
        // All commands of a variant begin with the same variables, and not every command uses each of them.
        let options = ["--exclude=SC2034"];
        if let Some(problems) = shellcheck(command["change"].as_str().unwrap(), &options) {
            panic!("{variant}: command {}:\n{problems}", command["id"]);
        }
    }
}

#[test]
fn grub_script_check_accepts_all_grub_scripts() {
    if !has("grub-script-check") {
        return;
    }
    let is_grub = |path: &Path| path.extension().is_some_and(|extension| extension == "cfg");
    let scripts: Vec<_> = files().into_iter().filter(|(path, _)| is_grub(path)).collect();
    assert!(scripts.len() >= 3, "only {} scripts for GRUB found", scripts.len());
    for (path, script) in scripts {
        if let Some(problems) = problems("grub-script-check", &[], &script) {
            panic!("{}:\n{problems}", path.display());
        }
    }
}
