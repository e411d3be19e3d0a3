//! Updates by deltas, and what makes a host download the whole file instead.

mod fallback;
mod interrupted;
mod shown;

use std::fs;

use protocol::delta::{Codec, DELTA_MAX, Delta, Extent, FORMAT, Operation, Recompress, Segment};
use protocol::esp::Slot::{A, B};
use protocol::release::DeltaFile;
use protocol::{Release, Role};
use serde_json::{Value, json};

use crate::server::Reply;
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

/// Sets the available memory of the host in MiB.
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

/// Asserts that the update succeeds with the whole initrd, and that the journal and `status` say why.
#[track_caller]
fn downloads_whole_initrd(world: &World, reason: &str) {
    let ran = world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert_eq!(world.boots(), (A, Some((B, 3))));
    assert!(requested(world, "/2.initrd"), "{:?}", world.cdn.requests());
    assert!(ran.stderr.contains(reason), "no {reason:?} in: {}", ran.stderr);
    let shown = initrd_in_slot_b(world);
    assert_eq!(shown["from"], "download");
    assert!(shown["reason"].as_str().unwrap().contains(reason), "no {reason:?} in {shown}");
}

/// Returns where the initrd of slot b came from according to `status`.
fn initrd_in_slot_b(world: &World) -> Value {
    let status = world.run(&["status", "--json"]).ended(0).json();
    status["slots"]["b"]["files"][1].clone()
}

#[test]
fn fetches_the_delta_instead_of_the_file() {
    let (world, bytes) = world();
    let kernel = content(Role::Kernel, 2).len() as u64;
    let check = world.run(&["check", "--json"]).ended(10).json();
    let expected = json!({"bytes": kernel + bytes.len() as u64, "files": [
        {"role": "kernel", "from": "download", "bytes": kernel,
         "reason": "the release has no delta from the file in slot a"},
        {"role": "initrd", "from": "delta", "bytes": bytes.len(), "reason": null},
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

type Change = fn(&mut DeltaFile);

#[test]
fn a_delta_that_does_not_suit_the_host_is_not_even_fetched() {
    let (_, bytes) = world();
    let changes: [(Change, &str); 5] = [
        (|delta| delta.from = "ab".repeat(32), "no delta from the file in slot a"),
        (|delta| delta.format = "of-the-future".into(), "has the format \"of-the-future\""),
        (|delta| delta.size = DELTA_MAX + 1, "the delta has 25165825 bytes"),
        (|delta| delta.size = content(Role::Initrd, 2).len() as u64, "fewer than the"),
        (|delta| delta.memory = 200 << 20, "takes 209715200 bytes of memory"),
    ];
    for (change, reason) in changes {
        let (world, _) = world();
        let mut delta = entry(&bytes);
        change(&mut delta);
        world.publish_manifest(&release_with(delta));
        downloads_whole_initrd(&world, reason);
        assert!(!requested(&world, "/2.initrd.delta"), "{reason}");
    }
    let (world, _) = world();
    set_memory(&world, 100);
    downloads_whole_initrd(&world, "a third of the 104857600 available bytes");
    assert!(!requested(&world, "/2.initrd.delta"));
    // A delta that fits is taken, although a smaller one does not.
    let mut release = release_with(DeltaFile { memory: 200 << 20, size: 1, ..entry(&bytes) });
    release.artifacts[1].deltas.push(entry(&bytes));
    let (world, _) = self::world();
    world.publish_manifest(&release);
    world.run(&["update"]).ended(0);
    assert_eq!(initrd_in_slot_b(&world)["from"], "delta");
}

#[test]
fn a_damaged_source_is_not_used() {
    let (world, _) = world();
    let initrd = world.esp("etchaos/a/initrd");
    let mut bytes = fs::read(&initrd).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&initrd, bytes).unwrap();
    downloads_whole_initrd(&world, "slot a holds no complete release");
    assert!(!requested(&world, "/2.initrd.delta"));
}

#[test]
fn a_host_that_is_two_releases_behind_uses_the_delta_from_its_release() {
    let (from_1, from_2) = (content(Role::Initrd, 1), content(Role::Initrd, 2));
    let whole = content(Role::Initrd, 3);
    let delta = |from: &[u8], n: u64| {
        let bytes = delta(from, &whole);
        let url = format!("3.from-{n}.delta");
        let entry = DeltaFile { from: sha256(from), url: url.clone(), ..entry(&bytes) };
        (format!("/{url}"), bytes, entry)
    };
    for has_both in [true, false] {
        let world = World::new();
        set_memory(&world, 512);
        world.publish(3);
        let mut next = release(3);
        for (path, bytes, entry) in
            [delta(&from_2, 2)].into_iter().chain(has_both.then(|| delta(&from_1, 1)))
        {
            world.cdn.put(&path, Reply::ok(bytes));
            next.artifacts[1].deltas.push(entry);
        }
        world.publish_manifest(&next);
        world.run(&["update"]).ended(0);
        world.assert_slot(B, 3);
        assert_eq!(requested(&world, "/3.from-1.delta"), has_both);
        assert!(!requested(&world, "/3.from-2.delta"));
        assert_eq!(requested(&world, "/3.initrd"), !has_both);
        let from = initrd_in_slot_b(&world)["from"].clone();
        assert_eq!(from, if has_both { "delta" } else { "download" });
    }
}
