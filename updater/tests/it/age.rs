//! The age of a release on a host that was installed from a disk image. The image has no build number, so
//! that a release is older if its manifest was signed before the date of the newest package in the image.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use protocol::esp::Slot::{A, B};
use protocol::token::sign;
use protocol::{Claims, Release, Role};

use crate::server::Reply;
use crate::world::{World, claims, content, now, release};

const DAY: u64 = 86_400;

/// Returns a host that was installed from the disk image of the n-th release, which has this epoch.
fn imaged(n: u64, epoch: u64) -> World {
    let world = World::new();
    world.fill(A, n, 0);
    let image = Release { build: 0, epoch, ..release(n) };
    let claims = Claims { etchaos_release: Some(image), ..Claims::default() };
    world.write("esp/etchaos/a/release.jwt", sign(&world.key, &claims).unwrap());
    world.write("host/usr/lib/clock-epoch", "");
    let file = fs::File::options().write(true).open(world.path("host/usr/lib/clock-epoch"));
    file.unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(epoch)).unwrap();
    world
}

/// Makes the CDN offer the n-th release, with this build number and epoch, in a manifest signed at `iat`.
fn offer(world: &World, n: u64, build: u64, epoch: u64, iat: u64) {
    for role in Role::BOOT {
        let path = format!("/{n}.{}", role.extension());
        world.cdn.put(&path, Reply::ok(content(role, n)));
    }
    let claims = Claims { iat: Some(iat), ..claims(&Release { build, epoch, ..release(n) }) };
    world.publish_token(sign(&world.key, &claims).unwrap());
}

#[test]
fn fresh_host_installs_a_release_without_the_newest_package() {
    let epoch = now() - DAY;
    let world = imaged(1, epoch);
    // The newest package of release 1 was removed from the variant.
    offer(&world, 2, 2, epoch - 7 * DAY, now());
    let ran = world.run(&["update", "--no-reboot", "--json"]).ended(0);
    assert_eq!(ran.json()["step"], "install");
    world.assert_slot(B, 2);
    world.on_trial(A, B, 2);
    world.boot(B);
    world.run(&["confirm"]).ended(0);
    // A renewed manifest of the same release changes nothing.
    offer(&world, 2, 2, epoch - 7 * DAY, now() + 1);
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "upToDate");
}

#[test]
fn fresh_host_refuses_a_manifest_signed_before_its_image() {
    let epoch = now() - DAY;
    let world = imaged(2, epoch);
    let before = world.tree();
    // The manifest is valid, and its release would have been accepted if it had been published later.
    offer(&world, 1, 1, epoch - 7 * DAY, epoch - 1);
    world.run(&["update"]).failed(&["(build 1), which is older than", "--allow-downgrade"]);
    // A date in the manifest that the signer did not take from the clock does not help.
    offer(&world, 1, 1, epoch + 1, epoch - 1);
    world.run(&["update"]).failed(&["(build 1), which is older than"]);
    assert_eq!(world.tree(), before);
    world.run(&["update", "--no-reboot", "--allow-downgrade"]).ended(0);
    world.assert_slot(B, 1);
}

#[test]
fn fresh_host_of_a_withdrawn_release_installs_the_previous_one() {
    let (first, second) = (now() - 9 * DAY, now() - DAY);
    let world = imaged(2, second);
    // Release 2 is bad. The publisher publishes the content of release 1 again, as build 3.
    offer(&world, 1, 3, first, now());
    let ran = world.run(&["update", "--no-reboot", "--json"]).ended(0);
    assert_eq!(ran.json()["step"], "install");
    world.assert_slot(B, 1);
    // The manifest of the withdrawn release is replayed.
    offer(&world, 2, 2, second, second + 60);
    world.run(&["update"]).failed(&["has build 2", "older than the known build 3"]);
}
