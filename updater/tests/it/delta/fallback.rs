//! Deltas that fail, for which the update downloads the whole file.

use std::time::Duration;

use protocol::esp::Slot::{A, B};
use protocol::{KeyRing, Role};
use updater::candidate::{CandidateRequest, fetch};
use updater::esp::{Access, Esp};
use updater::host::{Booted, Host};
use updater::install::{FileOrigin, Source, Way};
use updater::plan::Permissions;
use updater::progress::{Progress, Show};
use updater::update::{Request, Update};

use super::{
    delta, downloads_whole_initrd, entry, initrd_in_slot_b, release_with, set_memory, world,
};
use crate::network::with_stall_timeout;
use crate::server::{End, Reply};
use crate::world::{World, content, now, target};

#[test]
fn a_delta_that_cannot_be_fetched_is_replaced_by_the_whole_file() {
    let (world, bytes) = world();
    world.cdn.remove("/2.initrd.delta");
    downloads_whole_initrd(&world, "404");

    let (world, _) = self::world();
    let half = bytes[..bytes.len() / 2].to_vec();
    world.cdn.put("/2.initrd.delta", Reply::ok(half));
    downloads_whole_initrd(&world, "announces");

    let (world, _) = self::world();
    world.cdn.put("/2.initrd.delta", Reply::ok(vec![0; bytes.len()]));
    downloads_whole_initrd(&world, "has the SHA-256");
    // Its URL is not requested again.
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert!(status["wrongFiles"][0]["url"].as_str().unwrap().ends_with("/2.initrd.delta"));

    // A response that is longer than the manifest says, and without end.
    let (world, _) = self::world();
    let endless = Reply { length: Some(None), end: End::Repeat, ..Reply::ok(bytes.clone()) };
    world.cdn.put("/2.initrd.delta", endless);
    downloads_whole_initrd(&world, "sends more than");

    // A connection that breaks after half of it, each time.
    let (world, _) = self::world();
    world.cdn.put("/2.initrd.delta", Reply::ok(bytes.clone()).cut(bytes.len() / 2, End::Close));
    downloads_whole_initrd(&world, &format!("{} of", bytes.len() / 2));
}

#[test]
fn a_server_that_stalls_in_the_delta_costs_only_time() {
    let stalls = |bytes: Vec<u8>| Reply::ok(bytes.clone()).cut(bytes.len() / 2, End::Stall);
    // Slower than a kilobyte in a second.
    let pause = Some(Duration::from_millis(5));
    let is_slow = |bytes: Vec<u8>| Reply { pause, ..Reply::ok(bytes) };
    let replies: [&dyn Fn(Vec<u8>) -> Reply; 2] = [&stalls, &is_slow];
    for reply in replies {
        let (world, bytes) = world();
        world.cdn.put("/2.initrd.delta", reply(bytes));
        let origins = update_with_short_timeouts(&world);
        let FileOrigin { way, reason, .. } = &origins[1];
        assert_eq!(*way, Way::Download);
        let reason = reason.as_deref().unwrap();
        assert!(reason.contains("stalled") || reason.contains("too slow"), "{reason}");
        world.assert_slot(B, 2);
    }
}

/// Installs the release that the CDN offers as `update` does, but with a client that gives up after a moment.
fn update_with_short_timeouts(world: &World) -> Vec<FileOrigin> {
    let host = Host::new(world.path("host"));
    let access = Access::Write { wait: Duration::ZERO };
    let esp = Esp::open(&host, Some(&world.esp("")), access).unwrap().unwrap();
    let cdn = with_stall_timeout(Duration::from_millis(300));
    let keys = KeyRing::from(world.key.public().clone());
    let candidate = CandidateRequest {
        bases: std::slice::from_ref(&world.cdn.url),
        target: &target(),
        keys: &keys,
        now: now(),
        newest: None,
        cache: None,
    };
    let candidate = fetch(&cdn, &candidate).unwrap();
    let source = Source {
        candidate: &candidate,
        cdn: &cdn,
        allowed_origins: &[],
        keys: &keys,
        host: &host,
        retry_failed: false,
    };
    let booted = Booted { slot: Some(A), on_trial: false, id: None };
    let request = Request { esp: &esp, booted, source, allow: Permissions::default() };
    let mut update = Update::decide(request);
    update.carry_out(&Progress::new(Show::Nothing)).unwrap();
    update.origins()
}

