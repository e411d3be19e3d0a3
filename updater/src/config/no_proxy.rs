//! The entries of the list of hosts that are reached without a proxy: `noProxy` of the configuration, and
//! `no_proxy` of the environment.

use std::net::IpAddr;

use ipnet::IpNet;

/// The maximum length of an entry: a DNS name with `*.` and a port.
const ENTRY_MAX: usize = 270;

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bypass {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// `*`: every host.
    All,
    /// `example.com`: this domain and its subdomains.
    Domain(String),
    /// `.example.com` or `*.example.com`: only the subdomains.
    Subdomains(String),
    /// `192.0.2.0/24`, or a single address as a network with the longest prefix.
    Network(IpNet),
}

impl Bypass {
    /// Parses an entry: `*`, a host name, `.suffix`, `*.suffix`, an address or a network, each of which may
    /// be followed by a port. Returns `None` if it is none of these, and therefore matches no host.
    pub(crate) fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.len() > ENTRY_MAX {
            return None;
        }
        if let Some(network) = network(&entry) {
            return Some(Self { hosts: Hosts::Network(network), port: None });
        }
        let (host, port) = split_port(&entry)?;
        let hosts = match network(host) {
            Some(network) => Hosts::Network(network),
            None => name(host)?,
        };
        Some(Self { hosts, port })
    }

    /// Returns whether the entry matches a host and port of a URL.
    pub(crate) fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_below =
            |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        let is_match = match &self.hosts {
            Hosts::All => true,
            Hosts::Domain(name) => host == *name || is_below(name),
            Hosts::Subdomains(suffix) => is_below(suffix),
            Hosts::Network(network) => {
                host.parse().is_ok_and(|host: IpAddr| network.contains(&host.to_canonical()))
            }
        };
        is_match && self.port.is_none_or(|own| own == port)
    }
}

/// Splits an entry into its host and its port. Removes the brackets of an IPv6 address.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let (host, after) = match entry.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => entry.split_at(entry.find(':').unwrap_or(entry.len())),
    };
    // An IPv6 network may have its prefix behind the brackets, which `network` parses.
    match after.strip_prefix(':') {
        // `parse` alone would accept a plus sign.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok().filter(|port| *port > 0)?)))
        }
        Some(_) => None,
        None => after.is_empty().then_some((host, None)),
    }
}

/// Parses a host name, or a suffix of host names.
fn name(host: &str) -> Option<Hosts> {
    if host == "*" {
        return Some(Hosts::All);
    }
    let suffix = host.strip_prefix('*').unwrap_or(host).strip_prefix('.');
    let name = suffix.unwrap_or(host).trim_end_matches('.').to_owned();
    // A URL has a name with other letters in its ASCII form, `xn--…`, so such an entry would match nothing.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return None;
    }
    Some(if suffix.is_some() { Hosts::Subdomains(name) } else { Hosts::Domain(name) })
}

/// Parses a network or a single address. An IPv6 address may have brackets.
fn network(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = inner.unwrap_or(address).parse().ok()?;
    // IPv4 addresses within IPv6 (`::ffff:192.0.2.1`) are compared as IPv4.
    let canonical = address.to_canonical();
    match prefix {
        Some(prefix) if canonical != address => {
            IpNet::new(canonical, prefix.parse::<u8>().ok()?.checked_sub(96)?).ok()
        }
        Some(prefix) => IpNet::new(address, prefix.parse().ok()?).ok(),
        None => Some(canonical.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_every_kind_of_entry() {
        for (entry, host, port) in [
            ("*", "x", 1),
            ("*:8080", "x", 8080),
            ("x.example", "a.x.example", 1),
            ("X.example.:443", "x.example", 443),
            ("*.x.example:443", "a.x.example", 443),
            ("192.0.2.0/24", "192.0.2.77", 1),
            ("192.0.2.0/24:8080", "192.0.2.77", 8080),
            ("2001:db8::/32", "2001:db8::1", 1),
            ("[2001:db8::]/32", "2001:db8::1", 1),
            ("[2001:db8::/32]:443", "2001:db8::1", 443),
            ("[::1]:8080", "::1", 8080),
            ("localhost", "localhost", 80),
            (" x.example ", "x.example", 80),
            ("XN--Bcher-KVA.example", "xn--bcher-kva.example", 80),
            ("192.0.2.0/24", "::ffff:192.0.2.7", 80),
            ("192.0.2.7", "::ffff:c000:207", 80),
            ("::ffff:192.0.2.7", "192.0.2.7", 80),
            ("[::ffff:192.0.2.0]/120", "192.0.2.7", 80),
            ("2001:DB8::/32", "2001:db8::1", 80),
        ] {
            let parsed = Bypass::parse(entry).unwrap_or_else(|| panic!("{entry}"));
            assert!(parsed.matches(host, port), "{entry}");
        }
    }

    #[test]
    fn rejects_what_matches_no_host() {
        for entry in [
            "",
            " ",
            ".",
            "*.",
            "..",
            "**",
            "a*",
            "a/b",
            "SECRET/",
            "http://x",
            "x:0",
            "x:70000",
            "x:",
            "x:y",
            "192.0.2.0/33",
            "192.0.2/24",
            "::1/129",
            "[::1",
            "a,b",
            "a b",
            "u@x",
            "x:+80",
            "x:-80",
            "b\u{fc}cher.example",
            "::ffff:192.0.2.0/24",
            "[fe80::1%eth0]",
        ] {
            assert_eq!(Bypass::parse(entry), None, "{entry}");
        }
    }

    #[test]
    fn matches_no_other_host() {
        for (entry, host, port) in [
            ("192.0.2.0/24", "::ffff:192.0.3.7", 80),
            ("::/0", "192.0.2.1", 80),
            ("0.0.0.0/0", "2001:db8::1", 80),
            ("x.example:80", "x.example", 443),
            (".x.example", "x.example", 80),
            ("x.example", "xx.example", 80),
            ("x.example", "x.example.evil", 80),
        ] {
            assert!(!Bypass::parse(entry).unwrap().matches(host, port), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(entry in ".{0,40}", host in ".{0,20}", port: u16) {
            if let Some(bypass) = Bypass::parse(&entry) {
                let _ = bypass.matches(&host, port);
            }
        }

        #[test]
        fn a_network_matches_what_it_contains(address: u32, prefix in 0u8..=32, host: u32) {
            let (address, host) = (std::net::Ipv4Addr::from(address), std::net::Ipv4Addr::from(host));
            let bypass = Bypass::parse(&format!("{address}/{prefix}")).unwrap();
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            let expected = u32::from(address) & mask == u32::from(host) & mask;
            prop_assert_eq!(bypass.matches(&host.to_string(), 80), expected);
        }
    }
}
