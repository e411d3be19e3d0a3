use super::*;
use serde_json::{Value, json};

mod random;

/// Records the scripts that it runs. Scripts that start with `no` fail. Each prints its name and the variables
/// whose names it has as words that begin with `$`, and its standard input.
#[derive(Default)]
struct FakeShell {
    ran: Vec<String>,
    printed: Vec<(Stream, String)>,
    execs: Vec<String>,
}

impl Shell for FakeShell {
    type Error = std::convert::Infallible;

    fn run(&mut self, invocation: &Invocation<'_>) -> Result<Output, Self::Error> {
        let Invocation { script, env, .. } = invocation;
        self.ran.push((*script).to_owned());
        self.execs.push(invocation.exec.words().collect::<Vec<_>>().join(" "));
        let mut text = format!(" {script}");
        for name in script.split(' ').filter_map(|word| word.strip_prefix('$')) {
            text += &format!("|{name}={}", env.get(name).map_or("unset", String::as_str));
        }
        text += invocation.stdin.unwrap_or_default();
        let code = if script.starts_with("no") { 3 } else { 0 };
        Ok(Output { code, text: text + "\n\n" })
    }

    fn print(&mut self, _: &str, stream: Stream, output: &str) {
        self.printed.push((stream, output.to_owned()));
    }
}

fn pattern(run: Value) -> Pattern {
    Pattern::from_value(&json!({"run": run})).unwrap()
}

fn run_from(mode: Mode, previous: Option<Value>, commands: Value) -> (Report, FakeShell) {
    let mut shell = FakeShell::default();
    let previous = previous.map(pattern);
    let options = Options::new(mode, "ci");
    let report = run(&pattern(commands), previous.as_ref(), &options, &mut shell).unwrap();
    (report, shell)
}

fn run_json(mode: Mode, commands: Value) -> (Report, Vec<String>) {
    let (report, shell) = run_from(mode, None, commands);
    (report, shell.ran)
}

fn outcomes(results: &[CommandResult]) -> Vec<(&str, Outcome)> {
    results.iter().map(|result| (result.id.as_str(), result.outcome)).collect()
}

fn error(commands: Value) -> String {
    let pattern = match Pattern::from_value(&json!({"run": commands})) {
        Ok(pattern) => pattern,
        Err(error) => return error.to_string(),
    };
    let mut shell = FakeShell::default();
    let error = run(&pattern, None, &Options::new(Mode::Change, "ci"), &mut shell).unwrap_err();
    assert!(shell.ran.is_empty(), "ran {:?} before {error}", shell.ran);
    error.to_string()
}

#[test]
fn runs_a_change_after_a_failing_check_and_triggers_commands() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "fine", "check": "yes", "change": "never"},
            [{"id": "needed", "check": "not yet", "change": "do it", "onChange": ["later"]}],
            {"id": "later", "check": "not run", "change": "restart"},
            {"id": "asleep", "change": "never"},
            "text",
        ]),
    );
    assert_eq!(ran, ["yes", "not yet", "do it", "restart", "text"]);
    let expected = [
        ("fine", Outcome::Ok),
        ("needed", Outcome::Changed),
        ("later", Outcome::Changed),
        ("asleep", Outcome::Skipped),
        ("text", Outcome::Changed),
    ];
    assert_eq!(outcomes(&report.results), expected);
    assert_eq!(report.results[1].output, "do it", "the output is trimmed");
}

#[test]
fn a_failing_check_without_a_change_is_no_failure() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([{"id": "a", "check": "no"}, {"id": "b", "always": true, "change": "goes on"}]),
    );
    assert_eq!(ran, ["no", "goes on"]);
    assert_eq!(outcomes(&report.results), [("a", Outcome::Needed), ("b", Outcome::Changed)]);
    assert_eq!(report.results[0].output, "no");
    assert_eq!((report.failures().count(), report.unmet().count()), (0, 1));
}

