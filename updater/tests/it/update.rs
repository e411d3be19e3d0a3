//! Updates from install to confirmation, and the repair of damaged slots and files.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::Duration;

use protocol::esp::Slot::{self, A, B};
use protocol::grubenv::BootState;
use protocol::token::sign;
use protocol::{Claims, Release};

use crate::server::Reply;
use crate::world::{World, claims, release, target};

#[test]
fn installs_tries_and_confirms_a_release() {
    let world = World::new();
    world.publish(2);
    assert_eq!(world.run(&["check", "--json"]).ended(10).json()["step"], "install");
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stdout.contains("bash 5.1 → 5.2"), "{}", ran.stdout);
    assert!(world.rebooted());
    assert_eq!(world.boots(), (A, Some((B, 3))));
    world.assert_slot(A, 1);
    world.assert_slot(B, 2);

    // A second run before the reboot downloads nothing and requests the reboot again.
    let before = world.tree();
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
    assert!(world.rebooted());
    assert_eq!(world.tree(), before);

    // GRUB decrements the tries and boots slot b.
    world.on_trial(A, B, 2);
    world.boot(B);
    world.publish(3);
    assert_eq!(world.run(&["check", "--json"]).ended(3).json()["step"], "unconfirmed");
    let before = world.tree();
    world.run(&["update"]).ended(3);
    assert_eq!(world.tree(), before);

    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    // The boot loader falls back to this file if there is no grubenv.
    assert!(world.esp("etchaos/b/good").exists());
    world.run(&["update"]).ended(0);
    assert!(!world.esp("etchaos/a/good").exists());
    world.assert_slot(A, 3);
    world.assert_slot(B, 2);
    assert_eq!(world.state().good, B);
}

#[test]
fn downloads_nothing_if_the_release_is_installed() {
    let world = World::new();
    let before = world.tree();
    assert_eq!(world.run(&["check", "--json"]).ended(0).json()["step"], "upToDate");
    world.run(&["update"]).ended(0);
    assert_eq!(world.tree(), before);
    assert!(!world.rebooted());
    let manifest = format!("GET /{}", target().manifest_name());
    assert!(world.cdn.requests().iter().all(|request| *request == manifest));
}

#[test]
fn repairs_deleted_files_of_the_running_slot_through_the_spare_slot() {
    let world = World::new();
    for file in ["vmlinuz", "initrd"] {
        fs::remove_file(world.esp(&format!("etchaos/a/{file}"))).unwrap();
    }
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["slots"]["a"]["problem"], "vmlinuz is missing");
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    assert_eq!(world.boots(), (A, Some((B, 3))));
    world.assert_slot(B, 1);

    world.on_trial(A, B, 2);
    world.boot(B);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "repair");
    assert!(!world.rebooted());
    world.assert_slot(A, 1);
    world.assert_slot(B, 1);
    // Both hold the release that was confirmed, so either is one that GRUB may boot for the other.
    assert!(world.esp("etchaos/a/good").exists() && world.esp("etchaos/b/good").exists());
    assert_eq!(world.boots(), (B, None));
    assert_eq!(world.run(&["check", "--json"]).ended(0).json()["step"], "upToDate");
}

/// The repair does not wait for a confirmation, which an unhealthy host may never get.
#[test]
fn unconfirmed_running_slot_replaces_a_lost_good_slot() {
    let world_without_good_slot = || {
        let world = World::new();
        world.fill(B, 2, 2);
        fs::remove_file(world.esp("etchaos/a/initrd")).unwrap();
        world.boot(B);
        world.publish(3);
        world
    };
    let world = world_without_good_slot();
    assert_eq!(world.run(&["update", "--dry-run", "--json"]).ended(0).json()["step"], "install");
    assert_eq!(world.boots(), (A, None));
    let ran = world.run(&["update"]).ended(0);
    assert!(
        ran.stderr.contains("slot a does not boot; slot b is now the good slot"),
        "{}",
        ran.stderr
    );
    assert!(world.rebooted());
    assert_eq!(world.boots(), (B, Some((A, 3))));
    world.assert_slot(A, 3);
    world.assert_slot(B, 2);

    // Without a newer release, the lost slot gets a copy of the running release.
    let world = world_without_good_slot();
    world.publish(2);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "repair");
    assert_eq!(world.boots(), (B, None));
    world.assert_slot(A, 2);

    // During a trial nothing is repaired, because the trial ends at its deadline.
    let world = world_without_good_slot();
    world.write("host/proc/cmdline", "quiet etchaos.slot=b etchaos.trial=2\n");
    let before = world.tree();
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "unconfirmed");
    assert_eq!(world.tree(), before);
}

