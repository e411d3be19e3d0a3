//! `config`, `status` and `confirm`.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::PrivateKey;
use protocol::esp::Slot::{A, B};
use serde_json::{Value, json};

use crate::world::World;

/// Returns an SMBIOS table with these OEM strings.
fn smbios(strings: &[&str]) -> Vec<u8> {
    let mut table = vec![11, 5, 0, 0, strings.len() as u8];
    for text in strings {
        table.extend(text.as_bytes());
        table.push(0);
    }
    table.push(0);
    table.extend([127, 4, 0, 0, 0, 0]);
    table
}

#[test]
fn reads_every_source_in_order() {
    let world = World::new();
    let source = |world: &World, key: &str| {
        world.run(&["config", "--json"]).ended(0).json()[key]["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(source(&world, "variant"), "/etc/os-release");
    assert_eq!(source(&world, "reboot"), "built-in default");
    let set = |n: u32| json!({"cdn": format!("https://{n}.example")}).to_string();
    let expect = |n: u32, from: &str| {
        let shown = world.run(&["config", "--json"]).ended(0).json();
        assert_eq!(shown["cdn"]["value"], json!([format!("https://{n}.example")]), "{shown}");
        assert!(shown["cdn"]["source"].as_str().unwrap().contains(from), "{shown}");
    };
    world.write("host/usr/lib/etchaos/updater.json", set(1));
    expect(1, "/usr/lib/etchaos/updater.json");
    world.write("esp/etchaos/config.json", set(2));
    expect(2, "ESP");
    world.write("host/proc/cmdline", format!("etchaos.config={} quiet", STANDARD.encode(set(3))));
    expect(3, "kernel command line");
    let strings =
        ["other", &format!("etchaos={}", set(4)), &format!("etchaos={}", STANDARD.encode(set(5)))];
    world.write("host/sys/firmware/dmi/tables/DMI", smbios(&strings));
    expect(5, "SMBIOS type 11 etchaos= (2)");
    world.write("host/dev/disk/by-label/cidata/user-data", format!("#etchaos\n{}", set(6)));
    expect(6, "cidata");
    world.write("more.json", set(7));
    let more = world.path("more.json");
    let shown = world.run(&["config", "--config", more.to_str().unwrap()]).ended(0).stdout;
    assert!(shown.contains("https://7.example"), "{shown}");
}

/// A proxy applies without configuration if the environment has one.
#[test]
fn config_shows_proxies_of_the_environment() {
    let world = World::new();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| -> String {
        let mut command = world.command(arguments);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!printed.contains("SECRET") && !printed.contains("ann"), "{printed}");
        printed
    };
    let json = |variables: &[(&str, &str)]| -> Value {
        serde_json::from_str(&run(&["config", "--json"], variables)).unwrap()
    };
    let of = |name: &str, value: Value| json!({"value": value, "source": format!("environment variable {name}")});
    let variables = [
        ("http_proxy", "http://127.0.0.1:18431"),
        ("HTTPS_PROXY", "ann:SECRET@proxy.example:3128/"),
        ("ALL_PROXY", "http://else.example:1"),
        ("NO_PROXY", "a.example, .b.example"),
    ];
    let shown = json(&variables);
    let http = of("http_proxy", "http://127.0.0.1:18431".into());
    let https = of("HTTPS_PROXY", "http://proxy.example:3128 (with credentials)".into());
    assert_eq!(shown["proxy"], json!([http, https]));
    let bypass = of("NO_PROXY", json!(["a.example", ".b.example"]));
    assert_eq!(shown["noProxy"], json!([bypass]));
    let table = run(&["config"], &variables);
    let cells: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = ["proxy", "http://127.0.0.1:18431", "environment", "variable", "http_proxy"];
    assert!(cells.contains(&row.to_vec()), "{table}");
    let status: Value = serde_json::from_str(&run(&["status", "--json"], &variables)).unwrap();
    assert_eq!(status["config"]["proxy"], shown["proxy"]);

    // Lower-case names take precedence, one variable may apply to both schemes, and a value that is not
    // a proxy is not shown.
    let all = [("all_proxy", "http://x:1"), ("ALL_PROXY", "http://y:1"), ("no_proxy", " ")];
    let shown = json(&all);
    assert_eq!(shown["proxy"], json!([of("all_proxy", "http://x:1".into())]));
    assert_eq!(shown["noProxy"], json!(null));
    for bad in ["ann:SECRET", "socks5://ann:SECRET@x:1", "http://ann:SECRET@x:70000", "x SECRET"] {
        let shown = json(&[("http_proxy", bad)]);
        assert!(shown["proxy"][0]["value"].as_str().unwrap().starts_with("(not usable"), "{shown}");
    }

    // Both lists apply, unless a proxy is configured: then the environment is ignored.
    world.write("esp/etchaos/config.json", r#"{"noProxy": ["c.example"]}"#);
    let own = json!({"value": ["c.example"], "source": "ESP etchaos/config.json"});
    assert_eq!(json(&variables)["noProxy"], json!([own, bypass]));
    let config = r#"{"noProxy": ["c.example"], "proxy": "http://mine:1"}"#;
    world.write("esp/etchaos/config.json", config);
    let shown = json(&variables);
    assert_eq!(shown["noProxy"], own);
    assert_eq!(shown["proxy"]["value"], "http://mine:1");
}

#[test]
fn errors_name_the_broken_source() {
    // A row has the exit code of `check`: 1 if the host cannot update without the source.
    for (file, text, code, messages) in [
        (
            "host/usr/lib/etchaos/updater.json",
            r#"{"cnd": "x"}"#,
            1,
            ["updater.json", "`cnd`, expected one of"],
        ),
        ("esp/etchaos/config.json", "{", 4, ["ESP", "EOF"]),
        ("host/proc/cmdline", "etchaos.config=%%%", 1, ["kernel command line", "base64"]),
        ("host/dev/disk/by-label/cidata/user-data", "{\"cdn\": ", 1, ["cidata", "EOF"]),
        ("host/dev/disk/by-label/cidata/user-data", "#etchaos\n{\"ca\": ", 4, ["cidata", "EOF"]),
        (
            "host/usr/lib/etchaos/keys",
            "ed25519private:AAAA:x",
            1,
            ["/usr/lib/etchaos/keys", "ed25519private"],
        ),
        (
            "esp/etchaos/config.json",
            r#"{"listen": {"address": "x", "sources": {"..": {"keys": []}}}}"#,
            4,
            ["ESP", "listen.sources"],
        ),
    ] {
        let world = World::new();
        world.write(file, text);
        for command in ["config", "status"] {
            world.run(&[command]).failed(&messages);
        }
        for command in ["check", "update"] {
            let ran = world.run(&[command]).ended(code);
            assert!(messages.iter().all(|part| ran.stderr.contains(part)), "{}", ran.stderr);
        }
        // systemd must not skip the update unit because of a broken source that may have the CDN.
        let may_have_it =
            file.ends_with("updater.json") || ["cdn", "%%%"].iter().any(|part| text.contains(part));
        let expected = if may_have_it { 255 } else { 0 };
        assert_eq!(world.run(&["config", "--require", "cdn"]).code, expected);
        // The listening unit is part of the boot, so it is skipped, and the journal has the reason.
        world.run(&["config", "--require", "listen"]).failed(&messages);
        // A broken configuration must not undo an update.
        if !file.ends_with("cmdline") {
            world.run(&["confirm"]).ended(0);
        }
    }
    let world = World::new();
    let messages = ["/nonexistent/x.json", "there is no such file", "omit --config"];
    world.run(&["check", "--config", "/nonexistent/x.json"]).failed(&messages);
    world.write("more.json", "{");
    let more = world.path("more.json").display().to_string();
    world.run(&["update", "--config", &more]).failed(&["more.json", "EOF"]);
}

#[test]
fn reports_a_file_in_place_of_the_directory_with_a_hint() {
    let world = World::new();
    fs::remove_dir_all(world.esp("etchaos")).unwrap();
    fs::write(world.esp("etchaos"), "").unwrap();
    let message = "etchaos on the ESP is a file, expected a directory: remove the file";
    for command in ["config", "update", "status", "verify"] {
        world.run(&[command]).failed(&[message]);
    }
    assert!(world.run(&["check"]).ended(10).stderr.contains(message));
    // `confirm` does not read the configuration.
    let path = world.esp("etchaos").display().to_string();
    world.run(&["confirm"]).failed(&[&path, "a file of this name is in the way"]);
}

#[test]
fn ignores_foreign_user_data_with_a_message() {
    for text in ["", "\n", "#cloud-config\npackages: [vim]\n", "#!/bin/sh\necho hello\n"] {
        let world = World::new();
        world.write("host/dev/disk/by-label/cidata/user-data", text);
        for command in ["config", "check", "update", "status"] {
            let ran = world.run(&[command]).ended(0);
            let lines: Vec<&str> =
                ran.stderr.lines().filter(|line| line.contains("cidata")).collect();
            let [line] = lines[..] else { panic!("{text:?}: {}", ran.stderr) };
            assert!(line.starts_with("info: ") && line.contains("ignoring"), "{line}");
            assert!(line.contains("JSON object") && line.contains("#etchaos"), "{line}");
        }
    }
}

#[test]
fn errors_do_not_show_configured_values() {
    for json in [
        r#"{"keys": "ed25519private:SECRET:x"}"#,
        r#"{"reboot": "SECRET"}"#,
        r#"{"variant": "SECRET"}"#,
        r#"{"listen": {"sources": {"ci": "SECRET"}}}"#,
        r#"{"listen": {"sources": {"ci": {"keys": "SECRET"}}}}"#,
    ] {
        let world = World::new();
        world.write("esp/etchaos/config.json", json);
        let ran = world.run(&["config", "--json"]);
        ran.failed(&["ESP etchaos/config.json"]);
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("SECRET"), "{}", ran.stderr);
    }
}

#[test]
fn confirm_does_not_wait_for_the_lock_if_there_is_nothing_to_write() {
    let world = World::new();
    let other = fs::File::open(world.esp("")).unwrap();
    other.lock().unwrap();
    let since = std::time::Instant::now();
    assert!(world.run(&["confirm"]).ended(0).stdout.contains("already"));
    // Recording the failed trial of the other slot can wait until the next time.
    world.on_trial(A, B, 0);
    assert!(world.run(&["confirm"]).ended(0).stdout.contains("already"));
    assert_eq!(world.boots(), (A, Some((B, 0))));
    // Unlocked, not just dropped: a child that another test forks holds a copy of the descriptor until
    // it calls exec.
    other.unlock().unwrap();
    world.run(&["confirm"]).ended(0);
    assert_eq!(world.boots(), (A, None));
    assert!(since.elapsed().as_secs() < 60);
}

#[test]
fn errors_name_missing_values() {
    let world = World::new();
    let without = |path: &str| {
        let world = World::new();
        world.write(path, if path.ends_with("json") { "{}" } else { "" });
        world
    };
    without("host/usr/lib/etchaos/updater.json").run(&["check"]).failed(&["no CDN is configured"]);
    without("host/usr/lib/etchaos/keys").run(&["check"]).failed(&["no key is trusted"]);
    without("host/etc/os-release")
        .run(&["check"])
        .failed(&["variant of this host is unknown", "VARIANT_ID"]);
    let nowhere = world.path("nowhere").display().to_string();
    world.run(&["check", "--esp", &nowhere]).failed(&[&nowhere]);
    assert_eq!(world.run(&["wrong"]).code, 2);
    let help = world.run(&["--help"]).ended(0).stdout;
    assert!(help.contains("Exit codes") && help.contains("allowedOrigins"), "{help}");
}

#[test]
fn require_skips_units_without_configuration() {
    let world = World::new();
    world.run(&["config", "--require", "cdn"]).ended(0);
    let ran = world.run(&["config", "--require", "listen"]).ended(1);
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{}{}", ran.stdout, ran.stderr);
    world.write("host/usr/lib/etchaos/updater.json", "{}");
    world.run(&["config", "--require", "cdn"]).ended(1);
    let key = PrivateKey::generate().public().to_string();
    let listen = json!({"listen": {"sources": {"ci": {"keys": [key]}}}});
    world.write("esp/etchaos/config.json", listen.to_string());
    world.run(&["config", "--require", "listen"]).ended(0);
}

/// systemd skips a unit for the whole boot if its condition exits with 1, and tries it again after 255
/// (systemd.service(5)).
#[test]
fn require_distinguishes_temporary_errors_from_a_broken_configuration() {
    let world = World::new();
    let require = |world: &World, what: &str| world.run(&["config", "--require", what]).code;
    // The CDN is in the image, so that other sources do not matter, unless the disk is missing.
    fs::create_dir(world.esp("etchaos/config.json")).unwrap();
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (255, 0));
    fs::remove_dir(world.esp("etchaos/config.json")).unwrap();
    fs::rename(world.path("esp"), world.path("gone")).unwrap();
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (255, 255));
    fs::rename(world.path("gone"), world.path("esp")).unwrap();
    // A volume that cannot be mounted.
    world.write("host/dev/disk/by-label/cidata", "no disk");
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (255, 0));
    fs::remove_file(world.path("host/dev/disk/by-label/cidata")).unwrap();
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (1, 0));
    // A configuration that cannot be parsed stays broken.
    for broken in ["{", r#"{"reboot": "soon"}"#, &" ".repeat(300_000)] {
        world.write("esp/etchaos/config.json", broken);
        assert_eq!((require(&world, "listen"), require(&world, "cdn")), (1, 0));
    }
    // Without a CDN in the image, any broken source may have it.
    world.write("host/usr/lib/etchaos/updater.json", "{}");
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (1, 255));
    fs::remove_file(world.esp("etchaos/config.json")).unwrap();
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (1, 1));
    world.write("host/dev/disk/by-label/cidata", "no disk");
    assert_eq!((require(&world, "listen"), require(&world, "cdn")), (255, 255));
}

#[test]
fn confirm_makes_the_running_slot_good() {
    let world = World::new();
    assert!(world.run(&["confirm"]).ended(0).stdout.contains("already"));
    world.on_trial(A, B, 2);
    world.boot(B);
    assert!(world.run(&["confirm"]).ended(0).stdout.contains("is now good"));
    assert_eq!(world.boots(), (B, None));
    assert!(world.run(&["confirm"]).ended(0).stdout.contains("already"));
    fs::remove_file(world.esp("etchaos/grubenv")).unwrap();
    assert!(world.run(&["confirm"]).ended(0).stdout.contains("missing"));
    assert_eq!(world.boots(), (B, None));
    world.write("host/proc/cmdline", "quiet");
    world.run(&["confirm"]).failed(&["running slot is not known", "etchaos.slot"]);
}
