//! When the host is rebooted into what was installed.

use protocol::esp::Slot;
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
        let at = woken(&world, why);
        assert!((before + 900..=now() + 900).contains(&at), "{before} {at}");
        // It is decided anew by every run: nothing is remembered but the trial.
        std::fs::remove_file(world.path(path)).unwrap();
        assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
        assert_eq!(world.commands(), "systemctl reboot\n");
    }
    let world = world(json!("now"));
    world.write("host/run/systemd/sessions/1", SESSION);
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
}

#[test]
fn a_reboot_that_is_outstanding_does_not_wait_for_the_cdn() {
    let world = world(json!("idle"));
    world.write("host/run/systemd/sessions/1", SESSION);
    woken(&world, "ann is logged in");
    world.publish_token("an error page");
    // It is still put off while it has to be, and still not done where nothing is to be done.
    world.run(&["update"]).failed(&["manifest"]);
    assert!(world.commands().contains("--on-calendar=@"));
    std::fs::remove_file(world.path("host/run/systemd/sessions/1")).unwrap();
    for refused in [&["update", "--dry-run"][..], &["update", "--no-reboot"], &["check"]] {
        world.run(refused).failed(&["manifest"]);
        assert!(!world.rebooted(), "{refused:?}");
    }
    let ran = world.run(&["update"]);
    ran.failed(&["manifest", "rebooting into deb_"]);
    assert_eq!(world.commands(), "systemctl reboot\n");
    // It was tried: that is over, or goes on without us.
    world.on_trial(Slot::A, Slot::B, 0);
    world.run(&["update"]).failed(&["manifest"]);
    assert!(!world.rebooted());
    world.on_trial(Slot::A, Slot::B, 2);
    world.boot(Slot::B);
    world.run(&["update"]).failed(&["manifest"]);
    assert!(!world.rebooted());
    // What is not whole is not booted.
    world.boot(Slot::A);
    std::fs::write(world.esp("etchaos/b/initrd"), "short").unwrap();
    world.run(&["update"]).failed(&["manifest"]);
    assert!(!world.rebooted());
}

#[test]
fn who_does_not_wait_for_inhibitors_is_not_stopped_by_them() {
    // As systemd 257 answers, where an inhibitor is held and polkit is not there.
    let refuses = |world: &World| {
        let log = world.path("commands");
        let script = format!(
            "#!/bin/sh\necho systemctl \"$@\" >>{}\n[ \"$1\" != reboot ] || {{ echo 'Access denied' >&2; exit 1; }}\n",
            log.display()
        );
        world.program("systemctl", &script);
    };
    let now = world(json!("now"));
    refuses(&now);
    now.run(&["update"]).ended(0);
    let commands = now.commands();
    assert!(commands.contains("--job-mode=replace-irreversibly reboot.target"), "{commands}");
    // An inhibitor that was taken since the decision: the next run decides anew.
    let idle = world(json!("idle"));
    refuses(&idle);
    idle.run(&["update"]).failed(&["systemctl reboot failed", "Access denied"]);
    assert_eq!(idle.commands(), "systemctl reboot\n");
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
    world.run(&["config"]).failed(&["\"window\" that systemd cannot read"]);
    // Units are skipped or not, whatever the window is.
    world.run(&["config", "--require", "cdn"]).ended(0);
}
