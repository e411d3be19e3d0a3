//! Key rotation, as described in docs/keys.md.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::esp::Slot::{self, A, B};
use protocol::grubenv::BootState;
use protocol::token::sign;
use protocol::{PrivateKey, Role};
use serde_json::json;

use crate::server::Reply;
use crate::world::{World, claims, content, release, target};

/// Publishes the n-th release, signed with this key.
fn publish(world: &World, n: u64, key: &PrivateKey) {
    world.publish(n);
    world.publish_token(sign(key, &claims(&release(n))).unwrap());
}

/// Boots the slot and confirms it; its image trusts these keys.
#[track_caller]
fn run_on(world: &World, slot: Slot, keys: &[&PrivateKey]) {
    assert!(world.rebooted());
    world.boot(slot);
    world.set_state(BootState::with_good(slot));
    trust(world, keys);
}

/// Makes the running image trust these keys.
fn trust(world: &World, keys: &[&PrivateKey]) {
    let text: String = keys.iter().map(|key| format!("{}\n", key.public())).collect();
    world.write("host/usr/lib/etchaos/keys", text);
}

/// Asserts that the release of the CDN is rejected because of its key, and nothing is written.
#[track_caller]
fn assert_update_rejected(world: &World) {
    let before = world.tree();
    world.run(&["update"]).failed(&["cannot be trusted", "not trusted here"]);
    world.run(&["check"]).failed(&["not trusted here"]);
    assert_eq!(world.tree(), before);
}

#[test]
fn keys_rotate_through_releases() {
    let world = World::new();
    let (one, two, three) = (world.key.clone(), PrivateKey::generate(), PrivateKey::generate());
    trust(&world, &[&one]);
    publish(&world, 2, &two);
    assert_update_rejected(&world);

    // Release 2 is signed with the first key, and its image also trusts the second one.
    publish(&world, 2, &one);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    run_on(&world, B, &[&one, &two]);

    // Release 3 is signed with the second key.
    publish(&world, 3, &two);
    world.run(&["update"]).ended(0);
    world.assert_slot(A, 3);
    world.assert_slot(B, 2);
    run_on(&world, A, &[&two, &three]);
    world.assert_slot(A, 3);

    // The first key is no longer trusted, neither for new releases nor for those in the slots.
    publish(&world, 4, &one);
    assert_update_rejected(&world);
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["slots"]["b"]["state"], "damaged", "{status}");
    publish(&world, 4, &three);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 4);
}

/// The publisher revokes a key at once, for example because it was stolen, and the fallback slot is signed
/// with it.
#[test]
fn release_signed_by_dropped_key_is_no_fallback_and_is_overwritten() {
    let world = World::new();
    let (one, two) = (world.key.clone(), PrivateKey::generate());
    trust(&world, &[&one, &two]);
    publish(&world, 2, &two);
    world.run(&["update"]).ended(0);
    world.on_trial(A, B, 2);
    world.boot(B);
    trust(&world, &[&two]);

    // During the trial the slot is not overwritten: GRUB does not verify manifests and would fall back
    // to it.
    let before = world.tree();
    world.run(&["update"]).ended(0);
    assert_eq!(world.tree(), before);
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (B, None));
    let before = world.tree();
    let message_parts = [
        one.id(),
        "which is not trusted here",
        "so its files cannot be verified",
        "add the key to \"keys\"",
    ];
    let status = world.run(&["status"]).ended(0).stdout;
    let verified = world.run(&["verify"]).ended(1).stdout;
    for part in message_parts {
        assert!(status.contains(part) && verified.contains(part), "{part}: {status}\n{verified}");
    }
    world.run(&["rollback"]).failed(&[&["cannot roll back"], &message_parts[..]].concat());
    assert_eq!((world.tree(), world.boots()), (before, (B, None)));

    // If the operator trusts the key again, rollback is possible.
    world.write(ESP_CONFIG, keys(&one));
    world.assert_slot(A, 1);
    world.run(&["update"]).ended(0);
    world.assert_slot(A, 1);
    std::fs::remove_file(world.path(ESP_CONFIG)).unwrap();

    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "repair");
    world.assert_slot(A, 2);
}

/// Returns a host that trusts only the first key, and the third key, with which the CDN's release is signed.
fn host_two_rotations_behind() -> (World, PrivateKey) {
    let world = World::new();
    let three = PrivateKey::generate();
    trust(&world, &[&world.key]);
    publish(&world, 3, &three);
    assert_update_rejected(&world);
    (world, three)
}

#[test]
fn operator_adds_key_to_host_two_rotations_behind() {
    for by_esp in [true, false] {
        let (world, three) = host_two_rotations_behind();
        match by_esp {
            true => world.write(ESP_CONFIG, keys(&three)),
            false => {
                let encoded = STANDARD.encode(keys(&three));
                let line = format!("quiet etchaos.slot=a etchaos.config={encoded}\n");
                world.write("host/proc/cmdline", line);
            }
        }
        world.run(&["update"]).ended(0);

        // The new image trusts its own key, so the operator's configuration can be removed.
        run_on(&world, B, &[&three]);
        let _ = std::fs::remove_file(world.path(ESP_CONFIG));
        world.assert_slot(B, 3);
        publish(&world, 4, &three);
        world.run(&["update"]).ended(0);
        world.assert_slot(A, 4);
    }
}

const ESP_CONFIG: &str = "esp/etchaos/config.json";

/// Returns a configuration that trusts this key.
fn keys(key: &PrivateKey) -> String {
    json!({"keys": [key.public().to_string()]}).to_string()
}

#[test]
fn operator_adds_key_for_one_update() {
    let (world, three) = host_two_rotations_behind();
    world.write("once.json", keys(&three));
    let once = world.path("once.json");
    world.run(&["--config", once.to_str().unwrap(), "update"]).ended(0);
    // Without that configuration the host trusts only the old key.
    assert_update_rejected(&world);
    run_on(&world, B, &[&three]);
    world.assert_slot(B, 3);
    publish(&world, 4, &three);
    world.run(&["update"]).ended(0);
    world.assert_slot(A, 4);
}

#[test]
fn host_two_rotations_behind_updates_through_bridge_release() {
    let (world, three) = host_two_rotations_behind();
    // The bridge is the last release that the first key signed. It has its own URL.
    for role in Role::BOOT {
        let path = format!("/bridge/2.{}", role.extension());
        world.cdn.put(&path, Reply::ok(content(role, 2)));
    }
    let token = sign(&world.key, &claims(&release(2))).unwrap();
    world.cdn.put(&format!("/bridge/{}", target().manifest_name()), Reply::ok(token));

    world.write("bridge.json", json!({"cdn": format!("{}/bridge", world.cdn.url)}).to_string());
    let bridge = world.path("bridge.json");
    world.run(&["--config", bridge.to_str().unwrap(), "update"]).ended(0);
    run_on(&world, B, &[&world.key, &three]);
    world.assert_slot(B, 2);
    // Further updates need no configuration.
    world.run(&["update"]).ended(0);
    world.assert_slot(A, 3);
}
