//! The command `host-settings`, with the files that it writes read by the real systemd-networkd.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::world::World;

const NETWORKD: &str = "/usr/lib/systemd/systemd-networkd";
const NETWORK: &str = "host/run/systemd/network";
const TIME: &str = "host/run/systemd/timesyncd.conf.d/50-etchaos.conf";

/// Returns a world whose ESP has this configuration, and whose networkctl logs its calls.
fn world(config: &serde_json::Value) -> World {
    let world = World::new();
    let log = world.path("commands");
    world
        .program("networkctl", &format!("#!/bin/sh\necho networkctl \"$@\" >>{}\n", log.display()));
    fs::create_dir_all(world.path("host/etc")).unwrap();
    set(&world, config);
    world
}

fn set(world: &World, config: &serde_json::Value) {
    fs::write(world.esp("etchaos/config.json"), config.to_string()).unwrap();
}

/// Returns the files in a directory with their contents, or nothing if there is no such directory.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        entry.path().is_file().then(|| (name, fs::read_to_string(entry.path()).unwrap()))
    };
    entries.filter_map(|entry| file(entry.unwrap())).collect()
}

fn all_settings() -> serde_json::Value {
    json!({
        "hostname": "web1",
        "interfaces": {"lan": {
            "match": {"name": "en*"},
            "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
            "gateways": ["192.0.2.1", "fe80::1"],
            "dns": ["192.0.2.53"],
            "domains": ["example.org"],
            "mtu": 1400,
        }},
        "ntp": ["192.0.2.123"],
    })
}

#[test]
fn applies_settings_and_reloads_only_what_has_changed() {
    let world = world(&all_settings());
    let first = world.run(&["host-settings", "--json"]).ended(0).json();
    assert_eq!(first["changed"], json!({"hostname": true, "interfaces": true, "ntp": true}));
    assert_eq!(fs::read_to_string(world.path("host/etc/hostname")).unwrap(), "web1\n");
    let network = files(&world.path(NETWORK));
    assert_eq!(network.keys().collect::<Vec<_>>(), ["50-etchaos-lan.network"]);
    assert!(network["50-etchaos-lan.network"].contains("Address=192.0.2.10/24\n"));
    assert!(fs::read_to_string(world.path(TIME)).unwrap().contains("NTP=192.0.2.123\n"));
    let restart = "systemctl try-restart --no-block systemd-timesyncd.service";
    assert_eq!(world.commands(), format!("networkctl reload\n{restart}\n"));

    let second = world.run(&["host-settings", "--json"]).ended(0).json();
    assert_eq!(second["changed"], json!({"hostname": false, "interfaces": false, "ntp": false}));
    assert_eq!(world.commands(), "");

    let mut changed = all_settings();
    changed["interfaces"]["lan"]["addresses"][0] = "192.0.2.11/24".into();
    set(&world, &changed);
    world.run(&["host-settings"]).ended(0);
    assert_eq!(world.commands(), "networkctl reload\n");
    assert!(files(&world.path(NETWORK))["50-etchaos-lan.network"].contains("192.0.2.11/24\n"));

    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status["hostSettings"]["hostname"], "web1");
    assert_eq!(status["hostSettings"]["interfaces"]["lan"]["addresses"][0], "192.0.2.11/24");
    let table = world.run(&["status"]).ended(0).stdout;
    for row in [
        "host name   web1\n",
        "interface   lan (en*): 192.0.2.11/24, 2001:db8::10/64, via 192.0.2.1, fe80::1, DNS 192.0.2.53\n",
        "ntp         192.0.2.123\n",
    ] {
        assert!(table.contains(row), "{row:?}: {table}");
    }
}

#[test]
fn returns_to_the_settings_of_the_image() {
    let world = world(&all_settings());
    world.run(&["host-settings"]).ended(0);
    // A file of the operator's own is not touched.
    world.write(&format!("{NETWORK}/70-own.network"), "[Match]\nName=x\n");
    world.commands();
    set(&world, &json!({"interfaces": {}, "ntp": []}));
    world.run(&["host-settings"]).ended(0);
    assert_eq!(world.commands().lines().count(), 2);
    assert_eq!(files(&world.path(NETWORK)).keys().collect::<Vec<_>>(), ["70-own.network"]);
    assert!(!world.path(TIME).exists() && !world.path("host/etc/hostname").exists());
    assert_eq!(files(&world.path(NETWORK).join("80-etchaos.network.d")), BTreeMap::new());
}

#[test]
fn reloads_nothing_before_the_network() {
    let world = world(&all_settings());
    world.run(&["host-settings", "--early"]).ended(0);
    assert_eq!(world.commands(), "");
    assert_eq!(files(&world.path(NETWORK)).len(), 1);
}

