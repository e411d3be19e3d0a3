//! `builder verify`, and releases that `builder publish` refuses.

use std::fs;

use protocol::{Claims, Role};

use crate::world::{World, claims, now, target};

const VERIFY: &str = "verify deb --arch amd64 --from cdn --trusted-key @key.pub";

/// Returns a world with a published release.
fn published() -> World {
    let world = World::new();
    world.build("out", "a");
    world.publish("out", "").ok();
    world
}

/// Replaces the live manifest by a changed one that is signed with the key.
fn change(world: &World, change: impl FnOnce(&mut Claims)) {
    let mut claims = claims(world.live("cdn", "key").release.clone());
    change(&mut claims);
    world.write_manifest(&world.path("cdn"), &claims, "key");
}

#[test]
fn verifies_a_whole_release() {
    let world = published();
    let text = world.run(VERIFY).ok();
    assert_eq!(text.matches("whole").count(), 6, "{text}");
    assert!(text.contains(world.key("key").id()) && text.contains("valid until 20"), "{text}");
    let text = world.run(&format!("{VERIFY} --json")).ok();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["files"].as_array().unwrap().len(), 6);
    assert!(report["expires"].as_u64().unwrap() > now());
}

#[test]
fn reports_keys_that_did_not_sign() {
    let world = published();
    world.keygen("other");
    let verify = VERIFY.replace("@key.pub", "@other.pub");
    world.run(&verify).failed(&["not trusted", world.key("key").id(), world.key("other").id()]);
    world.run("verify deb --arch amd64 --from cdn").failed(&["--trusted-key", "signing.pub"]);
    world.run(&VERIFY.replace("@key.pub", "nonsense")).failed(&["trusted key is not valid"]);
    world.run(&VERIFY.replace("@key.pub", "@nowhere.pub")).failed(&["nowhere.pub", "No such file"]);
}

#[test]
fn reports_what_hosts_refuse() {
    let world = published();
    change(&world, |claims| (claims.iat, claims.exp) = (Some(1000), Some(2000)));
    world
        .run(VERIFY)
        .failed(&["a host refuses the manifest", "expired at 1970-01-01 00:33:20 UTC"]);
    // A new publication with the same files signs the manifest again.
    let report = world.publish("out", "--json").report();
    assert_eq!(report["result"], "renewed", "{report}");
    change(&world, |claims| claims.exp = None);
    world.run(VERIFY).failed(&["no \"exp\""]);
    world.write_manifest(
        &world.path("cdn"),
        &release_with(&world, |release| release.build = 0),
        "key",
    );
    world.run(VERIFY).failed(&["build 0"]);
    let other = |release: &mut protocol::Release| release.variant = "ubu".parse().unwrap();
    world.write_manifest(&world.path("cdn"), &release_with(&world, other), "key");
    world.run(VERIFY).failed(&["is for ubu_amd64, expected deb_amd64"]);
    world.write_manifest(&world.path("cdn"), &Claims::default(), "key");
    world.run(VERIFY).failed(&["it is not a manifest"]);
    fs::write(world.path("cdn").join(target().manifest_name()), "nonsense").unwrap();
    world.run(VERIFY).failed(&["not a JWT"]);
}

/// Returns the claims of the release in `out`, changed.
fn release_with(world: &World, change: impl FnMut(&mut protocol::Release)) -> Claims {
    let path = world.path("out/deb_amd64").join(target().manifest_name());
    let text = fs::read_to_string(path).unwrap();
    let ring = world.key("key").public().clone().into();
    let mut claims = protocol::token::verify(&text, &ring).unwrap().into_inner();
    claims.etchaos_release.iter_mut().for_each(change);
    claims
}

#[test]
fn reports_every_file_that_is_not_whole() {
    let world = published();
    let live = world.live("cdn", "key");
    let path = |role| world.path("cdn").join(&live.release.artifact(role).unwrap().url);
    let damage = || {
        fs::remove_file(path(Role::Kernel)).unwrap();
        fs::write(path(Role::Initrd), "short").unwrap();
        let mut disk = fs::read(path(Role::Disk)).unwrap();
        disk[1000] ^= 1;
        fs::write(path(Role::Disk), disk).unwrap();
    };
    damage();
    let run = world.run(VERIFY).failed(&["3 of 6 files", "\"builder publish\" repairs them"]);
    for problem in ["is missing", "has 5 bytes, expected 409600", "has the SHA-256"] {
        assert!(run.stdout.contains(problem), "{problem}: {}", run.stdout);
    }
    let text = world.publish("out", "").ok();
    assert!(text.contains("1 files uploaded, 2 repaired"), "{text}");
    world.run(VERIFY).ok();
    let sums = world.path("cdn").join(&live.release.document("checksums").unwrap().url);
    fs::write(&sums, "nonsense\n").unwrap();
    let run = world.run(VERIFY).failed(&["1 of 6 files"]);
    assert!(run.stdout.contains("SHA256SUMS"), "{}", run.stdout);
    fs::remove_dir_all(world.path("cdn")).unwrap();
    world.run(VERIFY).failed(&["the directory cdn does not exist"]);
    fs::create_dir(world.path("cdn")).unwrap();
    world.run(VERIFY).failed(&["cdn has no etchaos_deb_amd64.jwt"]);
}

#[test]
fn publishes_only_what_was_tested() {
    let world = World::new();
    world.build("out", "a");
    let publish = "publish deb --arch amd64 --out out --to cdn --signing-key @key.key";
    world.run(publish).failed(&["was not tested", "builder test deb", "--untested"]);
    let record = world.path("out/deb_amd64/tested.json");
    fs::write(&record, "nonsense").unwrap();
    world.run(publish).failed(&["tested.json is damaged", "builder test deb"]);
    // The record of the release, as `builder test` writes it: a digest of the names, sizes and SHA-256.
    let release = release_with(&world, |_| ()).etchaos_release.unwrap();
    let line = |name: &str, size: u64, sha256: &str| format!("{name} {size} {sha256}\n");
    let lines: String =
        release.files().map(|file| line(file.name, file.size, file.sha256)).collect();
    let content = protocol::digest::of_bytes(lines.as_bytes());
    let json = serde_json::json!({"content": content, "updatedFrom": null, "steps": 3});
    fs::write(&record, json.to_string()).unwrap();
    world.run(publish).ok();
    world.build("out", "b");
    world.run(publish).failed(&["built again after the test", "builder test deb", "--untested"]);
    assert_eq!(world.content("cdn", "key"), "a");
    let run = world.publish("out", "");
    assert!(run.stderr.contains("warning: --untested"), "{run:?}");
    assert_eq!(world.content("cdn", "key"), "b");
}

#[test]
fn publishes_only_what_the_build_has_signed() {
    let world = World::new();
    world.publish("out", "").failed(&["builder build deb"]);
    world.build("out", "a");
    fs::write(world.path("out/deb_amd64").join(target().artifact_name(Role::Initrd)), "x").unwrap();
    world
        .publish("out", "")
        .failed(&["etchaos_deb_amd64.initrd has 1 bytes", "build the release again"]);
    fs::remove_file(world.path("out/deb_amd64").join(target().artifact_name(Role::Initrd)))
        .unwrap();
    world.publish("out", "").failed(&["etchaos_deb_amd64.initrd", "No such file"]);
    world.build("out", "a");
    world.keygen("other");
    world
        .publish("out", "--signing-key @other.key")
        .failed(&["reading the release", "not trusted"]);
    assert!(!world.path("cdn").join(target().manifest_name()).exists());
}
