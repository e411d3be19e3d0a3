use super::*;
use crate::pattern::PatternFiles;
use serde_json::json;

fn read(value: Value) -> Result<Pattern, String> {
    pattern(&value).map_err(|error| error.to_string())
}

fn error(value: Value) -> String {
    read(value).unwrap_err()
}

#[test]
fn reads_all_fields() {
    let value = json!({
        "audience": "one", "issuer": "i", "subject": "s", "id": "j", "expiresIn": "5m",
        "buildOutput": "x.jwt", "runVars": {"a": [1]},
        "buildExec": {"command": "/bin/sh -c"},
        "runExec": {"command": "/bin/bash", "flags": "-c", "workDir": "/", "allowOverride": true, "envInherit": true},
        "build": ["make"],
        "run": [[{
            "id": "a", "check": "c", "change": "d", "remove": "r", "stdin": "in", "always": true,
            "changeIgnore": true, "removeAfter": true, "onChange": "b", "onFail": ["b"], "onRemove": [],
            "envPrefix": "P_1", "env": {"X": "y"}, "exec": {"env": {"Z": ""}}, "commands": [],
        }], {"id": "b", "check": null}],
    });
    let pattern = read(value).unwrap();
    assert_eq!((&*pattern.audience, pattern.expires_in), (&["one".to_owned()][..], Some(300)));
    assert_eq!(pattern.exec, Exec::default());
    let Entry::List(list) = &pattern.run[0] else { panic!("{pattern:?}") };
    let Entry::Command(command) = &list[0] else { panic!("{list:?}") };
    assert_eq!(
        (&*command.on_change, &*command.on_fail),
        (&["b".to_owned()][..], &["b".to_owned()][..])
    );
    assert!(command.always && command.change_ignore && command.remove_after);
    assert_eq!(PatternFiles::from(&pattern).pattern().as_ref(), Ok(&pattern));
}

#[test]
fn reads_short_forms() {
    let pattern = read(json!(["echo hi", null, {"id": "x", "onChange": [null]}])).unwrap();
    assert_eq!(pattern.run.len(), 2);
    let Entry::Command(command) = &pattern.run[0] else { panic!("{pattern:?}") };
    let text = "echo hi".to_owned();
    let expected =
        Command { id: text.clone(), change: Some(text), always: true, ..Command::default() };
    assert_eq!(**command, expected);
    for (expires, expected) in [
        (json!({"expiresInSec": 60}), Some(60)),
        (json!({"expiresIn": 60}), Some(60)),
        (json!({"expiresIn": "1h"}), Some(3600)),
        (json!({"expiresIn": ""}), None),
        (json!({"expiresInSec": 0}), None),
        (json!({}), None),
    ] {
        assert_eq!(read(expires).unwrap().expires_in, expected);
    }
    assert_eq!(read(json!({"exec": {}})).unwrap().exec, Exec::default());
    assert_eq!(read(json!({"exec": {"command": "/bin/sh -c"}})).unwrap().exec.flags, "");
}

