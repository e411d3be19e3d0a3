//! Which releases stay, for hosts that have read an earlier manifest.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use protocol::Release;

use crate::world::World;

/// Publishes a release with further options, and returns it.
fn published(world: &World, content: &str, options: &str) -> Release {
    world.build("out", content);
    world.publish("out", options).ok();
    world.live("cdn", "key").release.clone()
}

/// Returns whether a host that has read the manifest of a release can download all of its files.
fn is_there(world: &World, release: &Release) -> bool {
    release.all_files().all(|file| {
        let bytes = fs::read(world.path("cdn").join(file.url)).unwrap_or_default();
        protocol::digest::of_bytes(&bytes) == file.sha256
    })
}

/// Without options, a host has a week for its download, however many releases follow.
#[test]
fn hosts_finish_their_downloads_by_default() {
    let world = World::new();
    let first = published(&world, "first", "");
    for number in 0..8 {
        published(&world, &format!("r{number}"), "");
    }
    assert!(is_there(&world, &first));
}

/// With no time for downloads, a host that has read the manifest before has to poll again.
#[test]
fn keeps_only_the_live_release_if_asked() {
    let world = World::new();
    let first = published(&world, "first", "--keep 1 --keep-months 0 --keep-for 0s");
    let second = published(&world, "second", "--keep 2 --keep-for 0s");
    assert!(is_there(&world, &first) && is_there(&world, &second));
    let third = published(&world, "third", "--keep 1 --keep-months 0 --keep-for 0s");
    assert!(!is_there(&world, &first) && !is_there(&world, &second) && is_there(&world, &third));
    let left = fs::read_dir(world.path("cdn/deb_amd64")).unwrap().count();
    assert_eq!(left, 2, "the history and the live release");
    let withdraw = "withdraw deb --arch amd64 --out out --to cdn --signing-key @key.key";
    world.run(withdraw).failed(&["no release that is older", "--build"]);
}

/// A release stays for a time after it was replaced, and not after it was built or signed.
#[test]
fn a_long_upload_does_not_shorten_the_time_for_downloads() {
    let world = World::new();
    let first = published(&world, "first", "");
    let second = published(&world, "second", "");
    // The second publisher signed its manifest an hour before it replaced the first one.
    let history = world.path(&format!("cdn/deb_amd64/history/{}.jwt", second.build));
    let claims = protocol::Claims {
        iat: Some(crate::world::now() - 3600),
        ..crate::world::claims(second.clone())
    };
    let modified = fs::metadata(&history).unwrap().modified().unwrap();
    let live = world.path("cdn");
    world.write_manifest(&live, &claims, "key");
    fs::copy(live.join(crate::world::target().manifest_name()), &history).unwrap();
    fs::File::options().write(true).open(&history).unwrap().set_modified(modified).unwrap();
    let third = published(&world, "third", "--keep 1 --keep-months 0 --keep-for 10m");
    assert!(is_there(&world, &first) && is_there(&world, &second) && is_there(&world, &third));
}

#[test]
fn removes_the_rest_of_killed_publishers_after_a_day() {
    let world = World::new();
    published(&world, "first", "");
    let rest = |age: u64| -> PathBuf {
        let path = world.path(&format!("cdn/deb_amd64/13.rest-{age}/etchaos_deb_amd64.initrd"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        let time = SystemTime::now() - Duration::from_secs(age);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    };
    let (day, month) = (24 * 3600, 30 * 24 * 3600);
    let (young, old, oldest) = (rest(day - 600), rest(day + 600), rest(month));
    let other = world.path("cdn/other.txt");
    fs::write(&other, "x").unwrap();
    world.publish("out", "").ok();
    assert!(young.exists() && old.exists() && !oldest.exists(), "a week is the default");
    world.publish("out", "--keep-for 0s").ok();
    assert!(young.exists() && !old.exists() && !old.parent().unwrap().exists() && other.exists());
    // A release that is completed long after its upload was killed belongs to the live ones.
    let path = world.live("cdn", "key").release.artifacts[0].url.clone();
    let time = SystemTime::now() - Duration::from_secs(month);
    let file = fs::File::options().write(true).open(world.path("cdn").join(path)).unwrap();
    file.set_modified(time).unwrap();
    world.publish("out", "--keep-for 0s").ok();
    world.live("cdn", "key");
}
