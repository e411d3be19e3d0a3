//! Destinations with content that no builder has written, and destinations that cannot be written.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use protocol::{Claims, Release, Role};

use crate::judge;
use crate::world::{World, claims, target};

/// Returns a world with a published release.
fn published() -> World {
    let world = World::new();
    world.build("out", "a");
    world.publish("out", "").ok();
    world
}

/// Replaces the live manifest by a changed one that is signed with the key.
fn change(world: &World, change: impl FnOnce(&mut Release)) {
    let mut release = world.live("cdn", "key").release.clone();
    change(&mut release);
    world.write_manifest(&world.path("cdn"), &claims(release), "key");
}

#[test]
fn replaces_a_release_with_urls_that_hosts_refuse() {
    for url in ["../../x", "/etc/passwd", "a/../../x", "https://other.example/x", ".lock", "x?y"] {
        let world = published();
        change(&world, |release| release.artifacts[1].url = url.into());
        world.run("verify deb --arch amd64 --from cdn --trusted-key @key.pub").failed(&["1 of 6"]);
        world.run("renew deb --arch amd64 --out out --to cdn --signing-key @key.key").failed(&[]);
        world.publish("out", "").ok();
        assert_eq!(world.content("cdn", "key"), "a", "{url}");
        change(&world, |release| release.artifacts[1].url = url.into());
        world.build("out", "b");
        world.publish("out", "").ok();
        assert_eq!(world.content("cdn", "key"), "b", "{url}");
    }
}

#[test]
fn refuses_to_replace_a_manifest_with_impossible_sizes() {
    let world = published();
    change(&world, |release| release.artifacts[1].size = u64::MAX);
    world.build("out", "b");
    world.publish("out", "").failed(&[
        "reading the manifest etchaos_deb_amd64.jwt",
        "initrd size",
        "18446744073709551615",
    ]);
    fs::write(world.path("cdn").join(target().manifest_name()), vec![b'x'; 2 << 20]).unwrap();
    world.publish("out", "").failed(&["more than 1048576 bytes"]);
}

/// Nothing is removed if it is not known which files a manifest names.
#[test]
fn removes_nothing_if_the_history_is_damaged() {
    let header = "eyJhbGciOiJFZERTQSJ9";
    let empty = format!("{header}.e30.AAAA");
    let control = format!(
        "{header}.{}.AAAA",
        base64::Engine::encode(
            &base64::engine::general_purpose::URL_SAFE_NO_PAD,
            r#"{"etchaosRelease":{"arch":"\u001b[2J","schema":1}}"#
        )
    );
    for garbage in ["", "nonsense", &empty, &control, &"x".repeat(2 << 20)] {
        let world = published();
        let damaged = world.path("cdn/deb_amd64/history/1.jwt");
        fs::write(&damaged, garbage).unwrap();
        let before = world.tree("cdn/deb_amd64");
        world.build("out", "b");
        let run = world.publish("out", "--keep 1 --keep-months 0 --keep-for 0s").failed(&[
            "the release was published; removing old ones failed",
            "history/1.jwt",
            "nothing was removed",
        ]);
        let shown = [run.stdout, run.stderr].concat();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        let after = world.tree("cdn/deb_amd64");
        assert!(before.keys().all(|path| after.contains_key(path)));
        assert_eq!(world.content("cdn", "key"), "b");
        fs::remove_file(&damaged).unwrap();
        world.publish("out", "--keep 1 --keep-months 0 --keep-for 0s").ok();
        assert!(world.tree("cdn/deb_amd64").len() < after.len());
    }
}

/// A date that no clock has must not end the builder with a panic, nor its history.
#[test]
fn accepts_any_date_in_the_history() {
    for iat in [0, 1 << 40, i64::MAX as u64, u64::MAX] {
        let world = published();
        let release = world.live("cdn", "key").release.clone();
        let claims = Claims { iat: Some(iat), ..claims(release) };
        let history = world.path("cdn/deb_amd64/history");
        world.write_manifest(&history, &claims, "key");
        let name = target().manifest_name();
        fs::rename(history.join(name), history.join("1.jwt")).unwrap();
        world.build("out", "b");
        world.publish("out", "").ok();
        world.run("withdraw deb --arch amd64 --out out --to cdn --signing-key @key.key").ok();
    }
}

