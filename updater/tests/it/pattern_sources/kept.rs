//! What is accepted runs again, after a reboot and at an interval.

use std::fs;

use protocol::PrivateKey;
use serde_json::json;

use super::host::Host;
use crate::docs::{documented, keys};
use crate::world::{now, peak_memory};

#[test]
fn a_pattern_runs_again_after_a_reboot_without_its_server() {
    let host = Host::new();
    host.publish(host.token(10, json!([host.command("a")])));
    host.run().ended(0);
    let status = host.status();
    assert_eq!((&status["state"], &status["kept"]), (&json!("ok"), &json!("esp")));
    assert_eq!(status["pattern"]["from"], "pull");
    assert_eq!(status["pattern"]["key"], host.key.id());
    assert_eq!(status["lastChange"]["changed"], json!(["a"]));
    assert_eq!(status["lastChange"]["key"], host.key.id());
    assert!(status["next"].as_u64().unwrap() > now() + 3000, "{status}");
    let documented = &documented("status")["sources"]["web"];
    assert_eq!(keys(&status), keys(documented));
    for member in ["pattern", "lastChange", "pull"] {
        assert_eq!(keys(&status[member]), keys(&documented[member]), "{member}");
    }
    let commands = host.world.commands();
    let timer = commands.lines().find(|line| line.contains("--unit=etchaos-sources-again"));
    assert!(timer.is_some_and(|line| line.contains("etchaos-pull.service")), "{commands}");

    host.reboot();
    host.world.cdn.remove(super::host::PATH);
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    // It runs again, and changes nothing that is as it should be.
    fs::remove_file(host.world.path("state/a")).unwrap();
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.state(), ["a"]);
    let change = host.status()["lastChange"].clone();
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.status()["lastChange"], change);
    let text = host.world.run(&["status"]).stdout;
    for part in ["source      web  ok", "pulled, signed with", "kept on the ESP", "changed 1 (a)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_kept_pattern_does_not_expire() {
    let host = Host::new();
    let claims = host.claims(100, json!([host.command("a")]));
    host.publish(host.sign(&protocol::Claims { exp: Some(now() - 50), ..claims }));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    // The tolerance for different clocks is a minute.
    std::thread::sleep(std::time::Duration::from_secs(11));
    host.reboot();
    // The server still offers it.
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    assert_eq!(host.status()["pull"]["error"], json!(null));
}

#[test]
fn a_pattern_whose_key_was_revoked_is_not_run() {
    let host = Host::new();
    host.publish(host.token(10, json!([host.command("a")])));
    host.run().ended(0);
    host.reboot();
    let mut web = host.web();
    web["keys"] = json!([PrivateKey::generate().public().to_string()]);
    host.configure(json!({"web": web}));
    let ran = host.run().ended(1);
    assert!(ran.stderr.contains("not trusted here"), "{}", ran.stderr);
    assert!(host.state().is_empty());
    let status = host.status();
    assert_eq!((&status["state"], &status["pattern"]["key"]), (&json!("failed"), &json!(null)));
    // The key is trusted again.
    host.configure(json!({"web": host.web()}));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
}

#[test]
fn a_failing_pattern_is_unhealthy_only_if_configured() {
    let host = Host::new();
    host.publish(
        host.token(10, json!([{"id": "f", "check": "false", "change": "echo SECRET; exit 3"}])),
    );
    host.run().ended(1);
    assert_eq!(host.status()["failed"], json!(["f"]));
    host.world.run(&["health"]).ended(0);
    let mut web = host.web();
    web["unhealthy"] = json!(true);
    host.configure(json!({"web": web}));
    let ran = host.world.run(&["health"]).ended(1);
    assert!(ran.stderr.contains("the source web failed"), "{}", ran.stderr);
    host.publish(host.token(5, json!([host.command("a")])));
    host.run().ended(0);
    host.world.run(&["health"]).ended(0);
    host.reboot();
    let ran = host.world.run(&["health"]).ended(1);
    assert!(ran.stderr.contains("the source web has not run yet"), "{}", ran.stderr);
    // The output of Commands is for root only.
    let status = host.world.run(&["status"]).stdout;
    assert!(!status.contains("SECRET"), "{status}");
}

