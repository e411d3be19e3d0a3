//! When the host is rebooted into what was installed.

use serde_json::json;

use crate::world::{World, now};

const SESSION: &str = "USER=ann\nSTATE=active\nCLASS=user\n";
const INHIBITOR: &str = "WHAT=shutdown\nMODE=block\nWHO=backup\nWHY=nightly\n";

fn world(reboot: serde_json::Value) -> World {
    let world = World::new();
    world.publish(2);
    world.write("esp/etchaos/config.json", json!({"reboot": reboot}).to_string());
    world
}

/// An update that leaves the reboot to a timer: when it comes, in Unix seconds.
#[track_caller]
fn woken(world: &World, why: &str) -> u64 {
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stdout.contains("has to wait") && ran.stdout.contains(why), "{}", ran.stdout);
    let commands = world.commands();
    let [stop, run] = commands.lines().collect::<Vec<_>>()[..] else { panic!("{commands}") };
    assert_eq!(stop, "systemctl stop etchaos-updater-again.timer");
    assert!(run.ends_with("systemctl start --no-block etchaos-updater.service"), "{run}");
    let at = run.split("--on-calendar=@").nth(1).and_then(|rest| rest.split(' ').next());
    at.unwrap().parse().unwrap()
}

#[test]
fn users_and_inhibitors_are_waited_for() {
    for (path, text, why) in [
        ("host/run/systemd/sessions/1", SESSION, "ann is logged in"),
        ("host/run/systemd/inhibit/1", INHIBITOR, "backup inhibits a shutdown (nightly)"),
    ] {
        let world = world(json!("idle"));
        world.write(path, text);
        let before = now();
        assert!((before + 900..=now() + 900).contains(&woken(&world, why)));
        // It is decided anew by every run: nothing is remembered but the trial.
        std::fs::remove_file(world.path(path)).unwrap();
        assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
        assert_eq!(world.commands(), "systemctl reboot --check-inhibitors=no\n");
    }
    let world = world(json!("now"));
    world.write("host/run/systemd/sessions/1", SESSION);
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
}

/// Answers that systemd-analyze gives; that it does give them is tested where it is asked.
fn opens_at(world: &World, line: &str) {
    world.program("systemd-analyze", &format!("#!/bin/sh\necho '    Next elapse: {line}'\n"));
}

#[test]
fn a_window_is_waited_for() {
    let window = json!({"window": "Sat 02:00 UTC", "duration": "2h"});
    let world = world(window);
    opens_at(&world, "Fri 2100-12-31 23:59:59 UTC");
    assert_eq!(woken(&world, "window is shut"), 4_133_980_799);
    // Open for as long as it is.
    opens_at(&world, "Sat 2000-01-01 00:00:00 UTC");
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    world.write("host/run/systemd/sessions/1", SESSION);
    woken(&world, "ann is logged in");
    opens_at(&world, "never");
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stdout.contains("never opens again"), "{}", ran.stdout);
    assert_eq!(world.commands(), "");
}

#[test]
fn a_window_that_is_none_is_found_before_anything_is_installed() {
    let world = world(json!({"window": "SECRET", "duration": "2h"}));
    world.program("systemd-analyze", "#!/bin/sh\necho \"Failed to parse '$5'\" >&2; exit 1\n");
    let before = world.tree();
    let ran = world.run(&["update"]);
    ran.failed(&["\"window\" that systemd cannot read", "systemd-analyze calendar"]);
    assert!(!ran.stderr.contains("SECRET"), "{}", ran.stderr);
    assert_eq!(world.tree(), before);
}
