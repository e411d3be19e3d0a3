//! Broken sources that mention `cdn` or `keys`: what a host must not fetch or install because of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::PrivateKey;
use protocol::esp::Slot::{A, B};
use protocol::token::sign;
use serde_json::json;

use crate::server::Server;
use crate::world::{World, claims, release};

const ESP: &str = "esp/etchaos/config.json";
const IMAGE: &str = "host/usr/lib/etchaos/updater.json";
const KEYS: &str = "host/usr/lib/etchaos/keys";

impl World {
    /// Adds a configuration to the kernel command line.
    fn set_cmdline(&self, text: &str) {
        self.write("host/proc/cmdline", format!("etchaos.slot=a etchaos.config={text}\n"));
    }
}

/// Asserts that the host fetches nothing and changes nothing, and that the message has these texts.
fn assert_installs_nothing(world: &World, expected: &[&str]) {
    let (files, requests) = (world.tree(), world.cdn.requests().len());
    for command in ["check", "update"] {
        world.run(&[command]).failed(expected);
    }
    assert_eq!(world.cdn.requests().len(), requests);
    assert!(world.tree() == files && world.boots() == (A, None) && !world.rebooted());
}

#[test]
fn a_valid_cdn_of_a_broken_source_applies() {
    let (world, production) = (World::new(), Server::start());
    world.publish(2);
    world.write(IMAGE, json!({"cdn": production.url}).to_string());
    world.write(ESP, json!({"cdn": world.cdn.url, "rateLimit": "x"}).to_string());
    let shown = world.run(&["config", "--json"]).json();
    assert_eq!(shown["cdn"]["source"], "ESP etchaos/config.json");
    world.run(&["config", "--require", "cdn"]).ended(0);
    world.run(&["update", "--no-reboot"]).ended(4);
    world.assert_slot_of_broken_host(B, 2);
    assert_eq!(production.requests(), [""; 0]);
}

#[test]
fn nothing_is_installed_while_the_cdn_is_unknown() {
    let utf16: Vec<u8> =
        r#"{"cdn": "https://x.example"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let large = format!(r#"{{"cdn": "https://x.example", "x": "{}"}}"#, "x".repeat(300_000));
    for config in [
        br#"{"cdn": "https://x.example/frozen", "keys": ["K"],}"#.as_slice(),
        br#"{"cdn": "#,
        br#"{"cdn": "ftp://x.example"}"#,
        br#"{"cdn": 5}"#,
        br#"{"cdn": "https://x.example", "cdn": "https://y.example"}"#,
        b"{ cdn: 'https://x.example' }",
        large.as_bytes(),
        &utf16[..utf16.len() - 3],
    ] {
        let world = World::new();
        world.publish(2);
        world.write(ESP, config);
        assert_installs_nothing(&world, &["the CDN is not known", "`cdn` from ESP"]);
        // The timer's unit fails visibly, and the values of the other sources are shown.
        assert_eq!(world.run(&["config", "--require", "cdn"]).code, 255);
        let shown = world.run(&["config", "--json"]).json();
        assert_eq!(
            shown["cdn"],
            json!({"value": [world.cdn.url], "source": "/usr/lib/etchaos/updater.json"})
        );
        world.run(&["health"]).ended(4);
        world.run(&["health", "--wait"]).ended(0);
        // A later source sets the CDN.
        world.write("more.json", json!({"cdn": world.cdn.url}).to_string());
        let more = world.path("more.json").display().to_string();
        world.run(&["update", "--no-reboot", "--config", &more]).ended(4);
        assert_eq!(world.boots(), (A, Some((B, 3))));
    }
}

