//! Jsonnet in pushed Patterns, which a limited process renders.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The longest time that any Jsonnet may take here. The limit of the process is 5 s of processor time, which is much
/// longer by the clock on a machine that does other things; the limit by the clock is that of its parent.
const LONGEST: Duration = Duration::from_secs(300);

/// Renders Jsonnet in the process that hosts use. Returns what it printed, and how it ended.
fn render(files: &Value) -> (String, std::process::ExitStatus) {
    let input = json!({
        "pattern": {"entrypoint": "/main.jsonnet", "files": files}, "config": {"vars": {}}, "env": {},
    });
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_etchaos-render"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    (String::from_utf8(output.stdout).unwrap(), output.status)
}

fn render_main(text: &str) -> (String, std::process::ExitStatus) {
    render(&json!({ "/main.jsonnet": text }))
}

#[test]
fn renders_an_ad_hoc_command_of_the_client() {
    let text = "{ run: [{ id: 'etcha push', always: true, change: |||\n  echo hi\n||| }] }";
    let (answer, status) = render_main(text);
    assert!(status.success());
    let expected = r#"+{"run": [{"always": true, "change": "echo hi\n", "id": "etcha push"}]}"#;
    assert_eq!(answer, expected);
}

#[test]
fn an_endless_pattern_ends_in_bounded_time() {
    // Each of these runs until the kernel ends the process, by the limit on processor time or memory.
    for text in [
        "local f(x) = f(x + 1) tailstrict; f(0)",
        "std.foldl(function(a, b) a, std.range(0, 1e15), 0)",
        "std.foldl(function(a, b) std.trace('endless', a), std.range(0, 1e8), 0)",
        "local double(text, n) = if n == 0 then text else double(text + text, n - 1); double('x', 60)",
        "std.repeat([1, 2, 3, 4, 5, 6, 7, 8], 1e12)",
        "[x + y + z for x in std.range(0, 1e5) for y in std.range(0, 1e5) for z in std.range(0, 1e5)]",
        &"[".repeat(900_000),
    ] {
        let (answer, status) = render_main(text);
        let head: String = text.chars().take(80).collect();
        // A mistake that the evaluator finds itself is an answer, and an end by a limit is none.
        assert!(
            answer.starts_with('-') || (answer.is_empty() && !status.success()),
            "{head}: {answer:.100}"
        );
    }
}

#[test]
fn errors_of_the_evaluator_are_answers() {
    for (text, expected) in [
        ("import 'main.jsonnet'", "a file imports itself"),
        ("local f(x) = 1 + f(x + 1); f(0)", "nested too deep"),
        ("{ a: self.a }", "depends on itself"),
        ("importstr '/etc/os-release'", "no file \"/etc/os-release\""),
        ("std.native('getFile')('/etc/os-release', null)", "reads no files"),
        ("std.repeat('0123456789', 1e6)", "more than 4194304"),
    ] {
        let (answer, status) = render_main(text);
        assert!(status.success() && answer.starts_with('-'), "{text}: {answer:.100}");
        assert!(answer.contains(expected), "{text}: {answer:.300}");
    }
}

#[test]
fn the_process_cannot_use_much_memory() {
    // 300 MiB of text exceed the limit together with the program.
    let (answer, status) = render_main("std.length(std.repeat('0123456789', 30e6) + 'x')");
    assert!(!status.success() && answer.is_empty(), "{answer:.100}");
}
