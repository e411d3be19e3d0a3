//! Sources of configuration that are meant for other programs, and ones that are broken.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::PrivateKey;
use protocol::esp::Slot::{A, B};
use serde_json::{Value, json};

use crate::world::World;

const CIDATA: &str = "host/dev/disk/by-label/cidata/user-data";
const ESP: &str = "esp/etchaos/config.json";
const IMAGE: &str = "host/usr/lib/etchaos/updater.json";

/// The gzip of `#cloud-config\npackages: [vim]\n`, as `gzip -9n` writes it.
const GZIP: &str = "H4sIAAAAAAACA1NOzskvTdFNzs9Ly0znKkhMzk5MTy22Uoguy8yN5QIAMfMCuB4AAAA=";

/// Returns the lists `broken` or `ignored` of `config --json`, as source and reason.
fn list(world: &World, name: &str) -> Vec<(String, String)> {
    let shown = world.run(&["config", "--json"]).json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entry = |entry: &Value| (text(&entry["source"]), text(&entry["reason"]));
    shown[name].as_array().unwrap_or_else(|| panic!("{shown}")).iter().map(entry).collect()
}

/// Sets the configuration of the image: the CDN of the world, and these members.
fn set_image(world: &World, more: Value) {
    let mut config = json!({"cdn": world.cdn.url});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.write(IMAGE, config.to_string());
}

#[test]
fn user_data_for_other_programs_is_ignored() {
    let cloud = "#cloud-config\npackages: [vim]\n";
    let mime = format!(
        "Content-Type: multipart/mixed; boundary=\"===1==\"\nMIME-Version: 1.0\n\n--===1==\nContent-Type: text/cloud-config\n\n{cloud}\n--===1==--\n"
    );
    let utf16: Vec<u8> =
        format!("\u{feff}{cloud}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    for data in [
        mime.as_bytes().to_vec(),
        STANDARD.decode(GZIP).unwrap(),
        STANDARD.encode(cloud).into_bytes(),
        b"packages:\n  - vim\nkeys: x\n".to_vec(),
        br#"{"ignition": {"version": "3.4.0"}}"#.to_vec(),
        format!("\u{feff}{cloud}").into_bytes(),
        utf16,
        format!("{cloud}{}", "# x\n".repeat(100_000)).into_bytes(),
        format!("{cloud}{}", "# x\n".repeat(1_000_000)).into_bytes(),
        b"{ run: { x: [] }, sources: {} }".to_vec(),
        b"local k = 'x';\n{ run: { verifyKeys: [k] } }".to_vec(),
        br#"{"variant": "fcos", "version": "1.5.0", "storage": {}}"#.to_vec(),
        br#"{"agent": {}, "logs": {}, "metrics": {}}"#.to_vec(),
        b"<powershell>\nreboot\n</powershell>".to_vec(),
        b"version: v1alpha1\nmachine:\n  type: worker\n".to_vec(),
        b"<!DOCTYPE html><html><body>health: reboot</body></html>".to_vec(),
        vec![0; 100],
        b"\x1f\x8b".to_vec(),
        Vec::new(),
    ] {
        let world = World::new();
        let shown = String::from_utf8_lossy(&data[..data.len().min(40)]).into_owned();
        set_image(&world, json!({"health": {"checks": ["test -e /nonexistent-marker"]}}));
        world.write(CIDATA, &data);
        world.publish(2);
        let ignored = list(&world, "ignored");
        let [(source, reason)] = &ignored[..] else { panic!("{ignored:?}") };
        assert!(source == "cidata user-data" && reason.contains("#etchaos"), "{shown}: {reason}");
        assert_eq!(list(&world, "broken"), [], "{shown}");
        let text = world.run(&["config"]).ended(0).stdout;
        let is_shown =
            |line: &str| line.starts_with("(ignored)") && line.contains("  cidata user-data  ");
        assert!(text.lines().any(is_shown), "{text}");
        // The operator's checks still count.
        let ran = world.run(&["health", "--wait"]).ended(1);
        assert!(ran.stderr.contains("check 1"), "{shown}: {}", ran.stderr);
        world.run(&["config", "--require", "cdn"]).ended(0);
        let ran = world.run(&["update", "--no-reboot"]).ended(0);
        assert!(ran.stderr.contains("ignoring cidata user-data"), "{}", ran.stderr);
        world.assert_slot(B, 2);
    }
}

