//! A manifest expires, but an installed release keeps running.

use std::fs;

use protocol::Role;
use protocol::claims::Claims;
use protocol::esp::Slot::{self, A, B};
use protocol::token::sign;
use serde_json::json;

use crate::world::{World, claims, content, now, release, target};

/// Returns a manifest of the n-th release that expired a day ago.
fn expired(world: &World, n: u64) -> String {
    let (iat, exp) = (Some(now() - 172_800), Some(now() - 86_400));
    sign(&world.key, &Claims { iat, exp, ..claims(&release(n)) }).unwrap()
}

/// Writes a USB stick with the n-th release. Returns the path of a configuration that uses it.
fn write_stick(world: &World, n: u64, manifest: &str) -> String {
    for role in Role::BOOT {
        world.write(&format!("stick/{n}.{}", role.extension()), content(role, n));
    }
    world.write(&format!("stick/{}", target().manifest_name()), manifest);
    let config = json!({"cdn": world.path("stick"), "reboot": "now"});
    world.write("stick/etchaos.json", config.to_string());
    world.path("stick/etchaos.json").to_str().unwrap().to_owned()
}

/// Returns a host with releases in both slots whose manifests have expired.
fn world_with_expired_manifests() -> World {
    let world = World::new();
    for (slot, n) in [(A, 1), (B, 2)] {
        world.fill(slot, n, n);
        world.write(&format!("esp/etchaos/{slot}/release.jwt"), expired(&world, n));
    }
    world
}

#[test]
fn installed_release_works_after_manifest_expires() {
    let world = world_with_expired_manifests();
    let assert_complete = |slot: Slot| {
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert_eq!(status["slots"][slot.to_string()]["state"], "complete", "{status}");
    };
    world.on_trial(A, B, 2);
    world.boot(B);
    assert_complete(A);
    assert_complete(B);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    world.run(&["verify"]).ended(0);
    world.run(&["health"]).ended(0);
    world.run(&["rollback"]).ended(0);
    assert!(world.rebooted());
    world.on_trial(B, A, 2);
    world.boot(A);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
}

#[test]
fn rejects_expired_manifest_on_stick_with_hint() {
    let world = world_with_expired_manifests();
    let manifest = expired(&world, 3);
    let config = write_stick(&world, 3, &manifest);
    let before = (world.tree(), world.boots());
    for arguments in [&["check"][..], &["update", "--dry-run"], &["update"]] {
        let ran = world.run(&[arguments, &["--config", &config]].concat());
        ran.failed(&[
            // The message has a date, not Unix seconds.
            "it expired at 20",
            "if the clock is right",
            "copy the publisher's newest manifest",
            "the installed release keeps running",
        ]);
    }
    assert_eq!(before, (world.tree(), world.boots()));
    // A new manifest of the same release makes the files on the stick usable again.
    let renewed = sign(&world.key, &claims(&release(3))).unwrap();
    fs::write(world.path("stick").join(target().manifest_name()), renewed).unwrap();
    world.run(&["update", "--config", &config]).ended(0);
    world.assert_slot(B, 3);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}
