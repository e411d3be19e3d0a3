//! Updates by deltas, and what makes a host download the whole file instead.

use std::fs;

use protocol::delta::{Codec, DELTA_MAX, Delta, Extent, FORMAT, Operation, Recompress, Segment};
use protocol::esp::Slot::{A, B};
use protocol::release::DeltaFile;
use protocol::{Release, Role};
use serde_json::json;

use crate::server::{End, Reply};
use crate::world::{World, content, release, sha256};

/// Returns a delta between two files without compressed blocks.
pub(crate) fn delta(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut differences = Vec::new();
    let mut gap = 0;
    for (old, new) in old.iter().zip(new) {
        if old == new {
            gap += 1;
        } else {
            differences.push((gap, new.wrapping_sub(*old)));
            gap = 0;
        }
    }
    let add = old.len().min(new.len());
    let delta = Delta {
        source: old.len() as u64,
        target: new.len() as u64,
        recompress: Recompress::here(Codec::Block, 9),
        extents: vec![Extent { offset: 0, stored: old.len() as u32, frame: None }],
        segments: vec![Segment::Plain { length: new.len() as u64 }],
        operations: vec![Operation {
            position: 0,
            add: add as u64,
            literal: (new.len() - add) as u64,
        }],
        differences,
        literals: new[add..].to_vec(),
    };
    delta.to_bytes().unwrap()
}

/// Returns the manifest's entry of a delta from the initrd of release 1.
pub(crate) fn entry(bytes: &[u8]) -> DeltaFile {
    DeltaFile {
        from: sha256(&content(Role::Initrd, 1)),
        format: FORMAT.into(),
        name: "2.initrd.delta".into(),
        size: bytes.len() as u64,
        sha256: sha256(bytes),
        url: "2.initrd.delta".into(),
        memory: 64 << 20,
    }
}

/// Returns release 2 with this delta of its initrd.
fn release_with(delta: DeltaFile) -> Release {
    let mut next = release(2);
    next.artifacts[1].deltas.push(delta);
    next
}

/// Sets the free memory of the host in MiB.
fn set_memory(world: &World, mebibytes: u64) {
    let text = format!("MemTotal: 9999999 kB\nMemAvailable:   {} kB\n", mebibytes * 1024);
    world.write("host/proc/meminfo", text);
}

/// Returns a host with release 1 whose CDN offers release 2 with a delta, and the delta.
fn world() -> (World, Vec<u8>) {
    let world = World::new();
    set_memory(&world, 512);
    world.publish(2);
    let bytes = delta(&content(Role::Initrd, 1), &content(Role::Initrd, 2));
    world.cdn.put("/2.initrd.delta", Reply::ok(bytes.clone()));
    world.publish_manifest(&release_with(entry(&bytes)));
    (world, bytes)
}

/// Returns whether the host requested a path.
fn requested(world: &World, path: &str) -> bool {
    world.cdn.requests().contains(&format!("GET {path}"))
}

/// Asserts that the update succeeds with the whole initrd, and that the journal says why.
#[track_caller]
fn downloads_whole_initrd(world: &World, reason: &str) {
    let ran = world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    assert!(requested(world, "/2.initrd"), "{:?}", world.cdn.requests());
    assert!(ran.stderr.contains(reason), "no {reason:?} in: {}", ran.stderr);
}

#[test]
fn fetches_the_delta_instead_of_the_file() {
    let (world, bytes) = world();
    let kernel = content(Role::Kernel, 2).len() as u64;
    let check = world.run(&["check", "--json"]).ended(10).json();
    let expected = json!({"bytes": kernel + bytes.len() as u64, "files": [
        {"role": "kernel", "from": "download", "bytes": kernel},
        {"role": "initrd", "from": "delta", "bytes": bytes.len()},
    ]});
    assert_eq!(check["download"], expected);
    let text = world.run(&["update", "--dry-run"]).ended(0).stdout;
    assert!(text.contains(&format!("initrd: delta, {}", bytes.len())), "{text}");

    let before = world.cdn.sent();
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stderr.contains("patching the initrd"), "{}", ran.stderr);
    world.assert_slot(B, 2);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    assert!(!requested(&world, "/2.initrd"));
    let sent = world.cdn.sent() - before;
    assert!(sent < kernel + bytes.len() as u64 + 10_000, "{sent}");
}

#[test]
fn resumes_a_download_by_the_delta() {
    let (world, bytes) = world();
    world.cdn.remove("/2.initrd.delta");
    let whole = content(Role::Initrd, 2);
    world.cdn.put("/2.initrd", Reply::ok(whole.clone()).cut(200_000, End::Close));
    world.run(&["update"]).ended(1);
    world.cdn.put("/2.initrd.delta", Reply::ok(bytes));
    world.run(&["update", "--retry-failed"]).ended(0);
    world.assert_slot(B, 2);
    assert!(requested(&world, "/2.initrd.delta"));
}

#[test]
fn a_delta_that_cannot_be_fetched_costs_nothing() {
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
}

#[test]
fn a_delta_that_gives_another_file_is_not_used() {
    let mut other = content(Role::Initrd, 2);
    other[200_000] ^= 1;
    let world = World::new();
    set_memory(&world, 512);
    world.publish(2);
    let bytes = delta(&content(Role::Initrd, 1), &other);
    world.cdn.put("/2.initrd.delta", Reply::ok(bytes.clone()));
    world.publish_manifest(&release_with(entry(&bytes)));
    downloads_whole_initrd(&world, "gives a file with the SHA-256");
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["wrongFiles"][0]["failures"], 1);
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

#[test]
fn a_delta_that_does_not_suit_the_host_is_not_even_fetched() {
    let (_, bytes) = world();
    let changes: [fn(&mut DeltaFile); 5] = [
        |delta| delta.from = "ab".repeat(32),
        |delta| delta.format = "of-the-future".into(),
        |delta| delta.size = DELTA_MAX + 1,
        |delta| delta.size = content(Role::Initrd, 2).len() as u64,
        |delta| delta.memory = 200 << 20,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let (world, _) = world();
        let mut delta = entry(&bytes);
        change(&mut delta);
        world.publish_manifest(&release_with(delta));
        downloads_whole_initrd(&world, "downloading the initrd");
        assert!(!requested(&world, "/2.initrd.delta"), "change {index}");
    }
    let (world, _) = world();
    set_memory(&world, 100);
    downloads_whole_initrd(&world, "downloading the initrd");
    assert!(!requested(&world, "/2.initrd.delta"));
}

#[test]
fn a_damaged_source_is_not_used() {
    let (world, _) = world();
    let initrd = world.esp("etchaos/a/initrd");
    let mut bytes = fs::read(&initrd).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&initrd, bytes).unwrap();
    downloads_whole_initrd(&world, "downloading the initrd");
    assert!(!requested(&world, "/2.initrd.delta"));
}