/// The only complete slot is never overwritten. It becomes the good slot, and the damaged running slot
/// is rewritten.
#[test]
fn rewrites_a_lost_running_slot_and_keeps_the_complete_one() {
    let world = World::new();
    world.fill(B, 2, 2);
    world.write("esp/etchaos/a/good", "");
    world.set_state(BootState::with_good(B));
    world.boot(B);
    fs::remove_file(world.esp("etchaos/b/initrd")).unwrap();
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::status(500));
    let ran = world.run(&["update"]);
    ran.failed(&["500", "slot b does not boot; slot a is now the good slot"]);
    world.assert_slot(A, 1);
    assert_eq!(world.boots(), (A, None));
    // The next update tries again.
    world.publish(2);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "install");
    assert!(world.rebooted());
    world.assert_slot(A, 1);
    world.assert_slot(B, 2);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["reboot"]["outstanding"], true);
    // Slot b was rewritten after it was booted, so its new content is not confirmed.
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    world.on_trial(A, B, 2);
    world.boot(B);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    world.assert_slot(A, 1);
}

/// An unconfirmed slot runs without a trial if GRUB could not load the good slot in one boot.
#[test]
fn unconfirmed_slot_returns_to_a_complete_good_slot() {
    let world = World::new();
    world.fill(B, 2, 2);
    world.boot(B);
    world.publish(3);
    let tree = world.tree();
    // The release in slot b was never confirmed.
    let ran = world.run(&["confirm"]).ended(0);
    assert!(ran.stdout.contains("the next update returns to slot a"), "{}", ran.stdout);
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stdout.contains("in slot a is good, but the other slot runs"), "{}", ran.stdout);
    assert!(ran.stderr.contains(" 13.1 (build 0) as configured"), "{}", ran.stderr);
    assert!(world.rebooted());
    assert_eq!((world.tree(), world.boots()), (tree, (A, Some((B, 0)))));
    assert_eq!(world.run(&["check", "--json"]).ended(10).json()["step"], "return");
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["reboot"]["outstanding"], true);
    assert_eq!(world.run(&["confirm", "--json"]).ended(0).json()["changed"], false);
    // If slot b is booted again in spite of the return, it becomes the good slot and is updated.
    let boot_b_again = || {
        world.boot(B);
        world.write("host/proc/cmdline", "etchaos.slot=b");
    };
    boot_b_again();
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "install");
    assert_eq!(world.boots(), (B, Some((A, 3))));
    world.set_state(BootState::with_good(A));
    boot_b_again();
    // A running slot that was confirmed before becomes the good slot.
    world.write("esp/etchaos/b/good", "");
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
}

#[test]
fn next_update_reboots_into_an_allowed_downgrade() {
    let world = World::new();
    world.fill(A, 5, 5);
    world.publish(4);
    world.run(&["update", "--allow-downgrade", "--no-reboot"]).ended(0);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "pending");
    assert!(world.rebooted());
}

#[test]
fn cancels_trial_of_withdrawn_release_if_the_offered_one_failed_before() {
    let world = World::new();
    world.fill(A, 3, 3);
    world.publish(5);
    world.run(&["update", "--no-reboot"]).ended(0);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    // The offered release has a newer build number and is known to have failed.
    let release = Release { build: 6, ..release(4) };
    world.set_state(BootState { failed: Some(release.id()), ..world.state() });
    world.publish_manifest(&release);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "withdraw");
    assert_eq!(world.boots(), (A, None));
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "failedBefore");
}

