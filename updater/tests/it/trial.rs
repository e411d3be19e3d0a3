//! The ends of a trial: confirmation, fallback at the deadline, and rollback by the operator.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use protocol::esp::Slot::{A, B};
use protocol::grubenv::BootState;
use serde_json::json;

use crate::world::World;

/// Returns a host whose slot b runs release 2 on trial, with two tries left. Slot a is good and holds
/// release 1.
fn world_on_trial() -> World {
    let world = World::new();
    world.publish(2);
    world.run(&["update", "--no-reboot"]).ended(0);
    world.on_trial(A, B, 2);
    world.boot(B);
    world.write("host/proc/cmdline", "quiet etchaos.slot=b etchaos.trial=2\n");
    world.write("host/proc/uptime", "100.00 90.00\n");
    world
}

/// Writes a configuration with these health settings to the ESP.
fn configure_health(world: &World, health: serde_json::Value) {
    world.write("esp/etchaos/config.json", json!({"health": health}).to_string());
}

#[test]
fn host_is_healthy_if_units_are_active_and_checks_succeed() {
    let world = world_on_trial();
    world.run(&["health"]).ended(0);
    configure_health(
        &world,
        json!({"units": ["app.service"], "checks": ["true", "echo reason; exit 4"]}),
    );
    world.program("systemctl", "#!/bin/sh\necho activating\nexit 3\n");
    let ran = world.run(&["health", "--json"]).ended(1);
    let problems =
        json!(["app.service is activating", "check 2 failed with exit code 4: \"reason\""]);
    assert_eq!(ran.json(), json!({"healthy": false, "problems": problems}));
    world.program("systemctl", "#!/bin/sh\necho Failed to connect to bus >&2\nexit 1\n");
    let problem =
        "app.service is in an unknown state: systemctl printed \"Failed to connect to bus\"";
    assert_eq!(world.run(&["health", "--json"]).ended(1).json()["problems"][0], problem);
    world.program("systemctl", "#!/bin/sh\ntest \"$*\" = 'is-active -- app.service'\n");
    configure_health(&world, json!({"units": ["app.service"], "checks": ["true"]}));
    world.run(&["health"]).ended(0);
}

#[test]
fn waits_for_health_until_the_deadline() {
    let world = world_on_trial();
    let flag = world.path("flag");
    configure_health(
        &world,
        json!({"checks": [format!("test -e {}", flag.display())], "deadline": "2min"}),
    );
    let mut waiting = KilledOnDrop(world.command(&["health", "--wait"]).spawn().unwrap());
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        waiting.0.try_wait().unwrap().is_none(),
        "`health --wait` ended before the host was healthy"
    );
    fs::write(&flag, "").unwrap();
    assert!(waiting.0.wait().unwrap().success());
    fs::remove_file(&flag).unwrap();
    world.write("host/proc/uptime", "121.00 90.00\n");
    let since = Instant::now();
    world.run(&["health", "--wait"]).failed(&["check 1 failed with exit code 1"]);
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn stops_waiting_for_a_hanging_systemd_at_the_deadline() {
    let world = world_on_trial();
    configure_health(
        &world,
        json!({"units": ["a.service", "b.service"], "checks": ["sleep 1000"]}),
    );
    world.program("systemctl", "#!/bin/sh\nsleep 1000\n");
    world.write("host/proc/uptime", "1000.00 90.00\n");
    let since = Instant::now();
    let ran = world.run(&["health", "--wait"]);
    ran.failed(&["a.service is in an unknown state: systemctl", "b.service is", "exit code 124"]);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}

/// Without `--wait` there is no deadline; each check may take a minute.
#[test]
fn waits_for_a_slow_check() {
    let world = world_on_trial();
    configure_health(&world, json!({"checks": ["sleep 3"]}));
    world.run(&["health"]).ended(0);
}

/// A process that is killed when the test ends, even if it fails.
struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn invalid_configuration_does_not_undo_an_update() {
    let world = world_on_trial();
    configure_health(&world, json!({"unit": []}));
    let ran = world.run(&["health"]).ended(4);
    assert!(ran.stderr.contains("unknown field `unit`"), "{}", ran.stderr);
    let ran = world.run(&["health", "--wait"]).ended(0);
    assert!(
        ran.stderr
            .contains("health.units and health.checks from ESP etchaos/config.json are unknown"),
        "{}",
        ran.stderr
    );
}