#[test]
fn a_broken_source_does_not_take_the_values_of_others_away() {
    for (path, text, part) in [
        (ESP, "{", "ESP"),
        (ESP, r#"{"cnd": "x"}"#, "`cnd`"),
        (ESP, r#"{"proxy": "ftp://x"}"#, "\"proxy\" from ESP"),
        (ESP, r#"{"listen": {"address": "x"}}"#, "\"listen.address\" from ESP"),
        (CIDATA, "#etchaos\n{\"proxy\": ", "EOF"),
        (CIDATA, r#"{"proxy": "#, "EOF"),
        ("host/usr/lib/etchaos/keys", "KEY\nnot a key\n", "\"keys\" from /usr/lib/etchaos/keys"),
        ("host/sys/firmware/dmi/tables/DMI", "\x0b\x05\0\0\x01etchaos=eyJwcm94eSI6%\0\0", "SMBIOS"),
        ("host/dev/disk/by-label/cidata", "no volume", "cidata"),
    ] {
        let world = World::new();
        let text = text.replace("KEY", &world.key.public().to_string());
        set_image(&world, json!({"health": {"checks": ["test -e /nonexistent-marker"]}}));
        world.write(path, &text);
        world.publish(2);
        world.run(&["config", "--require", "cdn"]).ended(0);
        world.run(&["config"]).failed(&[part, "the other sources apply"]);
        let broken = list(&world, "broken");
        assert!(broken.len() == 1 && broken[0].1.contains(part), "{text}: {broken:?}");
        for arguments in [&["health"][..], &["health", "--wait"]] {
            let ran = world.run(arguments).ended(1);
            assert!(ran.stderr.contains("check 1") && ran.stderr.contains(part), "{}", ran.stderr);
        }
        world.run(&["update", "--dry-run"]).ended(4);
        assert!(world.run(&["check"]).ended(10).stderr.contains(part));
        let ran = world.run(&["update", "--no-reboot"]).ended(4);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
        assert_eq!(world.boots(), (A, Some((B, 3))), "{text}");
        let ran = world.run(&["status", "--json"]);
        let shown = ran.json();
        ran.failed(&[part]);
        assert!(shown["problem"].as_str().unwrap().contains(part), "{shown}");
        assert!(shown["lastError"]["error"].as_str().unwrap().contains(part), "{shown}");
        assert_eq!(shown["config"]["cdn"]["value"], json!([world.cdn.url]));
        assert_eq!(shown["slots"]["b"]["state"], "complete");
        assert!(world.run(&["verify"]).ended(1).stdout.contains(part));
        world.run(&["confirm"]).ended(0);
        // A healthy host is healthy, whatever the source says.
        set_image(&world, json!({}));
        world.run(&["health", "--wait"]).ended(0);
        world.run(&["health"]).ended(4);
        world.run(&["rollback", "--no-reboot"]).ended(0);
    }
}

#[test]
fn a_broken_source_that_may_have_the_only_cdn_fails_the_update_unit() {
    for (broken, message) in
        [("{", "no CDN is configured"), (r#"{"cdn": "x"}"#, "the CDN is not known")]
    {
        let world = World::new();
        world.write(IMAGE, "{}");
        world.write(ESP, broken);
        assert_eq!(world.run(&["config", "--require", "cdn"]).code, 255);
        assert_eq!(world.run(&["status", "--json"]).json()["lastError"]["command"], "update");
        world.run(&["config", "--require", "listen"]).ended(1);
        world.run(&["update"]).failed(&[message, "ESP"]);
    }
}

/// `cdn`, `keys`, `health` and `reboot` are read from a broken source, if they can be.
#[test]
fn the_valid_safeguards_of_a_broken_source_apply() {
    let world = World::new();
    let other = PrivateKey::generate();
    let config = json!({
        "cnd": "x",
        "cdn": "https://unused.example",
        "keys": [other.public().to_string()],
        "health": {"checks": ["test -e /nonexistent-marker"], "deadline": "1s"},
        "reboot": "never",
    });
    world.write(ESP, config.to_string());
    let ran = world.run(&["config", "--json"]);
    let shown = ran.json();
    ran.failed(&["`cnd`"]);
    let esp = "ESP etchaos/config.json";
    assert_eq!(shown["health"]["checks"]["source"], esp);
    assert_eq!(shown["health"]["deadline"]["source"], "built-in default");
    assert_eq!(shown["reboot"], json!({"value": "never", "source": esp}));
    assert_eq!(shown["keys"][1]["source"], esp);
    assert_eq!(shown["cdn"]["source"], esp);
}

/// An empty list of mirrors disables updates. A typing error next to it does not enable them.
#[test]
fn a_broken_source_that_disables_updates_still_does() {
    let world = World::new();
    world.publish(2);
    world.write(ESP, r#"{"cdn": [], "cnd": "x"}"#);
    let shown = world.run(&["config", "--json"]).json();
    assert_eq!(shown["cdn"], json!({"value": [], "source": "ESP etchaos/config.json"}));
    assert_eq!(world.run(&["config", "--require", "cdn"]).code, 255);
    world.run(&["update"]).failed(&["no CDN is configured", "`cnd`"]);
    assert_eq!(world.boots(), (A, None));
}

/// A host installs releases, but does not boot them while nobody can say whether it may.
#[test]
fn a_host_does_not_reboot_while_health_or_reboot_is_unknown() {
    for (config, names) in [
        (r#"{"reboot": "nevr"}"#, "`reboot` from ESP"),
        (r#"{"health": {"check": ["true"]}}"#, "`health` from ESP"),
        (r#"{"health": {"units": ["x"]}, "reboot": "now"}"#, "`health` from ESP"),
        (
            "{\"health\": {\"checks\": [\"true\"]} \"reboot\": \"never\"}",
            "`health` and `reboot` from ESP",
        ),
        ("{reboot: 'never'}", "`reboot` from ESP"),
    ] {
        let world = World::new();
        world.publish(2);
        world.write(ESP, config);
        let ran = world.run(&["update"]).ended(4);
        assert!(ran.stdout.contains(names), "{config}: {}", ran.stdout);
        assert!(!world.rebooted(), "{config}");
        world.assert_slot_of_broken_host(B, 2);
        let shown = world.run(&["status", "--json"]).json();
        assert!(shown["reboot"]["waiting"]["why"].as_str().unwrap().contains(names), "{shown}");
        // Corrected, the host reboots.
        world.write(ESP, "{}");
        world.run(&["update"]).ended(0);
        assert!(world.rebooted(), "{config}");
    }
    // The text is found in a file that is too large, and in user data.
    let large = format!(r#"{{"health": {{"checks": ["true"]}}, "x": "{}"}}"#, "x".repeat(300_000));
    let mime = "Content-Type: text/etchaos\n\n{\"health\": {\"checks\": [\"true\"]},,}";
    for (path, text) in [(ESP, large), (CIDATA, STANDARD.encode(mime))] {
        let world = World::new();
        world.publish(2);
        world.write(path, text);
        let ran = world.run(&["update"]).ended(4);
        assert!(ran.stdout.contains("`health` from "), "{path}: {}", ran.stdout);
        assert!(!world.rebooted(), "{path}");
    }
    // Another error is no reason to wait.
    for config in [r#"{"cnd": "x"}"#, r#"{"cnd": "x", "reboot": "now", "health": {}}"#, "{"] {
        let world = World::new();
        world.publish(2);
        world.write(ESP, config);
        world.run(&["update"]).ended(4);
        assert!(world.rebooted(), "{config}");
    }
}

#[test]
fn configurations_may_have_a_byte_order_mark_or_be_utf16() {
    let world = World::new();
    let json = r#"{"cdn": "https://ä.example/x", "reboot": "never"}"#.replace('ä', "a");
    let marked = format!("\u{feff}{json}");
    let bytes =
        |text: &str, to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
    for text in [
        marked.clone().into_bytes(),
        bytes(&marked, u16::to_le_bytes),
        bytes(&marked, u16::to_be_bytes),
        bytes(&json, u16::to_le_bytes),
    ] {
        for path in [ESP, CIDATA, "more.json"] {
            world.write(path, &text);
            let more = world.path("more.json").display().to_string();
            let mut arguments = vec!["config", "--json"];
            arguments
                .extend((path == "more.json").then_some(["--config", &more]).into_iter().flatten());
            let shown = world.run(&arguments).ended(0).json();
            assert_eq!(shown["cdn"]["value"], json!(["https://a.example/x"]), "{path}");
            fs::remove_file(world.path(path)).unwrap();
        }
        world.write("host/proc/cmdline", format!("etchaos.config={}", STANDARD.encode(&text)));
        let shown = world.run(&["config", "--json"]).ended(0).json();
        assert_eq!(shown["reboot"]["source"], "kernel command line etchaos.config=");
        world.boot(A);
    }
    world.write(ESP, b"\xff\xfe{\0}");
    world.run(&["config"]).failed(&["ESP", "UTF-16", "save it as UTF-8"]);
}

#[test]
fn configurations_of_etcha_are_recognised() {
    for (text, part) in [
        (
            r#"{"run": {"x": 1}, "sources": {}}"#,
            "a configuration of Etcha itself, because it has `run`",
        ),
        ("{\n  // Etcha\n  sources: { ci: { allowPush: true } },\n}", "`sources` has no quotes"),
        ("{ cdn: 'https://x.example' }", "`cdn` has no quotes, as in Jsonnet"),
        ("local k = 'x';\n{ run: { verifyKeys: [k] } }", "because it has `run`"),
        ("std.mergePatch({ run: {} }, {})", "because it has `run`"),
        (r#"{"fallthrough": true}"#, "because it has `fallthrough`"),
        ("{\n  // mirrors\n  \"cdn\": \"https://x.example\"\n}", "it is Jsonnet"),
    ] {
        let world = World::new();
        for source in ["cmdline", "SMBIOS"] {
            let one_line =
                text.replace('\n', " ").replace("// mirrors", "").replace("// Etcha", "");
            match source {
                "cmdline" => world.write(
                    "host/proc/cmdline",
                    format!("etchaos.config={}", STANDARD.encode(text)),
                ),
                _ => world.write(
                    "host/sys/firmware/dmi/tables/DMI",
                    format!("\x0b\x05\0\0\x01etchaos={one_line}\0\0"),
                ),
            }
            if source == "cmdline" || !part.contains("it is Jsonnet") {
                world
                    .run(&["config"])
                    .failed(&[source.replace("cmdline", "kernel command line").as_str(), part]);
            }
            world.boot(A);
            let _ = fs::remove_file(world.path("host/sys/firmware/dmi/tables/DMI"));
        }
        world.write(ESP, text);
        let ran = world.run(&["config"]);
        assert!(!ran.stderr.contains("unknown field"), "{}", ran.stderr);
        ran.failed(&["ESP", part]);
        let ran =
            world.run(&["config", "--config", world.esp("etchaos/config.json").to_str().unwrap()]);
        ran.failed(&[part]);
    }
}

/// Two volumes can have the label in different letter case.
#[test]
fn every_volume_is_read() {
    let upper = "host/dev/disk/by-label/CIDATA";
    let world = World::new();
    world.write("host/dev/disk/by-label/cidata/meta-data", "instance-id: x\n");
    world.write(&format!("{upper}/user-data"), r#"{"reboot": "never"}"#);
    let shown = world.run(&["config", "--json"]).ended(0).json();
    assert_eq!(shown["reboot"]["source"], "cidata user-data", "{shown}");
    assert_eq!(list(&world, "ignored")[0].1, "it has no file user-data");
    // A volume that cannot be read does not hide the other.
    fs::remove_dir_all(world.path("host/dev/disk/by-label/cidata")).unwrap();
    world.write("host/dev/disk/by-label/cidata", "no volume");
    let shown = world.run(&["config", "--json"]).json();
    assert_eq!(shown["reboot"]["source"], "cidata user-data", "{shown}");
    assert_eq!(list(&world, "broken").len(), 1);
    let world = World::new();
    world.write(
        "host/dev/disk/by-label/CONFIG-2/openstack/latest/user_data",
        r#"{"reboot": "now"}"#,
    );
    let shown = world.run(&["config", "--json"]).ended(0).json();
    assert_eq!(shown["reboot"]["source"], "config-2 openstack/latest/user_data", "{shown}");
}

/// ISO 9660 can have pipes and links, and a process that opens a pipe waits for a writer.
#[test]
fn a_pipe_on_a_volume_does_not_stop_a_host() {
    let world = World::new();
    fs::create_dir_all(world.path("host/dev/disk/by-label/cidata")).unwrap();
    nix::unistd::mkfifo(&world.path(CIDATA), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut child = world.command(&["config"]).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if since.elapsed() > Duration::from_secs(10) {
            child.kill().unwrap();
            panic!("the updater waits for a writer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    world.run(&["config"]).failed(&["cidata", "not a regular file"]);
    // Files of proc are regular files, and some wait for an event. Only links within the volume are followed.
    let outside = world.path("outside").display().to_string();
    fs::write(&outside, "{\"reboot\": \"never\"}").unwrap();
    for target in [&outside, "/proc/version", "../../../../../outside", "/proc/self/cmdline"] {
        fs::remove_file(world.path(CIDATA)).unwrap();
        symlink(target, world.path(CIDATA)).unwrap();
        world.run(&["config"]).failed(&["cidata", "a link leads out of the volume"]);
    }
    world.write("host/dev/disk/by-label/cidata/more/data", "{\"reboot\": \"never\"}");
    fs::remove_file(world.path(CIDATA)).unwrap();
    symlink("more/data", world.path(CIDATA)).unwrap();
    let shown = world.run(&["config", "--json"]).ended(0).json();
    assert_eq!(shown["reboot"]["source"], "cidata user-data", "{shown}");
    fs::remove_file(world.path(CIDATA)).unwrap();
    fs::create_dir(world.path(CIDATA)).unwrap();
    world.run(&["config"]).failed(&["cidata", "not a regular file"]);
}