#[test]
fn reinstalls_if_the_running_slot_is_damaged() {
    for damage in ["byte", "manifest", "size"] {
        let world = World::new();
        let kernel = world.esp("etchaos/a/vmlinuz");
        let mut bytes = fs::read(&kernel).unwrap();
        match damage {
            "byte" => bytes[100] ^= 1,
            "size" => bytes.truncate(100),
            _ => fs::remove_file(world.esp("etchaos/a/release.jwt")).unwrap(),
        }
        fs::write(&kernel, bytes).unwrap();
        assert_eq!(world.run(&["check", "--json"]).ended(10).json()["step"], "install", "{damage}");
        world.run(&["update"]).ended(0);
        world.assert_slot(B, 1);
        assert_eq!(world.boots(), (A, Some((B, 3))));
    }
}

#[test]
fn does_not_reinstall_a_release_that_failed_its_trial() {
    let world = World::new();
    world.publish(2);
    world.run(&["update"]).ended(0);
    assert!(world.rebooted());
    world.on_trial(A, B, 0);
    world.boot(A);
    let before = world.tree();
    assert_eq!(world.run(&["check", "--json"]).ended(3).json()["step"], "failedBefore");
    world.run(&["update"]).ended(3);
    assert_eq!(world.tree(), before);
    assert!(!world.rebooted());
    // The failed release stays recorded when the running slot is confirmed.
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    // The operator can retry it, and a newer release is installed as usual.
    world.run(&["update", "--retry-failed", "--no-reboot"]).ended(0);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    world.on_trial(A, B, 0);
    world.publish(3);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 3);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

#[test]
fn activates_a_complete_spare_slot_without_a_download() {
    let world = World::new();
    world.publish(2);
    world.fill(B, 2, 2);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "activate");
    assert_eq!(world.boots(), (A, Some((B, 3))));
    assert_eq!(world.cdn.requests().len(), 1);
}

#[test]
fn rewrites_an_incomplete_slot() {
    let world = World::new();
    world.write("esp/etchaos/b/vmlinuz", "incomplete");
    world.write("esp/etchaos/b/stray", "from an older updater");
    world.write("esp/FSCK0000.REC", "found by fsck");
    world.write("esp/KEEP.REC", "not ours");
    world.publish(2);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert!(!world.esp("etchaos/b/stray").exists());
    assert!(!world.esp("FSCK0000.REC").exists());
    assert!(world.esp("KEEP.REC").exists());
}

#[test]
fn recreates_a_damaged_or_missing_grubenv() {
    for damage in [None, Some(vec![0; 1024]), Some(b"short".to_vec()), Some(vec![b'x'; 5000])] {
        let world = World::new();
        world.boot(B);
        world.fill(B, 1, 0);
        match &damage {
            Some(bytes) => world.write("esp/etchaos/grubenv", bytes),
            None => fs::remove_file(world.esp("etchaos/grubenv")).unwrap(),
        }
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert!(status["grubenvProblem"].is_string(), "{status}");
        assert_eq!(status["good"], "b");
        world.run(&["update"]).ended(0);
        assert_eq!(world.boots(), (B, None));
        world.publish(2);
        world.run(&["update"]).ended(0);
        assert_eq!(world.boots(), (B, Some((A, 3))));
    }
}

#[test]
fn recreates_a_deleted_etchaos_directory() {
    let world = World::new();
    fs::remove_dir_all(world.esp("etchaos")).unwrap();
    world.run(&["update"]).ended(0);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    world.assert_slot(B, 1);
    assert!(world.rebooted());
    // Confirm recreates it, too.
    fs::remove_dir_all(world.esp("etchaos")).unwrap();
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
}

#[test]
fn replaces_files_directories_and_symlinks_in_the_spare_slot() {
    let other_directory = |world: &World| {
        world.write("other/kept", "x");
        world.path("other")
    };
    type Damage<'a> = &'a dyn Fn(&World);
    let damages: [Damage<'_>; 6] = [
        &|world| world.write("esp/etchaos/b", "a file"),
        &|world| world.write("esp/etchaos/b/vmlinuz/deep/er", "below a directory"),
        &|world| world.write("esp/etchaos/b/release.jwt/x", "below a directory"),
        &|world| world.write("esp/etchaos/b/initrd/x", "below a directory"),
        &|world| symlink(other_directory(world), world.esp("etchaos/b")).unwrap(),
        &|world| {
            fs::create_dir_all(world.esp("etchaos/b/vmlinuz")).unwrap();
            symlink(other_directory(world), world.esp("etchaos/b/initrd")).unwrap();
            symlink(other_directory(world), world.esp("etchaos/b/vmlinuz/x")).unwrap();
            symlink("/nonexistent/x", world.esp("etchaos/b/release.jwt")).unwrap();
        },
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let world = World::new();
        damage(&world);
        world.publish(2);
        assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "install", "{index}");
        world.assert_slot(A, 1);
        world.assert_slot(B, 2);
        let other = world.path("other");
        assert!(!other.exists() || fs::read_dir(other).unwrap().count() == 1, "{index}");
    }
}