/// The disk fails after the deadline was read from it.
#[test]
fn fallback_keeps_a_deadline_that_cannot_be_read_again() {
    let world = world_on_trial();
    configure_health(&world, json!({"deadline": "1m"}));
    world.write("host/proc/uptime", "55.00 1.00\n");
    let mut fallback = world.command(&["fallback", "--at-deadline"]);
    let mut child = KilledOnDrop(fallback.stdout(Stdio::null()).spawn().unwrap());
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.0.try_wait().unwrap().is_none(), "the deadline has not passed");
    fs::rename(world.path("esp"), world.path("gone")).unwrap();
    world.write("host/proc/uptime", "61.00 1.00\n");
    let since = Instant::now();
    while child.0.try_wait().unwrap().is_none() {
        assert!(since.elapsed() < Duration::from_secs(45), "there is no reboot");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(world.rebooted());
}

#[test]
fn fallback_reboots_only_a_host_on_trial() {
    let world = world_on_trial();
    assert!(world.run(&["fallback"]).ended(0).stdout.contains("slot b is on trial: rebooting"));
    assert!(world.rebooted());
    // It also reboots at the deadline, with an unreadable grubenv, and without an ESP.
    world.write("host/proc/uptime", "1000.00 90.00\n");
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert!(world.rebooted());
    fs::write(world.esp("etchaos/grubenv"), "damaged").unwrap();
    world.run(&["fallback"]).ended(0);
    assert!(world.rebooted());
    fs::rename(world.path("esp"), world.path("gone")).unwrap();
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert!(world.rebooted());
    fs::rename(world.path("gone"), world.path("esp")).unwrap();

    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    assert!(world.run(&["fallback"]).ended(0).stdout.contains("slot b is confirmed"));
    // A confirmed host stays up without its ESP, because it could not boot again.
    assert!(!world.rebooted());
    fs::rename(world.path("esp"), world.path("gone")).unwrap();
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert!(!world.rebooted());
    fs::rename(world.path("gone"), world.path("esp")).unwrap();
    // A host that booted its good slot stays up, or it would reboot forever.
    world.boot(A);
    fs::write(world.esp("etchaos/grubenv"), "damaged").unwrap();
    assert!(world.run(&["fallback"]).ended(0).stdout.contains("not on trial"));
    assert!(!world.rebooted());
}

#[test]
fn records_the_failed_release_after_the_fallback() {
    let world = world_on_trial();
    world.on_trial(A, B, 0);
    world.boot(A);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    let failed = world.state().failed;
    assert!(failed.is_some());
    assert_eq!(world.run(&["check", "--json"]).ended(3).json()["step"], "failedBefore");
    // A failed download and a deleted slot do not clear the record.
    world.publish(3);
    world.cdn.remove("/3.initrd");
    world.run(&["update"]).ended(1);
    world.publish(2);
    fs::remove_dir_all(world.esp("etchaos/b")).unwrap();
    assert_eq!(world.state().failed, failed);
}

#[test]
fn does_not_reboot_again_if_the_boot_loader_cannot_count_tries() {
    let world = World::new();
    world.publish(2);
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    // In the same boot, the reboot is requested again. If the tries are unchanged in the next boot,
    // GRUB cannot write grubenv.
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
fn cancels_the_trial_if_the_cdn_offers_the_running_release() {
    let world = World::new();
    world.publish(2);
    world.run(&["update", "--no-reboot"]).ended(0);
    // The running release is published again, with a higher build number.
    let republished = protocol::Release { build: 3, ..crate::world::release(1) };
    world.publish_manifest(&republished);
    let ran = world.run(&["update", "--json"]).ended(0);
    assert_eq!(ran.json()["step"], "withdraw");
    assert_eq!(world.boots(), (A, None));
    assert!(!world.rebooted());
}

#[test]
fn rollback_from_a_good_slot_keeps_the_release_from_returning() {
    let world = world_on_trial();
    world.run(&["confirm"]).ended(0);
    let ran = world.run(&["rollback"]).ended(0);
    assert!(ran.stdout.contains("rolled back to 13.1 in slot a"), "{}", ran.stdout);
    assert!(world.rebooted());
    assert_eq!(world.boots(), (B, Some((A, 3))));
    // GRUB decrements the tries, and slot a is confirmed. The abandoned release is not installed again.
    world.on_trial(B, A, 2);
    world.boot(A);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "failedBefore");
    world.run(&["rollback"]).failed(&["13.2 in slot b failed"]);
    // A newer release is installed.
    world.publish(3);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 3);
    assert!(world.rebooted());
    // A rollback before the reboot cancels its trial.
    let ran = world.run(&["rollback"]).ended(0);
    assert!(ran.stdout.contains("cancelled") && !world.rebooted(), "{}", ran.stdout);
    assert_eq!(world.boots(), (A, None));
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "failedBefore");
}

