//! A network interface: which network card it is, and its addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::names::{domain, is_host};

/// The maximum length of the name of a network card (the kernel's `IFNAMSIZ`, without the final zero).
const CARD_MAX: usize = 15;
/// The maximum length of the name of a driver. The names of all drivers of Linux are shorter.
const DRIVER_MAX: usize = 32;
/// The maximum number of values in each list.
const LIST_MAX: usize = 32;
/// The smallest MTU with which IPv6 works (RFC 8200 section 5), and the largest that IPv4 has (RFC 791).
const MTU: std::ops::RangeInclusive<u32> = 1280..=65535;

/// An interface as written in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct InterfaceFragment {
    /// Which network card it is.
    #[serde(rename = "match")]
    pub(crate) card: MatchFragment,
    /// Addresses with the length of their prefix, such as `192.0.2.10/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) addresses: Vec<String>,
    /// The routers for everything else, at most one for IPv4 and one for IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gateways: Vec<String>,
    /// The addresses of name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dns: Vec<String>,
    /// The domains in which names without a dot are looked up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) domains: Vec<String>,
    /// Whether DHCP and IPv6 router advertisements are used; by default only without `addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dhcp: Option<bool>,
    /// The largest packet in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
}

/// How a network card is recognised: exactly one member is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct MatchFragment {
    /// The name, in which `*` stands for any characters and `?` for one, such as `en*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mac: Option<String>,
    /// The driver, such as `virtio_net`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) driver: Option<String>,
}

/// A valid interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Which network card it is.
    #[serde(rename = "match")]
    pub card: Match,
    /// The addresses, each with the length of its prefix.
    pub addresses: Vec<IpNet>,
    /// The routers, at most one for IPv4 and one for IPv6. Each is in the network of an address, or is a
    /// link-local address, or there is an address whose prefix has the full length.
    pub gateways: Vec<IpAddr>,
    /// The name servers.
    pub dns: Vec<IpAddr>,
    /// The domains in which names without a dot are looked up.
    pub domains: Vec<String>,
    /// Whether DHCP and IPv6 router advertisements are used.
    pub dhcp: bool,
    /// The largest packet in bytes.
    pub mtu: Option<u32>,
}

/// How a network card is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Match {
    /// A name in which `*` and `?` are wild cards.
    Name(String),
    /// A MAC address in lower case, with colons.
    Mac(String),
    /// The name of a driver.
    Driver(String),
}

/// A member that is not valid, with a dot before it, and what was expected.
type Invalid = (String, String);

fn invalid(member: &str, reason: &str) -> Invalid {
    (format!(".{member}"), reason.to_owned())
}

impl Interface {
    /// Checks an interface.
    pub(super) fn new(fragment: &InterfaceFragment) -> Result<Self, Invalid> {
        let InterfaceFragment { card, addresses, gateways, dns, domains, dhcp, mtu } = fragment;
        let interface = Self {
            card: Match::new(card)?,
            addresses: list("addresses", addresses, address, ADDRESSES)?,
            gateways: list("gateways", gateways, host, HOSTS)?,
            dns: list("dns", dns, host, HOSTS)?,
            domains: list("domains", domains, domain, DOMAINS)?,
            dhcp: dhcp.unwrap_or(addresses.is_empty()),
            mtu: *mtu,
        };
        interface.check_gateways()?;
        if interface.mtu.is_some_and(|mtu| !MTU.contains(&mtu)) {
            return Err(invalid("mtu", "expected a number of bytes from 1280 to 65535"));
        }
        if interface.addresses.is_empty() && !interface.dhcp {
            return Err(invalid(
                "dhcp",
                "expected true, or \"addresses\": the host would have none",
            ));
        }
        Ok(interface)
    }

    fn check_gateways(&self) -> Result<(), Invalid> {
        for (index, gateway) in self.gateways.iter().enumerate() {
            let same_family = |other: &IpAddr| other.is_ipv4() == gateway.is_ipv4();
            if self.gateways[..index].iter().any(same_family) {
                return Err(invalid("gateways", "expected at most one for IPv4 and one for IPv6"));
            }
            if self.addresses.iter().any(|address| address.addr() == *gateway) {
                return Err(invalid("gateways", "expected another address than those of the host"));
            }
            if !self.reaches(*gateway) {
                let reason = "expected an address in the network of one of \"addresses\", which has the same family; or a link-local address of IPv6; or \"addresses\" with /32 or /128";
                return Err(invalid("gateways", reason));
            }
        }
        Ok(())
    }

    /// Returns whether a gateway can be reached without another gateway.
    fn reaches(&self, gateway: IpAddr) -> bool {
        let mut family = self.addresses.iter().filter(|a| a.addr().is_ipv4() == gateway.is_ipv4());
        let is_link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        family.any(|address| is_link_local || is_single(address) || address.contains(&gateway))
    }

