//! What docs/keys.md asks of publishers.

use std::fs;

use protocol::token::verify;
use protocol::{KeyRing, Manifest, Verified};

use crate::judge;
use crate::world::{Run, World, publish, target};

/// The options of the commands that publish a release again.
const AGAIN: &str = "deb --arch amd64 --out out";

/// Returns a world with three keys: `key`, `two` and `three`.
fn world() -> World {
    let world = World::new();
    world.keygen("two");
    world.keygen("three");
    world
}

/// The table of docs/keys.md: each release is signed with one key and trusts others.
#[test]
fn keys_rotate_through_releases() {
    let world = world();
    let mut newest = 0;
    let rows = [
        ("r10", "key", "--trusted-key @two.pub"),
        ("r11", "key", "--trusted-key @two.pub"),
        ("r21", "two", "--trusted-key @key.pub --trusted-key @three.pub"),
        ("r22", "two", "--trusted-key @three.pub"),
    ];
    for (content, key, trusted) in rows {
        world.build_with("out", content, key);
        world.publish("out", &format!("--signing-key @{key}.key {trusted}")).ok();
        let live = world.live("cdn", key);
        assert_eq!(live.key_id(), world.key(key).id());
        assert!(live.release.build > newest);
        newest = live.release.build;
    }
    world.build_with("out", "r23", "three");
    world.publish("out", "--signing-key @three.key").failed(&["--trusted-key", "not trusted"]);
    assert_eq!(world.content("cdn", "two"), "r22");
}

#[test]
fn a_key_rotates_without_a_change_of_the_release() {
    let world = world();
    world.build("out", "a");
    world.publish("out", "").ok();
    let first = world.live("cdn", "key").release.build;
    world
        .run(&format!("renew {AGAIN} --to cdn --signing-key @two.key --trusted-key @key.pub"))
        .ok();
    let second = world.live("cdn", "two").release.build;
    assert!(second > first);
    // "Unchanged" would leave the manifest of a key that is about to be retired.
    let keys = "--signing-key @three.key --trusted-key @two.pub --trusted-key @key.pub";
    let report = world.publish("out", &format!("{keys} --json")).report();
    assert_eq!(report["result"], "renewed", "{report}");
    assert!(world.live("cdn", "three").release.build > second);
}

/// Instead of an empty directory: only the manifest of the stolen key is read, and no image trusts it.
#[test]
fn after_a_theft_a_release_replaces_that_of_the_stolen_key() {
    let world = world();
    world.build("out", "a");
    world.publish("out", "").ok();
    let stolen = world.live("cdn", "key").release.build;
    world.build_with("out", "b", "two");
    world.publish("out", "--signing-key @two.key --trusted-key @key.pub").ok();
    assert!(world.live("cdn", "two").release.build > stolen);
    let withdraw = format!("withdraw {AGAIN} --to cdn --signing-key @two.key");
    world.run(&withdraw).failed(&["no release that is older"]);
    assert_eq!(
        world.content("cdn", "two"),
        "b",
        "the release of the stolen key does not come back"
    );
}

/// Hosts have seen the releases of the stolen key, and refuse a lower build number.
#[test]
fn after_a_theft_a_release_in_an_empty_directory_is_newer() {
    let world = world();
    for content in ["a", "b", "c"] {
        world.build("out", content);
        world.publish("out", "").ok();
    }
    let stolen = world.live("cdn", "key").release.build;
    world.build_with("out", "d", "two");
    world.publish("out", "--signing-key @two.key").failed(&["--trusted-key", "not trusted"]);
    assert_eq!(world.content("cdn", "key"), "c");
    // The numbers of publications in the same second are ahead of the clock.
    std::thread::sleep(std::time::Duration::from_secs(3));
    world.publish("out", "--signing-key @two.key --trusted-key @three.pub --to empty").ok();
    let live = world.live("empty", "two");
    assert!(live.release.build > stolen, "{} is not newer than {stolen}", live.release.build);
    assert_eq!(world.tree("empty").len(), 1 + 1 + 1 + 6, "lock, manifest, history and files");
}

/// Hosts that trust only the first key install the bridge, and then the release of the second key.
#[test]
fn bridges_hosts_of_an_older_key_to_the_live_release() {
    let world = world();
    world.build_with("out", "a", "two");
    world.publish("out", "--signing-key @two.key").ok();
    let live = world.live("cdn", "two").release.clone();
    let bridge = "--from cdn --to cdn/bridge/1 --signing-key @key.key --trusted-key @two.pub";
    let bridged = || {
        world.run(&format!("bridge {AGAIN} {bridge}")).ok();
        assert_eq!(world.content("cdn/bridge/1", "key"), "a");
        world.live("cdn/bridge/1", "key")
    };
    let first = bridged();
    assert!(first.release.build <= live.build, "the live release is older than the bridge");
    // The bridge is signed again before it expires.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let again = bridged();
    assert!(again.claims.iat > first.claims.iat && again.release == first.release);
    world.build_with("out", "b", "two");
    world.publish("out", "--signing-key @two.key --keep 1 --keep-months 0 --keep-for 0s").ok();
    assert_eq!(world.content("cdn/bridge/1", "key"), "a", "the bridge has files of its own");
}

