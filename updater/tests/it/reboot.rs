//! When the host is rebooted into an installed release.

use protocol::esp::Slot;
use serde_json::json;

use crate::world::{World, now};

const SESSION: &str = r#"[{"session":"1","user":"ann","class":"user"}]"#;
const INHIBITOR: &str = r#"[{"who":"backup","what":"shutdown","why":"nightly","mode":"block"}]"#;

fn world(reboot: serde_json::Value) -> World {
    let world = World::new();
    world.publish(2);
    world.write("esp/etchaos/config.json", json!({"reboot": reboot}).to_string());
    world
}

/// Runs an update that has to schedule the reboot, and returns the time of the timer in Unix seconds.
#[track_caller]
fn scheduled_time(world: &World, why: &str) -> u64 {
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
fn waits_for_users_and_inhibitors() {
    for (sessions, inhibitors, why) in [
        (SESSION, "[]", "ann is logged in"),
        ("[]", INHIBITOR, "backup inhibits a shutdown (nightly)"),
    ] {
        let world = world(json!("idle"));
        world.set_sessions(sessions);
        world.set_inhibitors(inhibitors);
        let before = now();
        let at = scheduled_time(&world, why);
        assert!((before + 900..=now() + 900).contains(&at), "{before} {at}");
        // Every run decides again; only the trial is stored.
        world.set_sessions("[]");
        world.set_inhibitors("[]");
        assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
        assert_eq!(world.commands(), "systemctl reboot\n");
    }
    let world = world(json!("now"));
    world.set_sessions(SESSION);
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
}

/// A host on which logind does not answer must not be rebooted while a user may be logged in.
#[test]
fn waits_if_logind_cannot_be_asked() {
    let fail = "#!/bin/sh\necho 'Failed to connect to bus' >&2; exit 1\n";
    for (failing, why) in [
        (&["loginctl"][..], "cannot list users: \"loginctl list-sessions"),
        (&["systemd-inhibit", "busctl"], "cannot list inhibitors: \"busctl"),
    ] {
        let world = world(json!("idle"));
        for program in failing {
            world.program(program, fail);
        }
        scheduled_time(&world, why);
        let ran = world.run(&["update"]).ended(0);
        assert!(ran.stderr.contains("Failed to connect to bus"), "{}", ran.stderr);
        assert!(!world.rebooted());
        let status = world.run(&["status", "--json"]).ended(0).json();
        let shown = status["reboot"]["waiting"]["why"].as_str().unwrap();
        assert!(shown.contains(why), "{shown}");
        // The other policies do not depend on logind.
        world.write("esp/etchaos/config.json", json!({"reboot": "now"}).to_string());
        world.run(&["update"]).ended(0);
        assert!(world.rebooted());
    }
}

#[test]
fn asks_the_system_bus_where_systemd_inhibit_has_no_json() {
    let world = world(json!("idle"));
    world.program("systemd-inhibit", "#!/bin/sh\necho 'unrecognized option' >&2; exit 1\n");
    let reply = r#"{"type":"a(ssssuu)","data":[[["shutdown","backup","nightly","block",0,7]]]}"#;
    world.program("busctl", &format!("#!/bin/sh\necho '{reply}'\n"));
    scheduled_time(&world, "backup inhibits a shutdown (nightly)");
}

#[test]
fn reports_a_systemctl_that_hangs() {
    let hang = "#!/bin/sh\nexec sleep 600\n";
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let world = world(json!("idle"));
            world.program("systemctl", hang);
            world.run(&["update"]).failed(&["\"systemctl reboot\" did not end within 30 s"]);
        });
        scope.spawn(|| {
            let world = World::new();
            world.program("systemctl", hang);
            let ran = world.run(&["status", "--json"]).ended(0);
            assert!(ran.stderr.contains("did not end within 10 s"), "{}", ran.stderr);
            assert_eq!(ran.json()["nextPoll"], json!(null));
        });
        scope.spawn(|| {
            let world = World::new();
            world.write(
                "esp/etchaos/config.json",
                json!({"health": {"units": ["app.service"]}}).to_string(),
            );
            world.program("systemctl", hang);
            // The host has no uptime here, so the deadline has passed.
            let ran = world.run(&["health", "--wait", "--json"]).ended(1);
            let problem = &ran.json()["problems"][0];
            assert!(problem.as_str().unwrap().contains("systemctl did not respond"), "{problem}");
        });
        scope.spawn(|| {
            let world = world(json!("idle"));
            world.program("loginctl", hang);
            scheduled_time(&world, "\"loginctl list-sessions");
        });
    });
    assert!(start.elapsed().as_secs() < 120);
}