#[test]
fn replaces_symbolic_links_and_leaves_their_targets() {
    let world = World::new();
    fs::write(world.path("precious"), "precious").unwrap();
    fs::create_dir_all(world.path("cdn")).unwrap();
    fs::create_dir_all(world.path("precious.d")).unwrap();
    fs::write(world.path("precious.d/x"), "x").unwrap();
    symlink(world.path("precious.d"), world.path("cdn/.partial")).unwrap();
    world.build("out", "a");
    world.publish("out", "").ok();
    let live = world.live("cdn", "key");
    let paths = [
        world.path("cdn").join(target().manifest_name()),
        world.path("cdn").join(&live.release.artifact(Role::Kernel).unwrap().url),
    ];
    // The manifest is a link to a copy, and a file is a link to another one.
    fs::copy(&paths[0], world.path("copy")).unwrap();
    for (path, to) in paths.iter().zip(["copy", "precious"]) {
        fs::remove_file(path).unwrap();
        symlink(world.path(to), path).unwrap();
    }
    world.publish("out", "").ok();
    assert!(fs::symlink_metadata(&paths[1]).unwrap().is_file());
    world.build("out", "b");
    world.publish("out", "").ok();
    assert!(fs::symlink_metadata(&paths[0]).unwrap().is_file());
    assert_eq!(world.content("cdn", "key"), "b");
    assert_eq!(fs::read_to_string(world.path("precious")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(world.path("precious.d/x")).unwrap(), "x");
}

#[test]
fn refuses_a_lock_that_is_a_symbolic_link() {
    let world = World::new();
    fs::write(world.path("precious"), "precious").unwrap();
    fs::create_dir_all(world.path("cdn")).unwrap();
    symlink(world.path("precious"), world.path("cdn/.lock")).unwrap();
    world.build("out", "a");
    world.publish("out", "").failed(&["cdn/.lock", "symbolic link"]);
    assert_eq!(fs::read_to_string(world.path("precious")).unwrap(), "precious");
}

#[test]
fn a_destination_that_cannot_be_written_keeps_its_release() {
    let world = published();
    let before = world.tree("cdn");
    world.build("out", "b");
    let mode =
        |mode| fs::set_permissions(world.path("cdn"), PermissionsExt::from_mode(mode)).unwrap();
    if nix::unistd::geteuid().is_root() {
        // No mode stops root, so the directory is in a read-only mount.
        let Some(mount) = Mount::read_only(&world, "cdn") else { return };
        world.publish("out", "").failed(&["cdn", "Read-only file system"]);
        drop(mount);
    } else {
        mode(0o555);
        world.publish("out", "").failed(&["cdn", "Permission denied"]);
        mode(0o755);
    }
    assert_eq!(world.tree("cdn"), before);
    world.publish("out", "").ok();
}

#[test]
fn a_full_disk_keeps_the_old_release_whole() {
    let world = World::new();
    let Some(_mount) = Mount::tmpfs(&world, "cdn", "size=1200k") else { return };
    world.build("out", "a");
    world.publish("out", "").ok();
    let before = world.live("cdn", "key");
    world.build("out", "b");
    world.publish("out", "").failed(&["publishing deb_amd64/13.b", "No space left on device"]);
    assert_eq!(world.live("cdn", "key"), before);
    assert_eq!(world.content("cdn", "key"), "a");
    assert!(world.tree("cdn/.partial").is_empty());
}

/// A mount in a directory of the world, which is unmounted when it is dropped.
struct Mount(String);

impl Mount {
    fn read_only(world: &World, at: &str) -> Option<Self> {
        let at = world.path(at).to_str().unwrap().to_owned();
        Self::new(&["--bind", "-o", "ro", &at, &at], &at)
    }

    fn tmpfs(world: &World, at: &str, options: &str) -> Option<Self> {
        fs::create_dir_all(world.path(at)).unwrap();
        let at = world.path(at).to_str().unwrap().to_owned();
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs", &at], &at)
    }

    fn new(arguments: &[&str], at: &str) -> Option<Self> {
        let output = std::process::Command::new("mount").args(arguments).output().ok()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            judge::skip(&format!("cannot mount here: {error}"));
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}