#[test]
fn rollback_ends_a_trial_and_needs_a_complete_other_slot() {
    let world = world_on_trial();
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
fn rejects_manifest_that_expired_before_the_image_epoch() {
    let world = World::new();
    let claims = protocol::Claims {
        iat: Some(crate::world::now() - 7200),
        exp: Some(crate::world::now() + 3600),
        etchaos_release: Some(crate::world::release(2)),
        ..protocol::Claims::default()
    };
    world.publish_token(protocol::token::sign(&world.key, &claims).unwrap());
    world.run(&["check"]).ended(10);
    // The image was built after the manifest expired, so the clock must be behind.
    world.write("host/usr/lib/clock-epoch", "");
    let file = fs::File::options().write(true).open(world.path("host/usr/lib/clock-epoch"));
    file.unwrap().set_modified(std::time::SystemTime::now() + Duration::from_secs(7200)).unwrap();
    world.run(&["check"]).failed(&["is not valid"]);
}

#[test]
fn pending_rollback_survives_update_and_confirm() {
    // An update does not undo a rollback from a good slot.
    let world = world_on_trial();
    world.run(&["confirm"]).ended(0);
    world.boot(B);
    world.run(&["rollback", "--no-reboot"]).ended(0);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
    assert!(world.rebooted());
    assert_eq!(world.boots(), (B, Some((A, 3))));
    // A later confirmation does not undo a rollback from a trial.
    let world = world_on_trial();
    world.run(&["rollback", "--no-reboot"]).ended(0);
    let ran = world.run(&["confirm", "--json"]).ended(0);
    assert_eq!(ran.json(), json!({"good": "a", "changed": false}));
    assert_eq!(world.boots(), (A, Some((B, 0))));
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "return");
    assert!(world.rebooted());
    // The update reboots even if the manifest is invalid.
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
fn damaged_grubenv_does_not_confirm_a_trial() {
    let world = world_on_trial();
    world.publish(3);
    for damage in ["damaged", ""] {
        fs::write(world.esp("etchaos/grubenv"), damage).unwrap();
        assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "unconfirmed");
        world.assert_slot(A, 1);
        assert_eq!(fs::read(world.esp("etchaos/grubenv")).unwrap(), damage.as_bytes());
    }
    world.run(&["fallback"]).ended(0);
    assert!(world.rebooted());
    // Only `confirm` makes the slot good.
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    // From then on grubenv is recreated, although the kernel command line still names the trial.
    fs::write(world.esp("etchaos/grubenv"), "damaged").unwrap();
    world.run(&["update", "--no-reboot"]).ended(0);
    assert_eq!(world.boots(), (B, Some((A, 3))));
    world.assert_slot(A, 3);
}

#[test]
fn resets_the_boot_counter() {
    let world = World::new();
    world.publish(2);
    world.run(&["update", "--no-reboot"]).ended(0);
    let counted = BootState { boots: 4, ..world.state() };
    let uncounted = BootState { boots: 0, ..counted.clone() };
    for command in
        [&["started", "--json"][..], &["confirm", "--json"], &["rollback", "--no-reboot"]]
    {
        world.set_state(counted.clone());
        world.run(command).ended(0);
        assert_eq!(world.state().boots, 0, "{command:?}");
    }
    world.set_state(counted);
    assert_eq!(world.run(&["started", "--json"]).ended(0).json(), json!({"changed": true}));
    assert_eq!(world.state(), uncounted);
    // A host that runs writes only if there is a count, because each write is one of the disk.
    let modified = || fs::metadata(world.esp("etchaos/grubenv")).unwrap().modified().unwrap();
    let before = modified();
    assert_eq!(world.run(&["started", "--json"]).ended(0).json(), json!({"changed": false}));
    assert_eq!(modified(), before);
    // A damaged grubenv is left to the confirmation, which knows that the host is healthy.
    world.write("esp/etchaos/grubenv", "damaged");
    assert_eq!(world.run(&["started", "--json"]).ended(0).json(), json!({"changed": false}));
    assert_eq!(fs::read(world.esp("etchaos/grubenv")).unwrap(), b"damaged");
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.state().boots, 0);
}