/// The other sources apply, and without one the host uses DHCP as the image does.
#[test]
fn a_broken_source_leaves_the_host_with_dhcp() {
    for (key, value, reason) in [
        ("hostname", json!("web_1"), "\"hostname\" from ESP"),
        ("interfaces", json!({"lan": {"match": {}}}), "\"interfaces.lan.match\" from ESP"),
        ("interfaces", json!({"lan": {"match": {"name": "en*"}, "adresses": []}}), "`adresses`"),
        ("ntp", json!(["a\nb"]), "\"ntp\" from ESP"),
    ] {
        let mut config = all_settings();
        config[key] = value;
        let world = world(&config);
        let ran = world.run(&["host-settings", "--early"]).ended(4);
        assert!(ran.stderr.contains(reason), "{}", ran.stderr);
        assert!(ran.stderr.contains("; the other sources apply"), "{}", ran.stderr);
        assert_eq!(files(&world.path(NETWORK)), BTreeMap::new());
        assert!(!world.path("host/etc/hostname").exists());
        let table = world.run(&["status"]).ended(1).stdout;
        assert!(table.lines().any(|line| line.starts_with("config ") && line.contains(reason)));
        // The host goes on updating.
        world.run(&["check"]).ended(4);
    }
}

#[test]
fn a_failed_reload_is_an_error_that_status_shows() {
    let world = world(&all_settings());
    world.program("networkctl", "#!/bin/sh\necho 'no networkd' >&2\nexit 1\n");
    world.run(&["host-settings"]).failed(&["networkctl reload", "no networkd"]);
    let status = world.run(&["status", "--json"]).ended(0).json();
    let problem = status["hostSettings"]["problem"].as_str().unwrap();
    assert!(problem.contains("no networkd"), "{problem}");
}

#[test]
fn a_host_name_that_cannot_be_set_does_not_take_the_network_away() {
    let world = world(&all_settings());
    fs::create_dir(world.path("host/etc/hostname")).unwrap();
    world.run(&["host-settings"]).failed(&["not applied completely", "etc/hostname"]);
    assert_eq!(files(&world.path(NETWORK)).len(), 1);
    assert!(world.commands().contains("networkctl reload\n"));
}

/// Only the unit of the network waits for the disk, and not for ever.
#[test]
fn a_missing_disk_does_not_keep_the_network_from_starting() {
    let world = world(&all_settings());
    world.write("host/usr/lib/etchaos/updater.json", r#"{"hostname": "from-image"}"#);
    let mut command = Command::new(env!("CARGO_BIN_EXE_updater"));
    command.arg("--esp").arg(world.path("nowhere")).arg("--host-root").arg(world.path("host"));
    let output = command.args(["host-settings", "--early"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("do not apply until the network is up"), "{text}");
    assert_eq!(fs::read_to_string(world.path("host/etc/hostname")).unwrap(), "from-image\n");
}

/// Prepares namespaces in which `$1` is the temporary directory: `/run` and `/etc` are its own.
const NAMESPACE: &str = r#"
    mount -t tmpfs tmpfs /run
    cp /etc/passwd /etc/group "$1/etc"
    mount --bind "$1/etc" /etc
    "$2" --config "$1/config.json" host-settings --early
    hostname=$(cat /proc/sys/kernel/hostname)
    echo "host name: $hostname"
    [ ! -x "$3" ] || SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console timeout 3 "$3" || true
    printf '{}' >"$1/config.json"
    "$2" --config "$1/config.json" host-settings --early
    echo "host name: $(cat /proc/sys/kernel/hostname)"
"#;

/// Runs the real command on the running system, in namespaces of its own, and then systemd-networkd, which
/// reports every key and value that it does not understand.
#[test]
fn systemd_networkd_understands_the_files() {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root || !Path::new(NETWORKD).exists() {
        assert!(std::env::var("CI").is_err(), "this test needs root and {NETWORKD}");
        eprintln!("SKIPPED: this test needs root and {NETWORKD}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut config = all_settings();
    config["interfaces"]["wan"] = json!({"match": {"mac": "52:54:00:12:34:56"}});
    config["interfaces"]["cloud"] = json!({
        "match": {"driver": "virtio_net"}, "addresses": ["192.0.2.9/32"], "gateways": ["172.31.1.1"]
    });
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    fs::write(directory.path().join("etc/os-release"), "DEFAULT_HOSTNAME=etchaos\n").unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--uts", "--kill-child", "--fork", "sh", "-ec", NAMESPACE, "sh"])
        .arg(directory.path())
        .args([env!("CARGO_BIN_EXE_updater"), NETWORKD])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("host name: web1\n") && text.contains("host name: etchaos\n"), "{text}");
    // The daemon has read its files once it lists the interfaces.
    assert!(text.contains("Enumeration completed"), "{text}");
    let complaints: Vec<&str> = text.lines().filter(|line| line.contains("50-etchaos")).collect();
    assert_eq!(complaints, [""; 0], "{text}");
}