#[test]
fn after_a_failure_only_always_and_on_fail_run() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "first", "always": true, "change": "ok", "onChange": ["triggered"]},
            {"id": "bad", "always": true, "change": "no way", "onFail": "clean.*"},
            {"id": "triggered", "change": "never"},
            {"id": "checked", "check": "never", "change": "never"},
            {"id": "always", "always": true, "change": "at the end", "onChange": ["last"]},
            {"id": "clean 1", "check": "never", "change": "no mop", "onFail": ["alarm"]},
            {"id": "clean 2", "change": "broom"},
            {"id": "alarm", "change": "ring"},
            {"id": "last", "change": "never"},
        ]),
    );
    assert_eq!(ran, ["ok", "no way", "at the end", "no mop", "broom", "ring"]);
    assert_eq!(report.failures().map(|r| &r.id).collect::<Vec<_>>(), ["bad", "clean 1"]);
}

#[test]
fn a_failure_in_a_group_ends_the_lists_around_it() {
    let (report, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "group", "commands": [
                {"id": "bad", "always": true, "change": "no way"},
                {"id": "in group", "always": true, "change": "runs"},
                {"id": "nested", "commands": [{"id": "x", "always": true, "change": "never"}]},
            ]},
            {"id": "outside", "always": true, "change": "never"},
        ]),
    );
    assert_eq!(ran, ["no way", "runs"]);
    assert_eq!(
        outcomes(&report.results),
        [("bad", Outcome::Failed), ("in group", Outcome::Changed)]
    );
}

#[test]
fn check_mode_runs_all_checks_and_no_changes() {
    let (report, shell) = run_from(
        Mode::Check,
        Some(json!([
            {"id": "gone", "check": "present", "remove": "never"},
            {"id": "absent", "check": "not present", "remove": "never"},
            {"id": "gone always", "always": true, "remove": "never"},
        ])),
        json!([
            {"id": "a", "check": "no", "change": "never", "onChange": ["d"]},
            {"id": "b", "check": "yes"},
            {"id": "c", "always": true, "change": "never"},
            {"id": "d", "change": "never"},
        ]),
    );
    assert_eq!(shell.ran, ["not present", "present", "no", "yes"]);
    let removed =
        [("gone always", Outcome::Needed), ("absent", Outcome::Ok), ("gone", Outcome::Needed)];
    assert_eq!(outcomes(&report.removed), removed);
    let expected = [
        ("a", Outcome::Needed),
        ("b", Outcome::Ok),
        ("c", Outcome::Needed),
        ("d", Outcome::Skipped),
    ];
    assert_eq!(outcomes(&report.results), expected);
}

#[test]
fn targets_are_ids_or_regular_expressions_of_the_same_list() {
    let (_, ran) = run_json(
        Mode::Change,
        json!([
            {"id": "conf", "always": true, "change": "write", "onChange": ["^restart", "a(b"]},
            {"id": "restart 1", "change": "1"},
            {"id": "no restart", "change": "never"},
            {"id": "restart 2", "change": "2"},
            {"id": "a(b", "change": "3"},
            {"id": "group", "commands": [{"id": "restart 3", "change": "never"}]},
        ]),
    );
    assert_eq!(ran, ["write", "1", "2", "3"]);
}