/// The kernel truncates a long command line, and with it the base64 of a configuration.
#[test]
fn base64_that_was_cut_still_mentions_its_members() {
    let health = json!({"health": {"checks": ["true"]}, "rateLimit": "1M"}).to_string();
    let cdn = json!({"cdn": "https://x.example", "rateLimit": "1M"}).to_string();
    // The last two characters may be padding.
    for cut in 3..7 {
        for damage in ["", "%%"] {
            let cut_base64 = |json: &str| {
                let text = STANDARD.encode(json);
                format!("{}{damage}", &text[..text.len() - cut])
            };
            let (world, strings) = (World::new(), World::new());
            world.publish(2);
            world.set_cmdline(&cut_base64(&health));
            let ran = world.run(&["update"]).ended(4);
            assert!(ran.stdout.contains("`health` from kernel command line"), "{}", ran.stdout);
            assert!(!world.rebooted());
            let table = format!("\x0b\x05\0\0\x01etchaos={}\0\0", cut_base64(&cdn));
            strings.write("host/sys/firmware/dmi/tables/DMI", table);
            assert_installs_nothing(&strings, &["`cdn` from SMBIOS"]);
        }
    }
    // If nothing can be read, every member may be in it.
    for text in ["%%%", "'{\"reboot\":\"never\"}'", "H4sIAAAAAAACA6tWKkosSfXJ"] {
        let world = World::new();
        world.set_cmdline(text);
        assert_installs_nothing(&world, &["`cdn` from kernel command line"]);
        let more = json!({"cdn": world.cdn.url}).to_string();
        world.write("host/dev/disk/by-label/cidata/user-data", more);
        world.publish(2);
        let ran = world.run(&["update"]).ended(4);
        assert!(ran.stdout.contains("`health` and `reboot` from kernel"), "{}", ran.stdout);
    }
}

/// A source of lower priority does not matter.
#[test]
fn a_later_source_sets_the_cdn_of_an_earlier_broken_one() {
    for broken in [r#"{"cdn": "#, r#"{"cdn": "ftp://x.example"}"#] {
        let world = World::new();
        world.publish(2);
        world.write(IMAGE, broken);
        world.write(ESP, json!({"cdn": world.cdn.url}).to_string());
        world.run(&["config", "--require", "cdn"]).ended(0);
        world.run(&["update", "--no-reboot"]).ended(4);
        world.assert_slot_of_broken_host(B, 2);
    }
}

/// The release that runs may be signed by a key of the broken source. It is not overwritten then.
#[test]
fn nothing_is_installed_if_the_key_of_the_running_release_may_be_in_a_broken_source() {
    let own = PrivateKey::generate();
    for (path, text) in [
        (ESP, format!(r#"{{"keys": ["{}"],}}"#, own.public())),
        (ESP, r#"{"keys": ["typo"]}"#.to_owned()),
        (ESP, format!(r#"{{"keys": {{"own": "{}"}}}}"#, own.public())),
        (KEYS, "KEY\ned25519public:AAAA:x\n".to_owned()),
    ] {
        let world = World::new();
        world.publish(2);
        world.write(path, text.replace("KEY", &world.key.public().to_string()));
        // The known key signed the running release.
        world.run(&["check"]).ended(10);
        world.write("esp/etchaos/a/release.jwt", sign(&own, &claims(&release(1))).unwrap());
        let source =
            if path == ESP { "`keys` from ESP" } else { "`keys` from /usr/lib/etchaos/keys" };
        assert_installs_nothing(&world, &["slot a", "signed with a key that is not known", source]);
        assert_eq!(world.cdn.requests().len(), 1);
        // Without the broken source, the release is known to be of nobody who is trusted.
        world.write(ESP, "{}");
        world.write(KEYS, world.key.public().to_string());
        world.run(&["check"]).ended(10);
    }
}

#[test]
fn a_key_with_a_typing_error_does_not_take_the_others_away() {
    let (world, own) = (World::new(), PrivateKey::generate());
    world.publish(2);
    world.write(ESP, json!({"keys": ["typo", own.public().to_string(), 5]}).to_string());
    world.write("esp/etchaos/a/release.jwt", sign(&own, &claims(&release(1))).unwrap());
    let ran = world.run(&["config", "--json"]);
    assert_eq!(ran.json()["keys"][1]["source"], "ESP etchaos/config.json");
    ran.failed(&["keys"]);
    world.run(&["update", "--no-reboot"]).ended(4);
    world.assert_slot_of_broken_host(B, 2);
}