#[test]
fn a_delta_that_produces_another_file_is_not_used() {
    let mut other = content(Role::Initrd, 2);
    other[200_000] ^= 1;
    let world = World::new();
    set_memory(&world, 512);
    world.publish(2);
    let bytes = delta(&content(Role::Initrd, 1), &other);
    world.cdn.put("/2.initrd.delta", Reply::ok(bytes.clone()));
    world.publish_manifest(&release_with(entry(&bytes)));
    downloads_whole_initrd(&world, "produces a file with the SHA-256");
}

#[test]
fn a_delta_that_failed_is_not_tried_again() {
    let (world, bytes) = world();
    let mut other = bytes.clone();
    // The release names a delta that fails, and the whole initrd cannot be downloaded either.
    other.truncate(bytes.len() - 1);
    world.cdn.put("/2.initrd.delta", Reply::ok(other.clone()));
    world.publish_manifest(&release_with(entry(&other)));
    let whole = content(Role::Initrd, 2);
    world.cdn.put("/2.initrd", Reply::ok(whole.clone()).cut(1000, End::Close));
    world.run(&["update"]).failed(&["length is wrong", "ended after"]);
    let fetched = || world.cdn.requests().iter().filter(|it| *it == "GET /2.initrd.delta").count();
    assert_eq!(fetched(), 1);
    world.run(&["update"]).failed(&["the delta failed before: 2.initrd.delta", "ended after"]);
    assert_eq!(fetched(), 1);
    let check = world.run(&["check", "--json"]).ended(10).json();
    assert!(check["download"]["files"][1]["reason"].as_str().unwrap().contains("length is wrong"));
    let status = world.run(&["status", "--json"]).ended(0).json();
    let [failed] = &status["failedDeltas"].as_array().unwrap()[..] else { panic!("{status}") };
    assert_eq!(failed["sha256"], entry(&other).sha256);
    assert!(failed["reason"].as_str().unwrap().contains("length is wrong"), "{failed}");
    let table = world.run(&["status"]).ended(0).stdout;
    assert!(table.contains("not tried again: 2.initrd.delta: "), "{table}");
    // The operator can have it tried again.
    let dry = world.run(&["update", "--dry-run", "--retry-failed"]).ended(0).stdout;
    assert!(dry.contains("initrd: delta"), "{dry}");
    world.run(&["update", "--retry-failed"]).failed(&["length is wrong"]);
    assert_eq!(fetched(), 2);
    // A server that has the file again is not held up by that.
    world.cdn.put("/2.initrd", Reply::ok(whole));
    downloads_whole_initrd(&world, "the delta failed before");
    assert_eq!(fetched(), 2);
}

#[test]
fn a_delta_that_could_not_be_fetched_is_tried_again() {
    let (world, bytes) = world();
    world.cdn.put("/2.initrd.delta", Reply::status(503));
    world.cdn.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)).cut(1000, End::Close));
    world.run(&["update"]).failed(&["503", "ended after"]);
    world.cdn.put("/2.initrd.delta", Reply::ok(bytes));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert_eq!(initrd_in_slot_b(&world)["from"], "delta");
}

/// Flips a bit of a file in slot a as soon as the host requests a path.
fn damage_when_requested(world: &World, name: &str, path: &str, reply: Reply) {
    let file = world.esp(&format!("etchaos/a/{name}"));
    world.cdn.answer(path, move |request| {
        if request.method == "GET" {
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[100_000] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
        reply.clone()
    });
}

#[test]
fn a_source_that_is_damaged_during_the_update_is_noticed() {
    let (world, bytes) = world();
    damage_when_requested(&world, "initrd", "/2.initrd.delta", Reply::ok(bytes));
    downloads_whole_initrd(&world, "produces a file with the SHA-256");
}

#[test]
fn a_malformed_delta_is_not_used() {
    let (_, bytes) = world();
    for (bytes, reason) in [
        (b"not a delta".to_vec(), "too short"),
        (vec![0; 1000], "does not begin as a delta"),
        (bytes[..bytes.len() - 1].to_vec(), "length is wrong"),
        (delta(&content(Role::Initrd, 3), &content(Role::Initrd, 2)), "is for a source of"),
    ] {
        let (world, _) = world();
        world.cdn.put("/2.initrd.delta", Reply::ok(bytes.clone()));
        world.publish_manifest(&release_with(entry(&bytes)));
        downloads_whole_initrd(&world, reason);
    }
}