#[test]
fn a_target_that_cannot_work_is_an_error_before_anything_runs() {
    let first = json!({"id": "first", "always": true, "change": "must not run"});
    let with = |target: &str, field: &str| {
        let mut command = json!({"id": "own", "change": "x"});
        command[field] = json!(["etcha:stdout", target]);
        json!([
            first,
            [command],
            {"id": "group", "commands": [{"id": "inside", "change": "x"}]},
            {"id": "last", "change": "x"},
        ])
    };
    for (target, field, expected) in [
        (
            "missing",
            "onChange",
            "run[1][0].onChange[1] of the Pattern is \"missing\", which matches no Command that runs later in the list",
        ),
        ("missing", "onFail", "run[1][0].onFail[1] of the Pattern is \"missing\""),
        ("missing", "onRemove", "which matches no Command in the list"),
        ("inside", "onRemove", "which matches no Command in the list"),
        ("first", "onChange", "which does not run later in the list"),
        ("own", "onChange", "the Command itself"),
        ("inside", "onChange", "matches no Command"),
        ("group", "onChange", "is a group"),
        ("la(st", "onChange", "is not a regular expression"),
        ("etcha:exit", "onChange", "\"etcha:exit\", which is not supported"),
        ("etcha:runVar_", "onChange", "not supported"),
        ("etcha:buildManifest", "onFail", "not supported"),
    ] {
        let error = error(with(target, field));
        assert!(error.contains(expected), "{field} {target}: {error}");
    }
    assert!(
        error(with(&"x".repeat(2000), "onChange")).contains("matches no Command that runs later")
    );
}

#[test]
fn exports_variables_with_and_without_prefix() {
    let (report, _) = run_json(
        Mode::Change,
        json!([
            {"id": "x", "check": "not yet", "change": "one", "envPrefix": "X"},
            {"id": "same", "check": "true"},
            {"id": "read", "always": true, "change": "$X_CHECK $X_CHECK_OUT $X_CHANGE $X_CHANGE_OUT $_CHECK $_CHECK_OUT $_CHANGE $_CHANGE_OUT $Y_CHECK"},
        ]),
    );
    assert_eq!(
        report.results[2].output.split('|').skip(1).collect::<Vec<_>>(),
        [
            "X_CHECK=1",
            "X_CHECK_OUT=not yet",
            "X_CHANGE=0",
            "X_CHANGE_OUT=one",
            "_CHECK=1",
            "_CHECK_OUT=true",
            "_CHANGE=0",
            "_CHANGE_OUT=one",
            "Y_CHECK=unset",
        ]
    );
    let (report, _) = run_json(
        Mode::Change,
        json!([
            {"id": "x", "always": true, "change": "no", "envPrefix": "X"},
            {"id": "y", "always": true, "change": "$X_CHANGE $X_CHANGE_OUT $A", "env": {"A": "own"}},
        ]),
    );
    assert!(report.results[1].output.ends_with("|X_CHANGE=1|X_CHANGE_OUT=no|A=own"));
}

#[test]
fn events_use_the_output() {
    let (report, shell) = run_from(
        Mode::Change,
        None,
        json!([
            {"id": "x", "always": true, "change": "one", "onChange": "etcha:runVar_kernel"},
            {"id": "y", "always": true, "change": "two", "onChange": ["etcha:buildManifest", "etcha:stdout"]},
            {"id": "z", "always": true, "change": "three", "onChange": ["etcha:buildManifest"]},
            {"id": "f", "always": true, "change": "no", "onFail": ["etcha:stderr"]},
        ]),
    );
    assert_eq!(report.run_vars["kernel"], "one");
    assert_eq!(report.build_manifest, "two\nthree\n");
    assert_eq!(shell.printed, [(Stream::Stdout, "two".into()), (Stream::Stderr, "no".into())]);
}