#[test]
fn reboots_only_if_configured() {
    let world = World::new();
    world.publish(2);
    world.write("never.json", r#"{"reboot": "never"}"#);
    let never = world.path("never.json");
    let ran = world.run(&["update", "--config", never.to_str().unwrap()]).ended(0);
    assert!(ran.stdout.contains("\"never\""), "{}", ran.stdout);
    assert!(!world.rebooted());
    world.run(&["update", "--no-reboot"]).ended(0);
    assert!(!world.rebooted());
    world.program("systemctl", "#!/bin/sh\necho no >&2; exit 1\n");
    let failed = world.run(&["update"]);
    failed.failed(&["\"systemctl reboot\" failed", "reboot by hand", ": no"]);
}

#[test]
fn updates_from_a_local_directory() {
    let world = World::new();
    let token = sign(&world.key, &claims(&release(2))).unwrap();
    world.write(&format!("cdn/{}", target().manifest_name()), token);
    for role in protocol::Role::BOOT {
        let name = format!("cdn/2.{}", role.extension());
        world.write(&name, crate::world::content(role, 2));
    }
    let json = format!(r#"{{"cdn": "{}"}}"#, world.path("cdn").display());
    world.write("esp/etchaos/config.json", json);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert!(world.cdn.requests().is_empty());
}

#[test]
fn does_not_reboot_if_the_running_slot_is_unknown() {
    let world = World::new();
    world.write("host/proc/cmdline", "quiet\n");
    world.publish(2);
    world.run(&["update"]).ended(0);
    assert!(!world.rebooted());
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

#[test]
fn newly_signed_manifest_of_the_installed_release_is_up_to_date() {
    let world = World::new();
    let release = Release { build: 9, ..release(1) };
    let signed_again = Claims { jti: Some("again".into()), ..claims(&release) };
    world.publish_token(sign(&world.key, &signed_again).unwrap());
    assert_eq!(world.run(&["check", "--json"]).ended(0).json()["step"], "upToDate");
}

/// Returns the number of bytes that a run read, from its I/O accounting in /proc (proc(5), `rchar`).
fn bytes_read(world: &World, arguments: &[&str]) -> u64 {
    let mut child = world.command(arguments).stdout(Stdio::null()).spawn().unwrap();
    let proc = format!("/proc/{}", child.id());
    // The counters of a process stay readable until it is waited for.
    while !fs::read_to_string(format!("{proc}/stat")).unwrap().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let io = fs::read_to_string(format!("{proc}/io")).unwrap();
    assert!(child.wait().unwrap().success());
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap();
    read.parse().unwrap()
}

#[test]
fn hashes_each_boot_file_once_per_update() {
    // Release 1 is up to date. Release 2 is put on trial, which needs write access.
    for candidate in [1, 2] {
        let world = World::new();
        world.fill(B, 2, 2);
        world.publish(candidate);
        // `status` reads no boot file, so this is the amount of all other reads.
        let other = bytes_read(&world, &["status"]);
        let files: u64 = Slot::ALL
            .iter()
            .flat_map(|slot| ["vmlinuz", "initrd"].map(|name| format!("etchaos/{slot}/{name}")))
            .map(|path| fs::metadata(world.esp(&path)).unwrap().len())
            .sum();
        let read = bytes_read(&world, &["update", "--no-reboot"]);
        assert!(read >= files, "{candidate}: {read} of {files} bytes");
        // Another pass over one slot would be half of `files` more.
        assert!(read < files + files / 4 + other, "{candidate}: {read} of {files} bytes");
    }
}
