use protocol::pattern::{Entry, Mode, Options, run};

use super::*;
use crate::shell::LimitedShell;

fn input(files: &[(&str, &str)]) -> Input {
    let entrypoint = files[0].0.to_owned();
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let vars = Map::from_iter([("answer".to_owned(), json!([42, {"deep": true}]))]);
    Input {
        pattern: PatternFiles { entrypoint, files },
        config: config("ci", &vars),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]),
    }
}

fn eval(files: &[(&str, &str)]) -> Result<String, String> {
    evaluate(&input(files), Limits::default())
}

fn error(text: &str) -> String {
    eval(&[("/main.jsonnet", text)]).unwrap_err()
}

#[test]
fn reads_json_without_a_child() {
    // The test program cannot be the child, so this would fail.
    let files = |text: &str| PatternFiles {
        entrypoint: "main.jsonnet".into(),
        files: BTreeMap::from([("/main.jsonnet".to_owned(), text.to_owned())]),
    };
    let pattern = render(&files(r#"{"run": ["echo hi"]}"#), "ci", &Map::new()).unwrap();
    assert_eq!(pattern.run.len(), 1);
    let error = render(&files(r#"{"run": [{"id": "x", "foo": 1}]}"#), "ci", &Map::new());
    assert!(
        error.unwrap_err().to_string().starts_with("run[0].foo of the Pattern is not supported")
    );
}

#[test]
fn evaluates_imports_among_the_files() {
    let files = [
        (
            "/patterns/main.jsonnet",
            "local x = import '../lib/x.libsonnet'; { run: [x('a', importstr 'x.txt')] }",
        ),
        ("/patterns/x.txt", "content"),
        (
            "/lib/x.libsonnet",
            "local y = import 'y.libsonnet'; function(id, text) { id: id, change: y + text, bin: importbin '/lib/y.libsonnet' }",
        ),
        ("/lib/y.libsonnet", "'1'"),
    ];
    let json = eval(&files).unwrap();
    assert_eq!(json, r#"{"run": [{"bin": [39, 49, 39], "change": "1content", "id": "a"}]}"#);
}

/// Etcha's client puts the command between quotes as it is.
#[test]
fn evaluates_an_ad_hoc_command_of_two_lines() {
    let text = "{run:[{always: true, change: \"echo a\n\techo b\", id: \"etcha push\"}]}";
    let json: Value = serde_json::from_str(&eval(&[("/main.jsonnet", text)]).unwrap()).unwrap();
    assert_eq!(json["run"][0]["change"], "echo a\n\techo b");
}

#[test]
fn finds_no_file_of_the_host() {
    for import in
        ["import '/etc/hostname'", "importstr '../../etc/passwd'", "importbin '/proc/self/environ'"]
    {
        let error = error(import);
        assert!(error.starts_with("/main.jsonnet:1:1: the token has no file"), "{error}");
    }
}

#[test]
fn gives_facts_and_variables() {
    let text = "local config = std.native('getConfig')();
        {
          vars: config.vars.answer[1].deep && config.vars.answer[0] == 42,
          source: config.vars.source,
          os: config.vars.sysinfo.osType + std.native('getOS')(),
          arch: std.native('getArch')() == config.vars.sysinfo.runtimeArch,
          path: std.native('getEnv')('PATH', null),
          unset: std.native('getEnv')('X', 'fallback'),
          directory: std.native('getPath')(),
          matches: [std.native('regexMatch')('^a+$', text) for text in ['aa', 'ab']],
          rendered: std.native('render')('{a: 1 + 1}').a,
        }";
    let json: Value = serde_json::from_str(&eval(&[("/x/main.jsonnet", text)]).unwrap()).unwrap();
    let expected = json!({
        "vars": true, "source": "ci", "os": "linuxlinux", "arch": true, "path": "/usr/bin",
        "unset": "fallback", "directory": "/x", "matches": [true, false], "rendered": 2,
    });
    assert_eq!(json, expected);
}

#[test]
fn refuses_natives_that_leave_the_process() {
    for (call, said) in [
        ("getFile')('/etc/passwd', null)", "reads no files"),
        ("getCmd')('id', null)", "runs no programs"),
        ("getRecord')('a', 'example.com', null)", "asks no servers"),
        ("randStr')(10)", "each render"),
        ("regexMatch')('(', 'x')", "is not a regular expression"),
        ("render')(1)", "is not a text"),
        ("getEnv')('http_proxy', null)", "no variable \"http_proxy\""),
        ("getSecret')('x')", "the native functions of a host are"),
    ] {
        let error = error(&format!("std.native('{call}"));
        assert!(error.starts_with("/main.jsonnet:1:") && error.contains(said), "{call}: {error}");
    }
}

#[test]
fn errors_name_file_line_and_column() {
    for (text, expected) in [
        ("{\n  run: [}\n", "/main.jsonnet:2:9: unexpected token"),
        ("{\n  run: x }", "/main.jsonnet:2:8: unknown variable \"x\""),
        ("{ a: 'x", "/main.jsonnet:1:6: unfinished string"),
        ("\n\nerror 'the reason'", "/main.jsonnet:3:1: the reason"),
        ("local a = {};\na.b", "/main.jsonnet:2:1: the object has no field \"b\""),
        ("{ a: self.b, b: self.a }", "the value depends on itself"),
        ("import 'main.jsonnet'", "a file imports itself"),
        ("local f(x) = f(x + 1) + 1; f(0)", "nested too deep"),
        ("{ a: function() 1 }", "contains a function"),
        ("std.extVar('x')", "no external variable \"x\""),
        (
            "local r(n) = std.native('render')(\"std.native('render')(importstr 'main.jsonnet')\"); r(1)",
            "levels deep",
        ),
        ("[1, 2][5]", "/main.jsonnet:1:1: numeric index out of range"),
        ("assert false : 'no'; 1", "an assertion failed: no"),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn passes_no_secrets_of_the_environment() {
    let env = environment(|name| Some(format!("value of {name}")));
    assert_eq!(env.len(), ENVIRONMENT.len());
    assert!(!env.contains_key("http_proxy"));
    assert!(environment(|_| None).is_empty());
}

/// The example of docs/operators.md.
#[test]
fn renders_what_the_page_shows() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operators.md");
    let page = std::fs::read_to_string(page).unwrap();
    let text = page.split("```jsonnet\n").nth(1).unwrap().split("```").next().unwrap();
    let mut input = input(&[("/main.jsonnet", text)]);
    input.config["vars"]["timeServer"] = json!("time.example.org");
    let json: Value = serde_json::from_str(&evaluate(&input, Limits::default()).unwrap()).unwrap();
    let pattern = Pattern::from_value(&json).unwrap();
    let [Entry::List(commands)] = &*pattern.run else { panic!("{pattern:?}") };
    let [Entry::Command(configure), Entry::Command(restart)] = &**commands else {
        panic!("{pattern:?}")
    };
    assert_eq!(configure.stdin.as_deref(), Some("server time.example.org iburst"));
    assert_eq!(restart.id, "restart chrony");
    // The targets exist.
    let options = Options::new(Mode::Check, "ops");
    assert!(run(&pattern, None, &options, &mut LimitedShell::new()).is_ok());
}