#[test]
fn removes_what_is_gone_in_reverse_order() {
    let previous = json!([
        {"id": "kept", "check": "a", "change": "same", "remove": "never"},
        {"id": "triggered", "remove": "remove 1"},
        {"id": "not triggered", "remove": "never"},
        {"id": "no script", "check": "never"},
        {"id": "group", "commands": [
            {"id": "inside", "check": "there 2", "remove": "remove 2"},
            {"id": "kept inside", "always": true, "remove": "never"},
        ]},
        {"id": "absent", "check": "not there", "remove": "never"},
        {"id": "after", "always": true, "remove": "remove 4", "removeAfter": true},
        {"id": "changed", "check": "there 3", "change": "old", "remove": "remove 3", "onRemove": ["^triggered", "etcha:stdout"]},
        {"id": "ignored", "check": "there", "change": "old", "remove": "never"},
    ]);
    let (report, shell) = run_from(
        Mode::Change,
        Some(previous),
        json!([
            {"id": "kept", "check": "a", "change": "same"},
            {"id": "group", "commands": [{"id": "kept inside", "always": true}]},
            {"id": "changed", "check": "not there now", "change": "new"},
            {"id": "ignored", "change": "new", "changeIgnore": true},
        ]),
    );
    let expected = [
        "there 3",
        "remove 3",
        "not there",
        "there 2",
        "remove 2",
        "remove 1",
        "a",
        "not there now",
        "new",
        "remove 4",
    ];
    assert_eq!(shell.ran, expected);
    let removed: Vec<&str> = report.with_outcome(Outcome::Removed).map(|r| r.id.as_str()).collect();
    assert_eq!(removed, ["changed", "inside", "triggered", "after"]);
    assert_eq!(shell.printed, [(Stream::Stdout, "remove 3".into())]);
}

/// Etcha accepts such targets. The removal of a later Command has already been decided.
#[test]
fn a_target_of_a_removal_may_be_anywhere_in_the_list() {
    let commands = json!([
        {"id": "first", "remove": "remove 1"},
        {"id": "middle", "always": true, "remove": "remove 2", "onRemove": ["last", "first"]},
        {"id": "last", "remove": "never"},
    ]);
    assert_eq!(run_json(Mode::Change, commands.clone()).1, [""; 0]);
    let (_, shell) = run_from(Mode::Change, Some(commands), json!([]));
    assert_eq!(shell.ran, ["remove 2", "remove 1"]);
}

#[test]
fn a_failed_removal_ends_the_run() {
    let previous = json!([
        {"id": "x", "always": true, "remove": "never"},
        {"id": "y", "always": true, "remove": "no way"},
    ]);
    let (report, shell) = run_from(
        Mode::Change,
        Some(previous.clone()),
        json!([{"id": "z", "always": true, "change": "never"}]),
    );
    assert_eq!(shell.ran, ["no way"]);
    assert_eq!((report.failures().count(), report.results.len()), (1, 0));
    // A change that failed leaves what is removed after it.
    let previous = json!([{"id": "x", "always": true, "remove": "never", "removeAfter": true}]);
    let (_, shell) = run_from(
        Mode::Change,
        Some(previous),
        json!([{"id": "z", "always": true, "change": "no"}]),
    );
    assert_eq!(shell.ran, ["no"]);
}

#[test]
fn a_previous_pattern_that_would_be_refused_now_is_removed() {
    let previous = json!([{"id": "x", "always": true, "remove": "bye", "onRemove": ["missing"]}]);
    let (_, shell) = run_from(Mode::Change, Some(previous), json!([]));
    assert_eq!(shell.ran, ["bye"]);
}

#[test]
fn a_filter_selects_groups() {
    let commands = json!([
        {"id": "top", "always": true, "change": "top"},
        {"id": "web", "commands": [
            {"id": "a", "always": true, "change": "a"},
            {"id": "deep", "commands": [{"id": "b", "always": true, "change": "b"}]},
        ]},
        {"id": "db", "commands": [{"id": "c", "always": true, "change": "c"}]},
    ]);
    for (filter, expected) in [
        ("^ci > web", &["a", "b"][..]),
        ("web$", &["a"]),
        ("deep|db", &["b", "c"]),
        ("^ci$", &["top"]),
        ("", &["top", "a", "b", "c"]),
        ("other", &[]),
    ] {
        let mut shell = FakeShell::default();
        let filter_of = Filter::new(filter).unwrap();
        let options = Options { filter: Some(&filter_of), ..Options::new(Mode::Change, "ci") };
        run(&pattern(commands.clone()), None, &options, &mut shell).unwrap();
        assert_eq!(shell.ran, expected, "{filter}");
    }
}