#[test]
fn bridges_an_earlier_release_and_keeps_its_files() {
    let world = world();
    for content in ["a", "b"] {
        world.build_with("out", content, "two");
        world.publish("out", "--signing-key @two.key").ok();
    }
    let bridge = "--from cdn --to bridge --signing-key @key.key --trusted-key @two.pub";
    world.run(&format!("bridge {AGAIN} {bridge}")).ok();
    let history = world.path("cdn/deb_amd64/history");
    let first = fs::read_dir(history).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let build = first.file_stem().unwrap().to_str().unwrap().to_owned();
    let earlier =
        format!("bridge {AGAIN} {bridge} --build {build} --keep 1 --keep-months 0 --keep-for 0s");
    world.run(&earlier).ok();
    assert_eq!(world.content("bridge", "key"), "a");
    world.run(&format!("bridge {AGAIN} {bridge} --build 7")).failed(&["history/7.jwt"]);
}

#[test]
fn renews_and_withdraws_with_the_same_files() {
    let world = world();
    let again = |command: &str| world.run(&format!("{command} {AGAIN} --to cdn --json"));
    again("renew --signing-key @key.key").failed(&["nothing is published for deb_amd64"]);
    for content in ["a", "b"] {
        world.build("out", content);
        world.publish("out", "").ok();
    }
    let bad = world.live("cdn", "key").release.clone();
    let report = again("renew --signing-key @key.key").report();
    assert_eq!(report["result"], "renewed", "{report}");
    assert_eq!(world.live("cdn", "key").release.artifacts, bad.artifacts);
    let report = again("withdraw --signing-key @key.key").report();
    assert_eq!(
        (&report["result"], &report["destinations"][0]["uploaded"]),
        (&"published".into(), &0.into())
    );
    assert_eq!(world.content("cdn", "key"), "a");
    assert!(world.live("cdn", "key").release.build > bad.build);
    again("withdraw --signing-key @key.key").failed(&["--build"]);
    again(&format!("withdraw --signing-key @key.key --build {}", bad.build)).ok();
    assert_eq!(world.content("cdn", "key"), "b");
    again("withdraw --signing-key @key.key --build 5").failed(&["has no build 5"]);
}

/// The private half of the key is in a file that only openssl reads.
#[test]
fn publishes_with_a_key_in_another_program() {
    if judge::judge("openssl", &["version"]).is_none() {
        return;
    }
    let world = world();
    let secret = world.key("key").reveal();
    let der = secret.split(':').nth(1).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    fs::write(world.path("key.pem"), pem).unwrap();
    world.build("out", "a");
    fs::remove_file(world.path("key.key")).unwrap();
    let arguments = publish("out", "--signing-key @key.pub");
    let with = |sign: &str| {
        let mut command = world.command(&arguments);
        command.arg("--sign-command").arg(sign);
        Run::of(command, &arguments)
    };
    for (sign, texts) in [
        ("exit 7", &["exit status: 7"][..]),
        ("cat >/dev/null && echo wrong", &["not a signature"]),
        ("openssl pkeyutl -sign -inkey nowhere.pem -rawin -in /dev/null", &["exit status: 1"]),
    ] {
        with(sign).failed(texts);
        assert!(!world.path("cdn").join(target().manifest_name()).exists(), "{sign}");
    }
    with("cat >input && openssl pkeyutl -sign -inkey key.pem -rawin -in input").ok();
    let check = "verify deb --arch amd64 --from cdn --trusted-key @key.pub";
    assert!(world.run(check).ok().contains("whole"));
    world
        .run("publish deb --sign-command cat")
        .code
        .inspect(|code| assert_eq!(*code, 2, "--sign-command needs --signing-key"));
}

/// The manifest that hosts find is one that the protocol crate accepts with the public key alone.
#[test]
fn a_public_key_file_is_all_that_a_host_needs() {
    let world = world();
    world.build("out", "a");
    world.publish("out", "").ok();
    let ring = KeyRing::parse(&fs::read_to_string(world.path("key.pub")).unwrap()).unwrap();
    let text = fs::read_to_string(world.path("cdn").join(target().manifest_name())).unwrap();
    let manifest: Verified<Manifest> = verify(&text, &ring).unwrap().try_into().unwrap();
    assert!(manifest.check_time(crate::world::now()).is_ok());
    let shown = world.run("pubkey key.key").ok();
    assert_eq!(shown, fs::read_to_string(world.path("key.pub")).unwrap());
}
