//! Validation, and the files that valid settings give.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::interface::{Interface, InterfaceFragment};
use super::names::{host_name, time_server};
use super::settings::{HostSettings, interfaces};
use super::unit_files::{DHCP_DROP_IN, NETWORK, TIMESYNCD, files};

fn check(json: &Value) -> Result<Interface, (String, String)> {
    let fragment: InterfaceFragment = serde_json::from_value(json.clone()).unwrap();
    Interface::new(&fragment)
}

/// Returns an interface with these members and a match.
fn with(members: Value) -> Value {
    let mut json = json!({"match": {"name": "en*"}});
    json.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json
}

fn settings(name: &str, json: &Value, ntp: &[&str]) -> HostSettings {
    let interfaces = BTreeMap::from([(name.to_owned(), check(json).unwrap())]);
    let ntp = ntp.iter().map(|server| (*server).to_owned()).collect();
    HostSettings { hostname: None, interfaces, ntp }
}

#[test]
fn host_names_follow_rfc_1123() {
    for (text, expected) in [
        ("web1", "web1"),
        ("3com", "3com"),
        ("Web-1.Example.ORG", "web-1.example.org"),
        ("a", "a"),
        (&"a".repeat(63), &"a".repeat(63)),
    ] {
        assert_eq!(host_name(text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "-a",
        "a-",
        "a.-b",
        "a_b",
        "a b",
        "a\nb",
        "a\0",
        "ä",
        "192.0.2.1",
        "1",
        "web.1",
        "localhost",
        "x.localhost",
        "LOCALHOST.localdomain",
        "%n",
        "$x",
        &"a".repeat(64),
        &["a"; 33].join("."),
    ] {
        assert_eq!(host_name(text), None, "{text:?}");
    }
}

#[test]
fn time_servers_are_names_or_addresses() {
    for (text, expected) in [
        ("time.example.org", "time.example.org"),
        ("192.0.2.123", "192.0.2.123"),
        ("2001:DB8::0:1", "2001:db8::1"),
    ] {
        assert_eq!(time_server(text).as_deref(), Some(expected), "{text}");
    }
    for text in ["", "a b", "a\nNTP=b", "0.0.0.0", "224.0.0.1", "[::1]", "a:123", "fe80::1%eth0"] {
        assert_eq!(time_server(text), None, "{text:?}");
    }
}

#[test]
fn rejects_interfaces_that_cannot_work() {
    for (members, member) in [
        (json!({"match": {}}), ".match"),
        (json!({"match": {"name": "en*", "driver": "virtio_net"}}), ".match"),
        (json!({"match": {"name": ""}}), ".match.name"),
        (json!({"match": {"name": "!en*"}}), ".match.name"),
        (json!({"match": {"name": "en* eth*"}}), ".match.name"),
        (json!({"match": {"name": "en\n[Network]"}}), ".match.name"),
        (json!({"match": {"name": "enp0s31f6enp0s3"}}), ""),
        (json!({"match": {"name": "enp0s31f6enp0s31"}}), ".match.name"),
        (json!({"match": {"mac": "52:54:00:12:34"}}), ".match.mac"),
        (json!({"match": {"mac": "+2:54:00:12:34:56"}}), ".match.mac"),
        (json!({"match": {"mac": "ff:ff:ff:ff:ff:ff"}}), ".match.mac"),
        (json!({"match": {"mac": "00:00:00:00:00:00"}}), ".match.mac"),
        (json!({"match": {"driver": "virtio net"}}), ".match.driver"),
        (json!({"addresses": ["192.0.2.10"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.10/33"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.10/0"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.0/24"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.255/24"]}), ".addresses"),
        (json!({"addresses": ["127.0.0.1/8"]}), ".addresses"),
        (json!({"addresses": ["224.0.0.1/24"]}), ".addresses"),
        (json!({"addresses": ["::ffff:192.0.2.1/120"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.10/24\nGateway=192.0.2.1"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.10/24", "192.0.2.10/24"]}), ".addresses"),
        (json!({"addresses": ["192.0.2.10/24"], "gateways": ["192.0.3.1"]}), ".gateways"),
        (json!({"addresses": ["192.0.2.10/24"], "gateways": ["192.0.2.10"]}), ".gateways"),
        (json!({"addresses": ["192.0.2.10/24"], "gateways": ["2001:db8::1"]}), ".gateways"),
        (json!({"addresses": ["192.0.2.10/24"], "gateways": ["fe80::1"]}), ".gateways"),
        (
            json!({"addresses": ["192.0.2.10/24"], "gateways": ["192.0.2.1", "192.0.2.2"]}),
            ".gateways",
        ),
        (json!({"gateways": ["192.0.2.1"]}), ".gateways"),
        (json!({"dns": ["dns.example.org"]}), ".dns"),
        (json!({"dns": ["0.0.0.0"]}), ".dns"),
        (json!({"domains": ["example.org "]}), ".domains"),
        (json!({"domains": ["~."]}), ".domains"),
        (json!({"mtu": 1279}), ".mtu"),
        (json!({"mtu": 65536}), ".mtu"),
        (json!({"dhcp": false}), ".dhcp"),
    ] {
        let found = check(&with(members.clone())).map_or_else(|(member, _)| member, |_| "".into());
        assert_eq!(found, member, "{members}");
    }
    let many: Vec<String> = (1..=33).map(|n| format!("192.0.2.{n}/24")).collect();
    assert!(check(&with(json!({"addresses": many[..32]}))).is_ok());
    assert!(check(&with(json!({"addresses": many}))).is_err());
}

#[test]
fn names_of_interfaces_are_parts_of_file_names() {
    let named = |name: &str| {
        let fragment = serde_json::from_value(with(json!({}))).unwrap();
        interfaces(&BTreeMap::from([(name.to_owned(), fragment)]))
    };
    for name in ["lan", "lan-2", &"a".repeat(32)] {
        assert!(named(name).is_ok(), "{name}");
    }
    for name in ["", "../x", "a/b", "a.b", "Lan", "a b", "-a", &"a".repeat(33)] {
        let (member, _) = named(name).unwrap_err();
        assert_eq!(member, "", "{name}");
    }
    let fragment: InterfaceFragment = serde_json::from_value(with(json!({"mtu": 1}))).unwrap();
    let error = interfaces(&BTreeMap::from([("lan".to_owned(), fragment)])).unwrap_err();
    assert_eq!(error.0, ".lan.mtu");
}

#[test]
fn writes_a_static_network() {
    let json = json!({
        "match": {"mac": "52:54:00:AB:cd:EF"},
        "addresses": ["192.0.2.10/24", "2001:db8::10/64"],
        "gateways": ["192.0.2.1", "fe80::1"],
        "dns": ["192.0.2.53"],
        "domains": ["example.org", "Example.net"],
        "mtu": 9000,
    });
    let settings = settings("lan", &json, &[]);
    let files = files(&settings, NETWORK);
    let expected =
        "# Written by etchaos-updater. Do not edit: set it in the configuration of the host.

[Match]
MACAddress=52:54:00:ab:cd:ef
Kind=!*
Type=ether

[Link]
MTUBytes=9000

[Network]
DHCP=no
IPv6AcceptRA=no
Address=192.0.2.10/24
Address=2001:db8::10/64
DNS=192.0.2.53
Domains=example.org
Domains=example.net

[Route]
Gateway=192.0.2.1

[Route]
Gateway=fe80::1
";
    assert_eq!(files, BTreeMap::from([("50-etchaos-lan.network".into(), expected.into())]));
    for directory in [TIMESYNCD, DHCP_DROP_IN] {
        assert!(super::unit_files::files(&settings, directory).is_empty());
    }
}

/// Such addresses are common at clouds, whose gateway is in no network of the host.
#[test]
fn a_gateway_outside_of_every_network_is_on_the_link() {
    let json = with(json!({
        "addresses": ["192.0.2.10/32", "2001:db8::10/64"],
        "gateways": ["172.31.1.1", "2001:db8::1"],
    }));
    let files = files(&settings("x", &json, &[]), NETWORK);
    let text = &files["50-etchaos-x.network"];
    assert!(text.contains("\n[Route]\nGateway=172.31.1.1\nGatewayOnLink=yes\n"), "{text}");
    assert!(text.ends_with("\n[Route]\nGateway=2001:db8::1\n"), "{text}");
}

#[test]
fn only_the_configured_time_servers_are_asked() {
    let settings = settings("x", &with(json!({})), &["192.0.2.123", "time.example.org"]);
    let time = &files(&settings, TIMESYNCD)["50-etchaos.conf"];
    assert!(time.ends_with("[Time]\nNTP=\nNTP=192.0.2.123 time.example.org\nFallbackNTP=\n"));
    for (directory, name) in [(DHCP_DROP_IN, "50-etchaos.conf"), (NETWORK, "50-etchaos-x.network")]
    {
        let text = &files(&settings, directory)[name];
        assert_eq!(text.matches("UseNTP=no").count(), 2, "{text}");
    }
}

/// Parses a file as systemd does: sections, and keys with their values. Panics at anything else.
fn parse(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut found) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{text}"));
        // systemd joins a line that ends with a backslash with the next one, and expands specifiers.
        assert!(!value.contains(['\\', '%', '"', '\'', ';']), "{text}");
        found.push((section.clone(), key.to_owned(), value.to_owned()));
    }
    found
}