#[test]
fn a_command_has_the_exec_of_its_list_or_its_own() {
    let mut shell = FakeShell::default();
    let value = json!({
        "exec": {"command": "/bin/bash", "flags": "-c", "env": {"A": "1", "B": "1"}},
        "runExec": {"command": "/bin/sh -e -c", "env": {"B": "2"}},
        "buildExec": {"command": "/bin/false"},
        "run": [
            {"id": "x", "always": true, "change": "$A $B", "stdin": "input"},
            {"id": "y", "always": true, "change": "$A $B", "exec": {"command": "python3 -c", "env": {"A": "3"}}},
            {"id": "z", "always": true, "change": "$A $B", "exec": {"env": {"A": "4"}}},
        ],
    });
    let pattern = Pattern::from_value(&value).unwrap();
    let report = run(&pattern, None, &Options::new(Mode::Change, "ci"), &mut shell).unwrap();
    assert_eq!(shell.execs, ["/bin/sh -e -c", "python3 -c", "/bin/sh -e -c"]);
    let outputs: Vec<&str> =
        report.results.iter().map(|r| r.output.split_once('|').unwrap().1).collect();
    assert_eq!(outputs, ["A=1|B=2input", "A=3|B=2", "A=4|B=2"]);

    let refused = |exec: &str| {
        let mut value = value.clone();
        value[exec]["allowOverride"] = json!(false);
        let pattern = Pattern::from_value(&value).unwrap();
        let options = Options::new(Mode::Change, "ci");
        run(&pattern, None, &options, &mut FakeShell::default()).unwrap_err().to_string()
    };
    assert!(refused("runExec").starts_with("run[1].exec of the Pattern is not allowed"));
    assert!(refused("exec").starts_with("runExec of the Pattern is not allowed"));
    assert_eq!(
        Exec::default().words().collect::<Vec<_>>(),
        ["/usr/bin/bash", "-e", "-o", "pipefail", "-c"]
    );
}

#[test]
fn the_build_list_has_an_exec_of_its_own() {
    let mut shell = FakeShell::default();
    let value = json!({"buildExec": {"command": "/bin/sh -c"}, "build": ["a"], "run": ["never"]});
    let pattern = Pattern::from_value(&value).unwrap();
    let options = Options { list: List::Build, ..Options::new(Mode::Change, "") };
    run(&pattern, None, &options, &mut shell).unwrap();
    assert_eq!((shell.ran, shell.execs), (vec!["a".to_owned()], vec!["/bin/sh -c".to_owned()]));
}

#[test]
fn bounds_the_depth_and_the_number_of_commands() {
    let mut deep = json!([{"id": "x"}]);
    for _ in 0..20 {
        deep = json!([deep]);
    }
    assert!(error(deep).contains("levels deep"));
    let many =
        |count: usize| Value::Array((0..count).map(|n| json!({"id": n.to_string()})).collect());
    assert!(error(many(1001)).contains("more than 1000 Commands"));
    assert_eq!(run_json(Mode::Change, many(1000)).0.results.len(), 1000);
    let targets = |commands: usize| {
        let target = vec!["^last$"; 100];
        let command = |n: usize| json!({"id": n.to_string(), "onChange": target, "onFail": target});
        let commands = (0..commands).map(command).chain([json!({"id": "last"})]);
        Value::Array(commands.collect())
    };
    assert!(error(targets(11)).contains("more than 2000 targets"));
    assert_eq!(run_json(Mode::Change, targets(10)).0.results.len(), 11);
    // A group need not have a Command.
    let groups: Vec<Value> = (0..1001).map(|_| json!({"id": "g", "commands": [[]]})).collect();
    assert!(error(Value::Array(groups)).contains("more than 1000 Commands"));
}
