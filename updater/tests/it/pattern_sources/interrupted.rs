//! A host that loses power, or a process that is killed, in the middle of a run.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::host::Host;

const LONG: Duration = Duration::from_secs(60);

/// Starts a run, and kills it as soon as the file `name` exists.
fn kill_when(host: &Host, name: &str) {
    let mut child: Child = host
        .world
        .command(&["sources", "--all"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    while !host.state().iter().any(|found| found == name) {
        assert!(since.elapsed() < LONG && child.try_wait().unwrap().is_none(), "no {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Returns a Command with a script that creates the file `name` and then waits, the first time that it runs.
fn stopping(host: &Host, name: &str, script: &str) -> String {
    let path = host.world.path("state").join(name);
    let path = path.display();
    format!("if test ! -e {path}; then touch {path}; sleep 60; fi; {script}")
}

fn remove_script(command: &Value) -> String {
    command["remove"].as_str().unwrap().to_owned()
}

#[test]
fn a_removal_that_is_killed_is_completed() {
    let host = Host::new();
    let [mut a, b] = ["a", "b"].map(|name| host.command(name));
    a["remove"] = json!(stopping(&host, "removing", &remove_script(&a)));
    host.publish(host.token(100, json!([a, b])));
    host.run().ended(0);
    host.publish(host.token(50, json!([host.command("c")])));
    host.pull().ended(0);
    kill_when(&host, "removing");
    // b was removed first, and a was not.
    assert_eq!(host.state(), ["a", "removing"]);
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.state(), ["c", "removing"]);
}

#[test]
fn a_change_that_is_killed_is_made_and_its_predecessor_not_forgotten() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    let mut b = host.command("b");
    b["change"] = json!(stopping(&host, "changing", b["change"].as_str().unwrap()));
    let mut a = host.command("a");
    // This removal runs after the Commands of the successor.
    a["removeAfter"] = json!(true);
    host.publish(host.token(90, json!([a])));
    host.run().ended(0);
    host.publish(host.token(50, json!([b])));
    host.pull().ended(0);
    kill_when(&host, "changing");
    assert_eq!(host.state(), ["a", "changing"]);
    // The successor of the Pattern that was interrupted has nothing of either.
    host.publish(host.token(40, json!([host.command("c")])));
    host.run().ended(0);
    assert_eq!(host.state(), ["c", "changing"]);
}

#[test]
fn one_process_runs_patterns_at_a_time() {
    let host = Host::new();
    let log = host.world.path("log");
    let log = log.display();
    let slow = format!("echo begin >>{log}; sleep 1; echo end >>{log}");
    host.publish(host.token(10, json!([{"id": "slow", "check": "false", "change": slow}])));
    host.pull().ended(0);
    let children: Vec<Child> = (0..3)
        .map(|_| host.world.command(&["sources", "--all"]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let log = std::fs::read_to_string(host.world.path("log")).unwrap();
    assert_eq!(log, "begin\nend\n".repeat(3));
}
