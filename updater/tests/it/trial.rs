//! What ends a trial: health, the deadline, the operator.

use std::fs;
use std::time::{Duration, Instant};

use protocol::esp::Slot::{A, B};
use serde_json::json;

use crate::world::World;

/// Slot b runs release 2, on trial, with two tries left; slot a has release 1 and is good.
fn on_trial() -> World {
    let world = World::new();
    world.publish(2);
    world.run(&["update", "--no-reboot"]).ended(0);
    world.on_trial(A, B, 2);
    world.boot(B);
    world.write("host/proc/cmdline", "quiet etchaos.slot=b etchaos.trial=2\n");
    world.write("host/proc/uptime", "100.00 90.00\n");
    world
}

fn health(world: &World, health: serde_json::Value) {
    world.write("esp/etchaos/config.json", json!({"health": health}).to_string());
}

#[test]
fn units_and_checks_make_a_host_healthy() {
    let world = on_trial();
    world.run(&["health"]).ended(0);
    health(&world, json!({"units": ["app.service"], "checks": ["true", "echo why; exit 4"]}));
    world.program("systemctl", "#!/bin/sh\necho activating\nexit 3\n");
    let ran = world.run(&["health", "--json"]).ended(1);
    let problems = json!(["app.service is activating", "check 2 failed with exit code 4: \"why\""]);
    assert_eq!(ran.json(), json!({"healthy": false, "problems": problems}));
    world.program("systemctl", "#!/bin/sh\necho Failed to connect to bus >&2\nexit 1\n");
    let said = "app.service is in an unknown state: systemctl printed \"Failed to connect to bus\"";
    assert_eq!(world.run(&["health", "--json"]).ended(1).json()["problems"][0], said);
    world.program("systemctl", "#!/bin/sh\ntest \"$*\" = 'is-active -- app.service'\n");
    health(&world, json!({"units": ["app.service"], "checks": ["true"]}));
    world.run(&["health"]).ended(0);
}