/// Values that are valid, or nearly so, or an attack.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "(en|eth|[*?])[a-z0-9*?]{0,4}",
        "192\\.0\\.2\\.[0-9]{1,2}(/(24|25|32))?",
        "2001:db8::[0-9a-f]{1,4}(/(64|128))?",
        "[a-z0-9-]{1,8}(\\.[a-z0-9-]{1,8}){0,2}",
        "([0-9a-f]{2}:){5}[0-9a-f]{2}",
        Just("x\n[Network]\nDHCP=yes".to_owned()),
        Just("192.0.2.1/24\\\nGateway=192.0.2.9".to_owned()),
        "\\PC{0,12}",
        "[\\x00-\\x7f]{0,12}",
    ]
}

proptest! {
    /// Whatever a configuration contains, the files have exactly the values that were accepted, and no other
    /// sections and keys.
    #[test]
    fn values_cannot_add_lines(
        (kind, card) in (0..3_usize, value()),
        addresses in proptest::collection::vec(value(), 0..3),
        gateways in proptest::collection::vec(value(), 0..2),
        dns in proptest::collection::vec(value(), 0..2),
        domains in proptest::collection::vec(value(), 0..2),
        dhcp: Option<bool>,
        servers in proptest::collection::vec(value(), 0..3),
    ) {
        let kind = ["name", "mac", "driver"][kind];
        // Parts that are not valid are left out, so that many cases get to the files.
        let keep = |member: &str, values: &[String]| -> Vec<String> {
            let is_valid = |value: &&String| check(&with(json!({member: [value]}))).is_ok();
            values.iter().filter(is_valid).cloned().collect()
        };
        let fragment = serde_json::from_value(json!({
            "match": {kind: card},
            "addresses": keep("addresses", &addresses),
            "gateways": gateways,
            "dns": keep("dns", &dns),
            "domains": keep("domains", &domains),
            "dhcp": dhcp,
        }));
        let checked = interfaces(&BTreeMap::from([("lan".to_owned(), fragment.unwrap())]));
        let servers: Vec<String> = servers.iter().filter_map(|text| time_server(text)).collect();
        let Ok(interfaces) = checked else { return Ok(()) };
        let settings = HostSettings { hostname: None, interfaces, ntp: servers };
        let interface = &settings.interfaces["lan"];
        let found = parse(&files(&settings, NETWORK)["50-etchaos-lan.network"]);
        let of = |section: &str, key: &str| -> Vec<&str> {
            let is_it = |line: &&(String, String, String)| line.0 == section && line.1 == key;
            found.iter().filter(is_it).map(|line| line.2.as_str()).collect()
        };
        let texts = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<String>>();
        prop_assert_eq!(of("Network", "Address"), texts(&mut interface.addresses.iter().map(ToString::to_string)));
        prop_assert_eq!(of("Route", "Gateway"), texts(&mut interface.gateways.iter().map(ToString::to_string)));
        prop_assert_eq!(of("Network", "DNS"), texts(&mut interface.dns.iter().map(ToString::to_string)));
        prop_assert_eq!(of("Network", "Domains"), interface.domains.clone());
        let expected = 3 + 2 + interface.addresses.len() + interface.dns.len() + interface.domains.len()
            + interface.gateways.len() + of("Route", "GatewayOnLink").len()
            + match (interface.dhcp, settings.ntp.is_empty()) { (false, _) => 0, (true, true) => 4, (true, false) => 6 };
        prop_assert_eq!(found.len(), expected);
        if let Some(text) = files(&settings, TIMESYNCD).get("50-etchaos.conf") {
            let lines = parse(text);
            let servers: Vec<String> = lines[1].2.split(' ').map(str::to_owned).collect();
            prop_assert_eq!(&servers, &settings.ntp);
            prop_assert_eq!(lines.len(), 3);
        }
        // The record has the same settings.
        let json = serde_json::to_string(&settings).unwrap();
        prop_assert_eq!(serde_json::from_str::<HostSettings>(&json).unwrap(), settings);
    }

    #[test]
    fn names_are_plain(text in value()) {
        for name in [host_name(&text), time_server(&text)].into_iter().flatten() {
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b)), "{}", name);
        }
    }
}
