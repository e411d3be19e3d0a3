//! The files of systemd-networkd (systemd.network(5)) and systemd-timesyncd (timesyncd.conf(5)).
//!
//! A value that is written here is a number, an address, or a name without white space and control characters, so
//! that it cannot end its line.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::interface::{Interface, Match};
use super::settings::HostSettings;

/// The directory of the files of systemd-networkd that exist until the next boot.
pub(super) const NETWORK: &str = "/run/systemd/network";
/// The directory of settings of systemd-timesyncd that exist until the next boot.
pub(super) const TIMESYNCD: &str = "/run/systemd/timesyncd.conf.d";
/// The directory of settings for the file of the image that uses DHCP on every card.
pub(super) const DHCP_DROP_IN: &str = "/run/systemd/network/80-etchaos.network.d";
/// What the names of our files begin with. Files with a smaller number than 80 come before that of the image.
pub(super) const PREFIX: &str = "50-etchaos";
/// The first line of each file.
const HEADER: &str =
    "# Written by etchaos-updater. Do not edit: set it in the configuration of the host.\n";

/// Returns the content of each file by its name, without the directory, for one of the directories.
pub(super) fn files(settings: &HostSettings, directory: &str) -> BTreeMap<String, String> {
    match directory {
        NETWORK => settings
            .interfaces
            .iter()
            .map(|(name, interface)| {
                (format!("{PREFIX}-{name}.network"), network(interface, !settings.ntp.is_empty()))
            })
            .collect(),
        TIMESYNCD => one(settings, || timesyncd(&settings.ntp)),
        DHCP_DROP_IN => one(settings, || format!("{HEADER}{}", without_time_servers())),
        _ => BTreeMap::new(),
    }
}

fn one(settings: &HostSettings, content: impl Fn() -> String) -> BTreeMap<String, String> {
    let needed = (!settings.ntp.is_empty()).then(|| (format!("{PREFIX}.conf"), content()));
    needed.into_iter().collect()
}

/// Returns the file of systemd-timesyncd. Only these servers are asked: the empty values remove those of the
/// image.
fn timesyncd(servers: &[String]) -> String {
    format!("{HEADER}\n[Time]\nNTP=\nNTP={}\nFallbackNTP=\n", servers.join(" "))
}

/// Returns the sections with which DHCP does not set time servers.
fn without_time_servers() -> &'static str {
    "\n[DHCPv4]\nUseNTP=no\n\n[DHCPv6]\nUseNTP=no\n"
}

fn network(interface: &Interface, has_time_servers: bool) -> String {
    let Interface { card, addresses, gateways, dns, domains, dhcp, mtu } = interface;
    let mut text = Text(HEADER.to_owned());
    text.section("Match");
    let (key, value) = match card {
        Match::Name(name) => ("Name", name),
        Match::Mac(mac) => ("MACAddress", mac),
        Match::Driver(driver) => ("Driver", driver),
    };
    text.set(key, value);
    // Virtual interfaces have a kind: never configure Docker's bridges and veths, whatever their name.
    text.set("Kind", "!*");
    text.set("Type", "ether");
    if let Some(mtu) = mtu {
        text.section("Link");
        text.set("MTUBytes", mtu);
    }
    text.section("Network");
    let switch = if *dhcp { "yes" } else { "no" };
    text.set("DHCP", switch);
    text.set("IPv6AcceptRA", switch);
    addresses.iter().for_each(|address| text.set("Address", address));
    dns.iter().for_each(|server| text.set("DNS", server));
    domains.iter().for_each(|domain| text.set("Domains", domain));
    for gateway in gateways {
        text.section("Route");
        text.set("Gateway", gateway);
        if interface.is_on_link(*gateway) {
            text.set("GatewayOnLink", "yes");
        }
    }
    if *dhcp {
        // As in 80-etchaos.network: the machine ID changes with each boot.
        text.section("DHCPv4");
        text.set("ClientIdentifier", "mac");
        text.set("UseHostname", "no");
        text.section("DHCPv6");
        text.set("DUIDType", "link-layer");
        text.set("UseHostname", "no");
        if has_time_servers {
            text.0.push_str(without_time_servers());
        }
    }
    text.0
}

/// A file that is being written.
struct Text(String);

impl Text {
    fn section(&mut self, name: &str) {
        self.0.push_str(&format!("\n[{name}]\n"));
    }

    fn set(&mut self, key: &str, value: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{key}={value}");
    }
}
