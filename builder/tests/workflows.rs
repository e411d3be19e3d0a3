//! Checks the workflows with independent programs: check-jsonschema knows the official schema, zizmor
//! audits permissions, pins and the use of secrets, and shellcheck reads the scripts.

mod judge;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use judge::skip;

const SCHEMA: [&str; 3] = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"];
// Offline, it does not ask whether the pins and the versions in their comments belong together.
const AUDIT: [&str; 3] = ["zizmor", "--offline", "--strict-collection"];
const AS_JSON: &str = "import json, sys
from ruamel.yaml import YAML
print(json.dumps(YAML(typ='safe').load(open(sys.argv[1]))))";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn workflow(name: &str) -> PathBuf {
    repository().join(".github/workflows").join(name)
}

/// Runs a program of `out/venv`, or of `PATH`. Skips the test if it is not installed.
fn run(command: &[&str], file: &Path) -> Option<Output> {
    let installed = repository().join("out/venv/bin").join(command[0]);
    let program = if installed.is_file() { installed } else { command[0].into() };
    let output = Command::new(&program).args(&command[1..]).arg(file).output();
    output.map_err(|error| skip(&format!("cannot run {}: {error}", program.display()))).ok()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Checks that a validator accepts all workflows, and rejects the weekly one after each replacement for a
/// reason that has the given text.
fn accepts_ours_and_rejects(validator: &[&str], broken: &[(&str, &str, &str)]) {
    for name in ["ci.yml", "weekly.yml"] {
        let Some(output) = run(validator, &workflow(name)) else { return };
        assert!(output.status.success(), "{name}:\n{}", text(&output));
    }
    let weekly = fs::read_to_string(workflow("weekly.yml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    // zizmor takes a file for a workflow only in such a directory.
    let file = directory.path().join(".github/workflows/weekly.yml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for (good, bad, reason) in broken {
        assert!(weekly.contains(good), "weekly.yml does not contain {good:?}");
        fs::write(&file, weekly.replacen(good, bad, 1)).unwrap();
        let output = run(validator, &file).unwrap();
        assert!(!output.status.success(), "{bad:?} was accepted");
        assert!(text(&output).contains(reason), "{bad:?}: {}", text(&output));
    }
}

/// Returns the weekly workflow; skips the test if the parser is not installed.
fn weekly() -> Option<Value> {
    let output = run(&["python", "-c", AS_JSON], &workflow("weekly.yml"))?;
    if !output.status.success() {
        skip(&format!("cannot parse YAML: {}", text(&output)));
        return None;
    }
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter()
}

fn steps(workflow: &Value) -> impl Iterator<Item = &Value> {
    jobs(workflow).flat_map(|(_, job)| job["steps"].as_array().unwrap())
}

/// Returns the stage of a step that runs `.ci/weekly`.
fn stage(step: &Value) -> Option<&str> {
    let words = step["run"].as_str()?.strip_prefix(".ci/weekly ")?;
    words.split_whitespace().next()
}

#[test]
fn schema_accepts_the_workflows_and_rejects_broken_ones() {
    accepts_ours_and_rejects(
        &SCHEMA,
        &[
            ("  schedule:", "  shedule:", "shedule"),
            ("issues: write", "issues: maybe", "maybe"),
            ("    runs-on: ubuntu-24.04", "    run-on: ubuntu-24.04", "run-on"),
            ("cancel-in-progress: false", "cancel-in-progress: [no]", "cancel-in-progress"),
        ],
    );
}

#[test]
fn audit_accepts_the_workflows_and_rejects_careless_ones() {
    accepts_ours_and_rejects(
        &AUDIT,
        &[
            ("3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "v7", "unpinned-uses"),
            (
                "permissions:\n      issues: write # the issue",
                "permissions: write-all",
                "excessive-permissions",
            ),
            (
                "run: .ci/weekly publish \"$VARIANT\"",
                "run: .ci/weekly publish ${{ github.head_ref }}",
                "template-injection",
            ),
        ],
    );
}

#[test]
fn shellcheck_accepts_the_scripts_of_the_weekly_workflow() {
    let Some(workflow) = weekly() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script");
    for script in steps(&workflow).filter_map(|step| step["run"].as_str()) {
        fs::write(&file, script).unwrap();
        let Some(output) = run(&["shellcheck", "--shell=bash"], &file) else { return };
        assert!(output.status.success(), "{script}:\n{}", text(&output));
    }
}

#[test]
fn ci_runs_every_stage_of_the_weekly_workflow() {
    let Some(workflow) = weekly() else { return };
    let ci = fs::read_to_string(repository().join(".ci/run")).unwrap();
    let run_by_ci: Vec<&str> = ci
        .lines()
        .filter_map(|line| line.strip_prefix("weekly ").or(line.strip_prefix(".ci/weekly ")))
        .flat_map(|stages| stages.split('|').next().unwrap().split_whitespace())
        .collect();
    let stages: Vec<&str> = steps(&workflow).filter_map(stage).collect();
    for required in ["check", "build", "test", "notes", "publish"] {
        assert!(stages.contains(&required), "weekly.yml does not run the stage {required:?}");
    }
    for stage in stages {
        assert!(run_by_ci.contains(&stage), ".ci/run does not run the stage {stage:?}");
    }
    // Everything that concerns a release is in .ci/weekly, so that .ci/run runs the same commands.
    for script in steps(&workflow).filter_map(|step| step["run"].as_str()) {
        for program in ["cargo ", "builder "] {
            assert!(!script.contains(program), "{script:?} runs {program:?} without .ci/weekly");
        }
    }
}

#[test]
fn weekly_workflow_builds_every_target_on_a_runner_of_its_architecture() {
    let Some(workflow) = weekly() else { return };
    let mut builder = Command::new(env!("CARGO_BIN_EXE_builder"));
    let output = builder.args(["variants", "--json"]).output().unwrap();
    let targets: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected: Vec<String> = targets
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["target"].as_str().unwrap().to_owned())
        .collect();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let rows = workflow["jobs"]["build"]["strategy"]["matrix"]["include"].as_array().unwrap();
    let found: Vec<String> =
        rows.iter().map(|row| format!("{}_{}", text(row, "variant"), text(row, "arch"))).collect();
    assert_eq!(found, expected);
    for row in rows {
        let is_arm = text(row, "runner").ends_with("-arm");
        assert_eq!(is_arm, text(row, "arch") == "arm64", "{row}");
    }
}

#[test]
fn only_steps_that_need_a_secret_get_it() {
    let Some(workflow) = weekly() else { return };
    let has_secret = |value: &Value| {
        let text = value.to_string();
        text.contains("secrets.") || text.contains("steps.aws.outputs.")
    };
    for step in steps(&workflow).filter(|step| has_secret(step)) {
        assert!(matches!(stage(step), Some("build" | "publish")), "{step}");
        assert!(!has_secret(&step["run"]), "{step}");
    }
    for (name, job) in jobs(&workflow) {
        assert!(
            !has_secret(&job["env"]),
            "the secret is in the environment of all steps of {name}"
        );
    }
    assert!(!has_secret(&workflow["env"]), "the secret is in the environment of all jobs");
}

#[test]
fn only_the_jobs_that_need_a_permission_have_it() {
    let Some(workflow) = weekly() else { return };
    assert_eq!(workflow["permissions"], serde_json::json!({}));
    let writable = |job: &Value| -> Vec<String> {
        let permissions = job["permissions"].as_object().unwrap();
        let writable = permissions.iter().filter(|(_, access)| *access == "write");
        writable.map(|(name, _)| name.clone()).collect()
    };
    for (name, job) in jobs(&workflow) {
        let expected: &[&str] = match name.as_str() {
            "publish" => &["attestations", "id-token"],
            "alarm" => &["issues"],
            _ => &[],
        };
        let mut found = writable(job);
        found.sort();
        assert_eq!(found, expected, "{name}");
        assert!(job["timeout-minutes"].is_u64(), "{name} has no timeout");
        assert_eq!(job["concurrency"]["cancel-in-progress"], false, "{name}");
    }
}

#[test]
fn alarm_opens_one_issue_and_then_comments_on_it() {
    let Some(workflow) = weekly() else { return };
    let script = workflow["jobs"]["alarm"]["steps"][0]["run"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (gh, log) = (directory.path().join("gh"), directory.path().join("log"));
    for (open, expected) in
        [("", "issue create --title T --body B"), ("7", "issue comment 7 --body B")]
    {
        let stub = format!(
            "#!/bin/sh\nif [ \"$2\" = list ]; then echo {open}; else echo \"$@\" >{}; fi\n",
            log.display()
        );
        fs::write(&gh, stub).unwrap();
        fs::set_permissions(&gh, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
        let status = Command::new("bash")
            .args(["-e", "-c", script])
            .env("PATH", path)
            .envs([("TITLE", "T"), ("BODY", "B")])
            .status();
        assert!(status.unwrap().success());
        assert_eq!(fs::read_to_string(&log).unwrap().trim(), expected);
    }
}

#[test]
fn weekly_script_rejects_unknown_stages_and_missing_destinations() {
    let weekly = |arguments: &[&str]| {
        Command::new(repository().join(".ci/weekly"))
            .args(arguments)
            .env_remove("FROM")
            .env_remove("TO")
            .output()
            .unwrap()
    };
    for wrong in [&["build"][..], &["deploy", "deb", "amd64"]] {
        assert_eq!(weekly(wrong).status.code(), Some(2), "{wrong:?}");
    }
    for (stage, variable) in [("build", "FROM"), ("publish", "TO")] {
        let output = weekly(&[stage, "deb", "amd64"]);
        assert!(!output.status.success() && text(&output).contains(variable), "{}", text(&output));
    }
}