#[test]
fn output_without_end_takes_no_memory() {
    let host = Host::new();
    let endless = json!([{"id": "endless", "check": "false", "change": "timeout 2 yes || true"}, host.command("a")]);
    host.publish(host.token(10, endless));
    host.pull().ended(0);
    let mut child = host.world.command(&["sources"]).spawn().unwrap();
    let peak = peak_memory(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(peak < 40_000, "{peak} KiB");
    assert_eq!(host.state(), ["a"]);
    assert!(host.status().to_string().len() < 2000);
}

#[test]
fn commands_of_the_configuration_run_before_the_pattern() {
    let host = Host::new();
    let mut web = host.web();
    web["commands"] = json!([host.command("first")]);
    host.configure(json!({"web": web}));
    let path = host.world.path("state/first");
    let depends =
        json!({"id": "depends", "check": "false", "change": format!("test -e {}", path.display())});
    host.publish(host.token(10, json!([depends])));
    host.run().ended(0);
    assert_eq!(host.state(), ["first"]);
    web["commands"] = json!([host.command("second")]);
    host.configure(json!({"web": web}));
    host.run().ended(1);
    // The Pattern fails, and what the configuration has no longer is removed nevertheless.
    assert_eq!(host.state(), ["second"]);
    assert_eq!(host.status()["failed"], json!(["depends"]));
}

#[test]
fn only_sources_that_are_due_run() {
    let host = Host::new();
    let mut web = host.web();
    web["interval"] = json!("5min");
    let slow = json!({"commands": [host.command("slow")], "interval": "7d"});
    host.configure(json!({"web": web, "slow": slow}));
    host.publish(host.token(10, json!([host.command("a")])));
    host.run().ended(0);
    let commands = host.world.commands();
    let at: u64 = commands
        .split("--on-calendar=@")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((now() + 250..=now() + 300).contains(&at), "{commands}");
    fs::remove_file(host.world.path("state/slow")).unwrap();
    host.world.run(&["sources"]).ended(0);
    assert_eq!(host.state(), ["a"]);
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.state(), ["a", "slow"]);
}

#[test]
fn a_source_that_takes_long_does_not_hide_the_result_of_another() {
    let host = Host::new();
    let go = host.world.path("go");
    let wait = json!({"id": "wait", "check": format!("until test -e {}; do sleep 0.1; done", go.display())});
    let quick = json!({"commands": [host.command("quick")], "unhealthy": true});
    host.configure(json!({"a": quick, "b": {"commands": [wait]}}));
    let mut running = host.world.command(&["sources", "--all"]).spawn().unwrap();
    let since = std::time::Instant::now();
    while host.world.run(&["health"]).code != 0 {
        assert!(since.elapsed().as_secs() < 60, "the host waits for the other source");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert!(running.try_wait().unwrap().is_none());
    fs::write(go, "").unwrap();
    assert!(running.wait().unwrap().success());
}

#[test]
fn sources_are_due_after_the_clock_was_set_back() {
    let host = Host::new();
    host.configure(json!({"web": {"commands": [host.command("a")]}}));
    host.world.run(&["sources"]).ended(0);
    fs::remove_file(host.world.path("state/a")).unwrap();
    let path = host.world.path("host/run/etchaos-updater/sources.json");
    let mut runs: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for member in ["time", "next"] {
        let time = runs["sources"]["web"][member].as_u64().unwrap();
        runs["sources"]["web"][member] = json!(time + 100_000_000);
    }
    fs::write(path, runs.to_string()).unwrap();
    host.world.run(&["sources"]).ended(0);
    assert_eq!(host.state(), ["a"]);
}
