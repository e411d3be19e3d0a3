//! Deltas of publications.

use std::fs;
use std::path::PathBuf;

use protocol::{Release, Role, digest};

use super::{World, release, text, week};
use crate::publish::renew::renew;
use crate::publish::withdraw::withdraw;
use crate::publish::{Outcome, layout, next_build};
use crate::published;

#[test]
fn publishes_deltas_from_earlier_releases() {
    let mut world = World::new(&["a", "b"]);
    world.publish("one", week(0));
    world.publish("two", week(1));
    world.deltas = 1;
    let report = world.publish("three", week(2));
    assert_eq!(report.deltas.len(), 2, "{:?}", report.deltas);
    let (three, two) = (world.live(0), release("two"));
    assert_eq!(world.live(1).artifacts, three.artifacts);
    for role in Role::BOOT {
        let (new, old) = (three.artifact(role).unwrap(), two.artifact(role).unwrap());
        let [delta] = &new.deltas[..] else { panic!("{:?}", new.deltas) };
        assert_eq!(delta.from, old.sha256);
        assert!(delta.size < new.size / 2);
        let root = PathBuf::from(world.sites[1].destination.describe());
        let bytes = fs::read(root.join(&delta.url)).unwrap();
        let limits =
            protocol::delta::Limits { source: old.size, target: new.size, memory: delta.memory };
        let mut written = Vec::new();
        let source = std::io::Cursor::new(text("two", &old.name));
        let mut write = |piece: &[u8]| {
            written.extend_from_slice(piece);
            Ok(())
        };
        protocol::delta::apply(&bytes, source, &limits, &mut write).unwrap();
        assert_eq!(digest::of_bytes(&written), new.sha256);
    }
    // A release that is published again, or withdrawn in favor of, keeps its deltas.
    assert_eq!(world.publish("three", week(3)).deltas, Vec::<String>::new());
    assert_eq!(world.live(0).artifacts, three.artifacts);
    world.deltas = 9;
    let report = world.publish("four", week(4));
    // Only two releases are kept.
    assert_eq!(report.deltas.len(), 4, "{:?}", report.deltas);
    withdraw(&world.publisher(&world.signing), None, week(5)).unwrap();
    assert_eq!(world.live(0).artifacts, three.artifacts);
}

#[test]
fn a_delta_that_is_missing_or_damaged_is_left_out() {
    let mut world = World::new(&["a"]);
    world.deltas = 1;
    for (number, content) in (0..).zip(["one", "two", "three"]) {
        world.publish(content, week(number));
    }
    let deltas = |release: &Release, content: &str| -> Vec<PathBuf> {
        assert_eq!(release.version, format!("13.{content}"));
        release.deltas().map(|delta| world.path("a").join(&delta.url)).collect()
    };
    let two = published::read(
        world.sites[0].location(),
        &layout::history_path(&world.target, next_build(0, week(1))),
        &world.target,
        &world.signing.ring().unwrap(),
    );
    let two = two.unwrap().unwrap().release().clone();
    let publisher = world.publisher(&world.signing);
    fs::remove_file(&deltas(&two, "two")[0]).unwrap();
    let report = withdraw(&publisher, None, week(3)).unwrap();
    assert!(report.deltas[0].contains("left out: it is missing"), "{:?}", report.deltas);
    report.check().unwrap();
    let [left] = &deltas(&world.live(0), "two")[..] else { panic!("{report:?}") };
    fs::write(left, "damaged").unwrap();
    let report = renew(&publisher, week(4)).unwrap();
    assert!(report.deltas[0].contains("left out: it has 7 bytes"), "{:?}", report.deltas);
    report.check().unwrap();
    assert_eq!(deltas(&world.live(0), "two").len(), 0);
    // An unchanged release gets a manifest that does not name it.
    world.publish("three", week(5));
    fs::remove_file(&deltas(&world.live(0), "three")[1]).unwrap();
    let report = world.publish("three", week(6));
    assert!(matches!(report.outcome, Outcome::Renewed { .. }), "{:?}", report.outcome);
    assert_eq!(deltas(&world.live(0), "three").len(), 1);
}

#[test]
fn a_manifest_that_cannot_be_verified_is_reported() {
    let mut world = World::new(&["a"]);
    world.deltas = 4;
    world.publish("one", week(0));
    let path = layout::history_path(&world.target, 7);
    fs::write(world.path("a").join(path), "x").unwrap();
    let report = world.publish("two", week(1));
    assert!(report.deltas[0].starts_with("no deltas from build 7: "), "{:?}", report.deltas);
    assert_eq!(world.live(0).deltas().count(), 2);
}

#[test]
fn the_first_release_of_a_month_stays_and_hosts_update_from_it_by_delta() {
    let mut world = World::new(&["a"]);
    world.months = 1;
    // The first three weeks are in September, the others in October.
    for (number, content) in (0..).zip(["one", "two", "three", "four", "five"]) {
        world.publish(content, week(number));
    }
    world.deltas = 2;
    let report = world.publish("six", week(5));
    let initrd = world.live(0).artifact(Role::Initrd).unwrap().clone();
    let from: Vec<&str> = initrd.deltas.iter().map(|delta| delta.from.as_str()).collect();
    let old = ["five", "four", "one"].map(|content| release(content).artifacts[1].sha256.clone());
    assert_eq!(from, old, "{:?}", report.deltas);
    let removed = &report.destinations[0].removed;
    let is_removed = |content: &str| removed.iter().any(|path| path.contains(content));
    assert!(is_removed("13.one") && !is_removed("13.four"), "{removed:?}");
}

#[test]
fn a_delta_that_cannot_be_made_does_not_prevent_a_release() {
    let mut world = World::new(&["a"]);
    let directory = world.path("a");
    world.publish("one", week(0));
    let kernel = world.live(0).artifact(Role::Kernel).unwrap().url.clone();
    fs::write(directory.join(kernel), "damaged").unwrap();
    world.deltas = 4;
    let report = world.publish("two", week(1));
    assert!(report.deltas[0].starts_with("delta of the kernel from build"), "{:?}", report.deltas);
    assert!(report.deltas[0].contains("not made: fetching the old file"), "{:?}", report.deltas);
    let artifacts = world.live(0).artifacts;
    let counts: Vec<usize> = artifacts.iter().map(|it| it.deltas.len()).collect();
    assert_eq!(counts, [0, 1, 0], "{:?}", report.deltas);
}