#[test]
fn health_is_waited_for_until_the_deadline() {
    let world = on_trial();
    let flag = world.path("flag");
    health(&world, json!({"checks": [format!("test -e {}", flag.display())], "deadline": "2min"}));
    let mut waiting = Guarded(world.command(&["health", "--wait"]).spawn().unwrap());
    std::thread::sleep(Duration::from_secs(1));
    assert!(waiting.0.try_wait().unwrap().is_none(), "it did not wait");
    fs::write(&flag, "").unwrap();
    assert!(waiting.0.wait().unwrap().success());
    fs::remove_file(&flag).unwrap();
    world.write("host/proc/uptime", "121.00 90.00\n");
    let since = Instant::now();
    world.run(&["health", "--wait"]).failed(&["check 1 failed with exit code 1"]);
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_systemd_that_hangs_is_not_waited_for_beyond_the_deadline() {
    let world = on_trial();
    health(&world, json!({"units": ["a.service", "b.service"], "checks": ["sleep 1000"]}));
    world.program("systemctl", "#!/bin/sh\nsleep 1000\n");
    world.write("host/proc/uptime", "1000.00 90.00\n");
    let since = Instant::now();
    let ran = world.run(&["health", "--wait"]);
    ran.failed(&["a.service is in an unknown state: systemctl", "b.service is", "exit code 124"]);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

/// By hand there is no deadline: a check has its minute.
#[test]
fn a_check_that_takes_seconds_is_waited_for() {
    let world = on_trial();
    health(&world, json!({"checks": ["sleep 3"]}));
    world.run(&["health"]).ended(0);
}

/// Ends the process also if the test fails.
struct Guarded(std::process::Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_operators_typing_error_does_not_undo_an_update() {
    let world = on_trial();
    health(&world, json!({"unit": []}));
    world.run(&["health"]).failed(&["unknown field `unit`"]);
    let ran = world.run(&["health", "--wait"]).ended(0);
    assert!(
        ran.stderr.contains("health.units and health.checks are not checked"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_host_on_trial_is_rebooted_and_no_other() {
    let world = on_trial();
    assert!(world.run(&["fallback"]).ended(0).stdout.contains("slot b is on trial: rebooting"));
    assert!(world.rebooted());
    // At the deadline, too; and if the ESP says nothing, or the disk is not there.
    world.write("host/proc/uptime", "1000.00 90.00\n");
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert!(world.rebooted());
    fs::write(world.esp("etchaos/grubenv"), "nonsense").unwrap();
    world.run(&["fallback"]).ended(0);
    assert!(world.rebooted());
    fs::rename(world.path("esp"), world.path("gone")).unwrap();
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert!(world.rebooted());
    fs::rename(world.path("gone"), world.path("esp")).unwrap();

    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    assert!(world.run(&["fallback"]).ended(0).stdout.contains("slot b is confirmed"));
    // Also when the disk does not say so any more. Without it the host would not come back.
    assert!(!world.rebooted());
    fs::rename(world.path("esp"), world.path("gone")).unwrap();
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert!(!world.rebooted());
    fs::rename(world.path("gone"), world.path("esp")).unwrap();
    // Booted as good: there would be no end of it.
    world.boot(A);
    fs::write(world.esp("etchaos/grubenv"), "nonsense").unwrap();
    assert!(world.run(&["fallback"]).ended(0).stdout.contains("not on trial"));
    assert!(!world.rebooted());
}

#[test]
fn what_failed_is_remembered_by_the_boot_that_follows() {
    let world = on_trial();
    world.on_trial(A, B, 0);
    world.boot(A);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    let failed = world.state().failed;
    assert!(failed.is_some());
    assert_eq!(world.run(&["check", "--json"]).ended(3).json()["step"], "failedBefore");
    // A download that fails, and a slot that is gone, do not make it forgotten.
    world.publish(3);
    world.cdn.remove("/3.initrd");
    world.run(&["update"]).ended(1);
    world.publish(2);
    fs::remove_dir_all(world.esp("etchaos/b")).unwrap();
    assert_eq!(world.state().failed, failed);
}

#[test]
fn what_the_boot_loader_cannot_count_does_not_reboot_for_ever() {
    let world = World::new();
    world.publish(2);
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    // In the same boot it is asked for again; in the next one GRUB has shown that it cannot.
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    world.boot(A);
    world.run(&["update"]).failed(&["slot b is on trial", "cannot write etchaos/grubenv"]);
    assert!(!world.rebooted());
    world.run(&["update", "--retry-failed"]).ended(0);
    assert!(world.rebooted());
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

#[test]
fn a_cdn_that_goes_back_calls_the_trial_off() {
    let world = World::new();
    world.publish(2);
    world.run(&["update", "--no-reboot"]).ended(0);
    // What runs, published anew under a higher number.
    let again = protocol::Release { build: 3, ..crate::world::release(1) };
    world.publish_manifest(&again);
    let ran = world.run(&["update", "--json"]).ended(0);
    assert_eq!(ran.json()["step"], "withdraw");
    assert_eq!(world.boots(), (A, None));
    assert!(!world.rebooted());
}

#[test]
fn going_back_by_hand() {
    let world = on_trial();
    world.run(&["confirm"]).ended(0);
    let ran = world.run(&["rollback"]).ended(0);
    assert!(ran.stdout.contains("rolled back to 13.1 in slot a"), "{}", ran.stdout);
    assert!(world.rebooted());
    assert_eq!(world.boots(), (B, Some((A, 3))));
    // GRUB counts; a is healthy; and the release that was left is not installed again.
    world.on_trial(B, A, 2);
    world.boot(A);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "failedBefore");
    world.run(&["rollback"]).failed(&["13.2 in slot b failed"]);
    // A newer one is.
    world.publish(3);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 3);
    assert!(world.rebooted());
    // Before it was booted, it is called off.
    let ran = world.run(&["rollback"]).ended(0);
    assert!(ran.stdout.contains("cancelled") && !world.rebooted(), "{}", ran.stdout);
    assert_eq!(world.boots(), (A, None));
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "failedBefore");
}

#[test]
fn going_back_from_a_trial() {
    let world = on_trial();
    world.run(&["rollback", "--no-reboot"]).ended(0);
    assert!(!world.rebooted());
    assert_eq!(world.boots(), (A, Some((B, 0))));
    let world = World::new();
    world.run(&["rollback"]).failed(&["slot b is empty"]);
    world
        .run(&["rollback", "--host-root", &world.path("nowhere").display().to_string()])
        .failed(&["not known"]);
}

#[test]
fn a_clock_that_was_set_back_does_not_bring_an_old_manifest_to_life() {
    let world = World::new();
    let expired = protocol::Claims {
        iat: Some(crate::world::now() - 7200),
        exp: Some(crate::world::now() + 3600),
        etchaos_release: Some(crate::world::release(2)),
        ..protocol::Claims::default()
    };
    world.publish_token(protocol::token::sign(&world.key, &expired).unwrap());
    world.run(&["check"]).ended(10);
    // The image was made after it expired, whatever the clock says.
    world.write("host/usr/lib/clock-epoch", "");
    let file = fs::File::options().write(true).open(world.path("host/usr/lib/clock-epoch"));
    file.unwrap().set_modified(std::time::SystemTime::now() + Duration::from_secs(7200)).unwrap();
    world.run(&["check"]).failed(&["is not valid"]);
}

#[test]
fn a_way_back_is_not_undone_before_the_reboot() {
    // From a good slot, by an update of what runs.
    let world = on_trial();
    world.run(&["confirm"]).ended(0);
    world.boot(B);
    world.run(&["rollback", "--no-reboot"]).ended(0);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
    assert!(world.rebooted());
    assert_eq!(world.boots(), (B, Some((A, 3))));
    // From a trial, by a confirmation that comes later.
    let world = on_trial();
    world.run(&["rollback", "--no-reboot"]).ended(0);
    let ran = world.run(&["confirm", "--json"]).ended(0);
    assert_eq!(ran.json(), json!({"good": "a", "changed": false}));
    assert_eq!(world.boots(), (A, Some((B, 0))));
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "return");
    assert!(world.rebooted());
    // Also without a CDN.
    world.publish_token("an error page");
    world.run(&["update"]).failed(&["rebooting into deb_"]);
    assert!(world.rebooted());
    world.publish(2);
    world.run(&["fallback"]).ended(0);
    assert!(world.rebooted());
    world.boot(A);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "failedBefore");
}

#[test]
fn a_trial_is_not_confirmed_by_damage_to_grubenv() {
    let world = on_trial();
    world.publish(3);
    for damage in ["nonsense", ""] {
        fs::write(world.esp("etchaos/grubenv"), damage).unwrap();
        assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "unconfirmed");
        world.assert_slot(A, 1);
        assert_eq!(fs::read(world.esp("etchaos/grubenv")).unwrap(), damage.as_bytes());
    }
    world.run(&["fallback"]).ended(0);
    assert!(world.rebooted());
    // Health decides.
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    // From then on it is made anew, though the command line is what it was.
    fs::write(world.esp("etchaos/grubenv"), "nonsense").unwrap();
    world.run(&["update", "--no-reboot"]).ended(0);
    assert_eq!(world.boots(), (B, Some((A, 3))));
    world.assert_slot(A, 3);
}
