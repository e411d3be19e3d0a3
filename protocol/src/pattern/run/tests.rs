use super::*;
use crate::pattern::{Pattern, PatternFiles};
use serde_json::json;

/// Prints a script and `$X_CHANGE_OUT`. Scripts that start with `no` fail.
struct FakeShell(Vec<String>);

impl Shell for FakeShell {
    type Error = std::convert::Infallible;

    fn run(&mut self, script: &str, env: &BTreeMap<String, String>) -> Result<Output, Self::Error> {
        self.0.push(script.to_owned());
        let exported = env.get("X_CHANGE_OUT").cloned().unwrap_or_default();
        let code = i32::from(script.starts_with("no"));
        Ok(Output { code, text: format!("{script}{exported}\n") })
    }
}

fn run_json(mode: Mode, commands: serde_json::Value) -> (Report, Vec<String>) {
    let entries: Vec<Entry> = serde_json::from_value(commands).unwrap();
    let mut shell = FakeShell(Vec::new());
    let report = run(&entries, mode, &mut shell).unwrap();
    (report, shell.0)
}

#[test]
fn runs_a_change_after_a_failing_check_and_triggers_commands() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "fine", "check": "yes", "change": "never"},
            [{"id": "needed", "check": "not yet", "change": "do it", "onChange": ["later"]}],
            {"id": "later", "change": "restart"},
            {"id": "asleep", "change": "never"},
        ]),
    );
    assert_eq!(ran, ["yes", "not yet", "do it", "restart"]);
    let outcomes: Vec<Outcome> = report.results.iter().map(|r| r.outcome).collect();
    assert_eq!(outcomes, [Outcome::Ok, Outcome::Changed, Outcome::Changed, Outcome::Skipped]);
}

#[test]
fn stops_after_a_failure_except_for_on_fail() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "bad", "always": true, "change": "no way", "onFail": ["clean"]},
            {"id": "next", "always": true, "change": "never"},
            {"id": "clean", "change": "mop"},
        ]),
    );
    assert_eq!(ran, ["no way", "mop"]);
    assert_eq!(report.failures().count(), 1);
}

#[test]
fn check_mode_runs_all_checks_and_no_changes() {
    let (report, ran) = run_json(
        Mode::Check,
        json!([
            {"id": "a", "check": "no", "change": "never"},
            {"id": "b", "check": "yes"},
            {"id": "c", "always": true, "change": "never"},
        ]),
    );
    assert_eq!(ran, ["no", "yes"]);
    assert_eq!(report.failures().map(|r| &r.id).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn reports_a_failing_check_without_a_change_as_failure() {
    let (report, _) = run_json(Mode::Change, json!([{"id": "a", "check": "no"}]));
    assert_eq!(report.results[0].outcome, Outcome::Failed);
    assert_eq!(report.results[0].output, "no\n");
}

#[test]
fn groups_trigger_commands_and_outputs_are_exported() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "group", "onChange": ["after"], "commands": [
                {"id": "x", "always": true, "change": "one", "envPrefix": "X", "onChange": ["etcha:runVar_kernel"]},
                {"id": "y", "always": true, "change": "two ", "onChange": ["etcha:buildManifest"]},
            ]},
            {"id": "after", "commands": [{"id": "z", "change": "three"}]},
        ]),
    );
    assert_eq!(ran, ["one", "two ", "three"]);
    assert_eq!(report.run_vars["kernel"], "one");
    assert_eq!(report.build_manifest, "two one\n\n");
}

#[test]
fn rejects_invalid_patterns() {
    let mut deep = json!([]);
    for _ in 0..20 {
        deep = json!([deep]);
    }
    let entries: Vec<Entry> = serde_json::from_value(deep).unwrap();
    assert!(run(&entries, Mode::Check, &mut FakeShell(Vec::new())).is_err());
    let group = json!([{"id": "g", "always": true, "commands": [{"id": "x"}]}]);
    let entries: Vec<Entry> = serde_json::from_value(group).unwrap();
    assert!(run(&entries, Mode::Check, &mut FakeShell(Vec::new())).is_err());
    let missing = PatternFiles { entrypoint: "x".into(), files: BTreeMap::new() };
    assert!(missing.pattern().is_err());
}

#[test]
fn round_trips_a_pattern_through_its_files() {
    let pattern: Pattern =
        serde_json::from_value(json!({"run": [{"id": "a", "check": "true"}]})).unwrap();
    assert_eq!(PatternFiles::from(&pattern).pattern(), Ok(pattern));
}