#[test]
fn reboots_even_if_the_cdn_fails() {
    let world = world(json!("idle"));
    world.set_sessions(SESSION);
    scheduled_time(&world, "ann is logged in");
    world.publish_token("an error page");
    // The reboot still waits for users, and commands that must not reboot do not.
    world.run(&["update"]).failed(&["manifest"]);
    assert!(world.commands().contains("--on-calendar=@"));
    world.set_sessions("[]");
    for arguments in [&["update", "--dry-run"][..], &["update", "--no-reboot"], &["check"]] {
        world.run(arguments).failed(&["manifest"]);
        assert!(!world.rebooted(), "{arguments:?}");
    }
    let ran = world.run(&["update"]);
    ran.failed(&["manifest", "rebooting into deb_"]);
    assert_eq!(world.commands(), "systemctl reboot\n");
    // The trial has ended or is running.
    world.on_trial(Slot::A, Slot::B, 0);
    world.run(&["update"]).failed(&["manifest"]);
    assert!(!world.rebooted());
    world.on_trial(Slot::A, Slot::B, 2);
    world.boot(Slot::B);
    world.run(&["update"]).failed(&["manifest"]);
    assert!(!world.rebooted());
    // A damaged slot is not booted.
    world.boot(Slot::A);
    std::fs::write(world.esp("etchaos/b/initrd"), "short").unwrap();
    world.run(&["update"]).failed(&["manifest"]);
    assert!(!world.rebooted());
}

#[test]
fn policy_now_reboots_despite_inhibitors() {
    // systemd 257 answers like this if an inhibitor is held and polkit is not installed.
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
    // If an inhibitor was taken after the decision, the next run decides again.
    let idle = world(json!("idle"));
    refuses(&idle);
    idle.run(&["update"]).failed(&["\"systemctl reboot\" failed", "Access denied"]);
    assert_eq!(idle.commands(), "systemctl reboot\n");
}

/// Lets systemd-analyze print a time. The unit tests run the real systemd-analyze.
fn opens_at(world: &World, line: &str) {
    world.program("systemd-analyze", &format!("#!/bin/sh\necho '    Next elapse: {line}'\n"));
}

#[test]
fn waits_for_the_window() {
    let window = json!({"window": "Sat 02:00 UTC", "duration": "2h"});
    let world = world(window);
    opens_at(&world, "Fri 2100-12-31 23:59:59 UTC");
    assert_eq!(scheduled_time(&world, "window is closed"), 4_133_980_799);
    // The window is open.
    opens_at(&world, "Sat 2000-01-01 00:00:00 UTC");
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    world.set_sessions(SESSION);
    scheduled_time(&world, "ann is logged in");
    opens_at(&world, "never");
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stdout.contains("never opens again"), "{}", ran.stdout);
    assert_eq!(world.commands(), "");
}

#[test]
fn refuses_an_invalid_window_before_the_download() {
    let world = world(json!({"window": "SECRET", "duration": "2h"}));
    world.program("systemd-analyze", "#!/bin/sh\necho \"Failed to parse '$5'\" >&2; exit 1\n");
    let before = world.tree();
    let ran = world.run(&["update"]);
    ran.failed(&["\"window\" that systemd cannot read", "systemd-analyze calendar"]);
    assert!(!ran.stderr.contains("SECRET"), "{}", ran.stderr);
    assert_eq!(world.tree(), before);
    world.run(&["config"]).failed(&["\"window\" that systemd cannot read"]);
    // The condition of the unit does not depend on the window.
    world.run(&["config", "--require", "cdn"]).ended(0);
}