#[test]
fn names_what_is_wrong_with_its_path() {
    let run = |command: Value| json!({"run": [{"id": "x"}, [command]]});
    for (value, expected) in [
        (
            json!({"foo": 1}),
            "foo of the Pattern is not supported; the fields of a Pattern are: audience",
        ),
        (json!(7), "the top level of the Pattern is a number, expected an object"),
        (json!({"run": {}}), "run of the Pattern is an object, expected a list of Commands"),
        (run(json!({"id": "y", "foo": 1})), "run[1][0].foo of the Pattern is not supported"),
        (
            run(json!({"id": "y", "parallel": true})),
            "run[1][0].parallel of the Pattern is not supported",
        ),
        (run(json!({"change": "y"})), "run[1][0].id of the Pattern is missing"),
        (run(json!({"id": ""})), "run[1][0].id of the Pattern is missing"),
        (
            run(json!({"id": "y", "always": 1})),
            "run[1][0].always of the Pattern is a number, expected true or false",
        ),
        (
            run(json!({"id": "y", "check": ["x"]})),
            "run[1][0].check of the Pattern is a list, expected a text",
        ),
        (
            run(json!({"id": "y", "change": "a\0b"})),
            "run[1][0].change of the Pattern has a NUL character",
        ),
        (
            run(json!({"id": "y", "onChange": [1]})),
            "run[1][0].onChange[0] of the Pattern is a number",
        ),
        (
            run(json!({"id": "y", "onFail": {}})),
            "run[1][0].onFail of the Pattern is an object, expected a text or a list",
        ),
        (
            run(json!({"id": "y", "envPrefix": "1X"})),
            "run[1][0].envPrefix of the Pattern is not the name",
        ),
        (
            run(json!({"id": "y", "env": {"A=B": ""}})),
            "run[1][0].env.A=B of the Pattern is not the name",
        ),
        (
            run(json!({"id": "y", "exec": {"user": "nobody"}})),
            "run[1][0].exec.user of the Pattern is not supported",
        ),
        (
            run(json!({"id": "y", "exec": {"flags": "-c"}})),
            "run[1][0].exec.command of the Pattern is missing",
        ),
        (
            run(json!({"id": "g", "commands": [{"id": "a", "x": 1}]})),
            "run[1][0].commands[0].x of the Pattern",
        ),
        (
            run(json!({"id": "g", "always": true, "commands": [{"id": "a"}]})),
            "run[1][0].always of the Pattern has no effect beside \"commands\"",
        ),
        (
            json!({"runExec": {"containerImage": "x"}}),
            "runExec.containerImage of the Pattern is not supported",
        ),
        (
            json!({"runExec": {"envInherit": false}}),
            "runExec.envInherit of the Pattern is false, which is not supported",
        ),
        (json!({"expiresIn": "soon"}), "expiresIn of the Pattern is not a duration"),
        (json!({"expiresIn": "5m", "expiresInSec": 300}), "leave one of them out"),
        (
            json!({"expiresInSec": "5m"}),
            "expiresInSec of the Pattern is a text, expected a whole number",
        ),
        (json!({"runVars": []}), "runVars of the Pattern is a list, expected an object"),
    ] {
        let error = error(value.clone());
        assert!(error.contains(expected), "{value}: {error}");
    }
}

#[test]
fn bounds_sizes() {
    let long = |count: usize| "x".repeat(count);
    let command = |name: &str, value: Value| json!({"run": [{"id": "a", name: value}]});
    for (value, is_allowed) in [
        (command("change", json!(long(SCRIPT_MAX))), true),
        (command("change", json!(long(SCRIPT_MAX + 1))), false),
        (command("stdin", json!(long(SCRIPT_MAX + 1))), true),
        (command("stdin", json!(long(STDIN_MAX + 1))), false),
        (command("onChange", json!(vec!["b"; TARGETS_MAX])), true),
        (command("onChange", json!(vec!["b"; TARGETS_MAX + 1])), false),
        (command("onChange", json!(long(NAME_MAX + 1))), false),
        (command("envPrefix", json!(long(257))), false),
        (command("env", json!({"A": long(SCRIPT_MAX - 4), "B": ""})), false),
        (json!([long(NAME_MAX)]), true),
        (json!([long(NAME_MAX + 1)]), false),
    ] {
        assert_eq!(read(value).is_ok(), is_allowed);
    }
    let many = |count: usize| json!([["x"], {"id": "g", "commands": vec!["x"; count - 2]}]);
    assert!(read(json!({"build": many(COMMANDS_MAX), "run": many(COMMANDS_MAX)})).is_ok());
    for name in ["build", "run"] {
        assert!(error(json!({name: many(COMMANDS_MAX + 1)})).contains("more than 1000 Commands"));
    }
    let nested = |depth: usize| (0..depth).fold(json!([]), |inner, _| json!([inner]));
    assert!(read(json!({"run": nested(DEPTH_MAX)})).is_ok());
    assert!(error(json!({"run": nested(DEPTH_MAX + 1)})).contains("levels deep"));
}

#[test]
fn reads_the_known_fields_of_an_object_with_others() {
    let value = json!({"variant": "deb", "packages": [], "run": ["x"], "expiresIn": 60});
    let pattern = Pattern::from_fields_of(value.as_object().unwrap()).unwrap();
    assert_eq!((pattern.run.len(), pattern.expires_in), (1, Some(60)));
    let missing = PatternFiles { entrypoint: "x".into(), files: BTreeMap::new() };
    assert!(missing.pattern().is_err());
}