    /// Describes the addresses on one line.
    pub(super) fn describe(&self) -> String {
        let list = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
        let mut parts = Vec::new();
        if self.dhcp {
            parts.push("DHCP".to_owned());
        }
        if !self.addresses.is_empty() {
            parts.push(list(&mut self.addresses.iter().map(ToString::to_string)));
        }
        if !self.gateways.is_empty() {
            parts.push(format!("via {}", list(&mut self.gateways.iter().map(ToString::to_string))));
        }
        if !self.dns.is_empty() {
            parts.push(format!("DNS {}", list(&mut self.dns.iter().map(ToString::to_string))));
        }
        parts.join(", ")
    }

    /// Returns whether networkd has to be told that a gateway is on the link, because no network of an address
    /// has it. Clouds that give a host an address with `/32` or `/128` have such gateways.
    pub(super) fn is_on_link(&self, gateway: IpAddr) -> bool {
        let is_link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !is_link_local && !self.addresses.iter().any(|address| address.contains(&gateway))
    }
}

/// Returns whether the prefix of an address has the full length, so that it is the only host of its network.
fn is_single(address: &IpNet) -> bool {
    address.prefix_len() == address.max_prefix_len()
}

impl Match {
    fn new(fragment: &MatchFragment) -> Result<Self, Invalid> {
        match fragment {
            MatchFragment { name: Some(name), mac: None, driver: None } => {
                let reason = "expected 1 to 15 letters, digits and ._- with the wild cards * and ?, such as \"en*\"";
                card_name(name).map(Self::Name).ok_or_else(|| invalid("match.name", reason))
            }
            MatchFragment { name: None, mac: Some(mac), driver: None } => {
                let reason = "expected the address of one card, such as \"52:54:00:12:34:56\"";
                mac_address(mac).map(Self::Mac).ok_or_else(|| invalid("match.mac", reason))
            }
            MatchFragment { name: None, mac: None, driver: Some(driver) } => {
                let reason = "expected 1 to 32 letters, digits, dashes and underscores, such as \"virtio_net\"";
                driver_name(driver).map(Self::Driver).ok_or_else(|| invalid("match.driver", reason))
            }
            _ => Err(invalid("match", "expected exactly one of name, mac and driver")),
        }
    }
}

fn card_name(text: &str) -> Option<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
    let is_valid = (1..=CARD_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
    is_valid.then(|| text.to_owned())
}

fn mac_address(text: &str) -> Option<String> {
    let parse = |part: &str| {
        let is_hex = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Vec<u8> = text.split(':').map(parse).collect::<Option<_>>()?;
    // The lowest bit of the first byte marks an address of several cards (IEEE 802).
    let is_card = bytes.len() == 6 && bytes[0] & 1 == 0 && bytes.iter().any(|byte| *byte != 0);
    is_card.then(|| text.to_ascii_lowercase())
}

fn driver_name(text: &str) -> Option<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let is_valid = (1..=DRIVER_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
    is_valid.then(|| text.to_owned())
}

const ADDRESSES: &str = "expected at most 32 different addresses of a host, each with the length of its prefix, such as \"192.0.2.10/24\" or \"2001:db8::10/64\"";
const HOSTS: &str =
    "expected at most 32 different addresses of hosts, such as \"192.0.2.1\" or \"2001:db8::1\"";
const DOMAINS: &str = "expected at most 32 different domains in ASCII, such as \"example.org\"";

/// Checks each text of a list.
fn list<T: PartialEq>(
    member: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Option<T>,
    expected: &str,
) -> Result<Vec<T>, Invalid> {
    let mut values: Vec<T> = Vec::new();
    for text in texts {
        let value = parse(text).filter(|value| !values.contains(value));
        values.push(value.ok_or_else(|| invalid(member, expected))?);
    }
    match values.len() {
        0..=LIST_MAX => Ok(values),
        _ => Err(invalid(member, expected)),
    }
}

fn host(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    // `to_canonical` turns the IPv6 form of an address of IPv4 into IPv4, which networkd does not.
    (is_host(address) && address.to_canonical() == address).then_some(address)
}

/// Parses an address of this host with its prefix.
fn address(text: &str) -> Option<IpNet> {
    let net: IpNet = text.parse().ok()?;
    let address = net.addr();
    let is_host = host(&address.to_string()).is_some() && !address.is_loopback();
    // The first and the last address of a network of IPv4 are no hosts; RFC 3021 has the exception of /31.
    let is_reserved = match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            v4.addr() == v4.network() || v4.addr() == v4.broadcast()
        }
        _ => false,
    };
    (is_host && net.prefix_len() > 0 && !is_reserved).then_some(net)
}

impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(text) | Self::Mac(text) | Self::Driver(text) => f.write_str(text),
        }
    }
}
