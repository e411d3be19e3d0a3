//! A manifest has an end; a release that is installed has none.

use std::fs;

use protocol::Role;
use protocol::claims::Claims;
use protocol::esp::Slot::{self, A, B};
use protocol::token::sign;
use serde_json::json;

use crate::world::{World, claims, content, now, release, target};

/// The manifest of the n-th release, which ended a day ago.
fn expired(world: &World, n: u64) -> String {
    let (iat, exp) = (Some(now() - 172_800), Some(now() - 86_400));
    sign(&world.key, &Claims { iat, exp, ..claims(&release(n)) }).unwrap()
}

/// A stick with the n-th release, as its configuration has it.
fn stick(world: &World, n: u64, manifest: &str) -> String {
    for role in Role::BOOT {
        world.write(&format!("stick/{n}.{}", role.extension()), content(role, n));
    }
    world.write(&format!("stick/{}", target().manifest_name()), manifest);
    let config = json!({"cdn": world.path("stick"), "reboot": "now"});
    world.write("stick/etchaos.json", config.to_string());
    world.path("stick/etchaos.json").to_str().unwrap().to_owned()
}

/// Both slots hold releases whose manifests have ended since.
fn aged() -> World {
    let world = World::new();
    for (slot, n) in [(A, 1), (B, 2)] {
        world.fill(slot, n, n);
        world.write(&format!("esp/etchaos/{slot}/release.jwt"), expired(&world, n));
    }
    world
}

#[test]
fn an_installed_release_goes_on_past_its_end() {
    let world = aged();
    let complete = |slot: Slot| {
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert_eq!(status["slots"][slot.to_string()]["state"], "complete", "{status}");
    };
    world.on_trial(A, B, 2);
    world.boot(B);
    complete(A);
    complete(B);
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
fn a_stick_whose_manifest_has_ended_is_refused_with_the_way_out() {
    let world = aged();
    let manifest = expired(&world, 3);
    let config = stick(&world, 3, &manifest);
    let before = (world.tree(), world.boots());
    for arguments in [&["check"][..], &["update", "--dry-run"], &["update"]] {
        let ran = world.run(&[arguments, &["--config", &config]].concat());
        ran.failed(&[
            // A date, and no number of seconds.
            "it expired at 20",
            "if the clock is right",
            "copy the publisher's newest manifest",
            "what is installed goes on",
        ]);
    }
    assert_eq!(before, (world.tree(), world.boots()));
    // The same release, signed anew: the files on the stick are those that it names.
    let renewed = sign(&world.key, &claims(&release(3))).unwrap();
    fs::write(world.path("stick").join(target().manifest_name()), renewed).unwrap();
    world.run(&["update", "--config", &config]).ended(0);
    world.assert_slot(B, 3);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}
