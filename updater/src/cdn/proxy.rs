//! Which way a request goes: straight, or through a proxy. Decisions only.

use std::fmt;
use std::net::IpAddr;

use protocol::url::origin;
use ureq::ProxyProtocol;

use super::SetupError;
use crate::config::{Environment, Network, Variable, proxy_origin};

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy(ureq::Proxy);

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`; the scheme may be missing. `from` says where it
    /// was found: what stands there is never shown.
    fn parse(text: &str, from: &str) -> Result<Self, SetupError> {
        // Of a port that is none, ureq says that there is none.
        let proxy = proxy_origin(text).and_then(|_| ureq::Proxy::new(text).ok());
        match proxy.filter(|proxy| proxy.protocol() == ProxyProtocol::Http) {
            Some(proxy) => Ok(Self(proxy)),
            None => Err(SetupError::Proxy { from: from.to_owned() }),
        }
    }

    pub(super) fn inner(&self) -> &ureq::Proxy {
        &self.0
    }
}

/// Without credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.0.host(), self.0.port())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The proxies, and who is reached without them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies {
    /// For `http://`.
    pub(super) http: Option<Proxy>,
    /// For `https://`.
    pub(super) https: Option<Proxy>,
    bypass: Vec<Bypass>,
}

impl Proxies {
    /// The configuration's proxy for both schemes; without one, what the environment says, as curl
    /// reads it.
    pub(super) fn new(
        network: &Network,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let configured = network.no_proxy.iter().map(String::as_str);
        if let Some(proxy) = &network.proxy {
            let proxy = Some(Proxy::parse(proxy, "\"proxy\"")?);
            let bypass = configured.filter_map(Bypass::parse).collect();
            return Ok(Self { http: proxy.clone(), https: proxy, bypass });
        }
        let environment = Environment::read(variable);
        let proxy = |found: &Option<Variable>| {
            let parse = |found: &Variable| Proxy::parse(found.value.trim(), found.name);
            found.as_ref().map(parse).transpose()
        };
        Ok(Self {
            http: proxy(&environment.http)?,
            https: proxy(&environment.https)?,
            bypass: configured.chain(environment.bypass()).filter_map(Bypass::parse).collect(),
        })
    }

    /// The proxy for a URL; `None` is the straight way.
    pub(super) fn way(&self, url: &str) -> Option<&Proxy> {
        let origin = origin(url)?;
        let (scheme, authority) = origin.split_once("://")?;
        let (proxy, usual) = match scheme {
            "https" => (self.https.as_ref()?, 443),
            _ => (self.http.as_ref()?, 80),
        };
        let (host, port) = split_port(authority);
        let port = port.unwrap_or(usual);
        (!self.bypass.iter().any(|bypass| bypass.covers(host, port))).then_some(proxy)
    }
}

/// Who is reached without a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bypass {
    who: Who,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// `*`
    All,
    /// `example.com`: it, and what is below it.
    Name(String),
    /// `.example.com` or `*.example.com`: what is below it.
    Below(String),
    /// `192.0.2.0/24`, or an address alone, with all its bits.
    Net(IpAddr, u8),
}

impl Bypass {
    /// An entry of a list; `None` if there is nothing in it.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self { who: Who::All, port: None });
        }
        if let Some((address, bits)) = net(&entry) {
            return Some(Self { who: Who::Net(address, bits), port: None });
        }
        let (host, port) = split_port(&entry);
        let who = match net(host) {
            Some((address, bits)) => Who::Net(address, bits),
            None => match host.trim_start_matches('*').strip_prefix('.') {
                Some(suffix) => Who::Below(suffix.trim_end_matches('.').to_owned()),
                None => Who::Name(host.trim_end_matches('.').to_owned()),
            },
        };
        Some(Self { who, port })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let below = |suffix: &str| {
            !suffix.is_empty() && host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
        };
        let known = match &self.who {
            Who::All => true,
            Who::Name(name) => host == *name || below(name),
            Who::Below(suffix) => below(suffix),
            Who::Net(address, bits) => {
                host.parse().is_ok_and(|host| same_net(host, *address, *bits))
            }
        };
        known && self.port.is_none_or(|own| own == port)
    }
}

/// Host and port; brackets are taken off an IPv6 address.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// An address, or one with the length of its prefix.
fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some((address, bits))
}

fn same_net(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_env(variables: &[(&str, &str)]) -> Result<Proxies, SetupError> {
        let get = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        Proxies::new(&Network::default(), &get)
    }

    fn way(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.way(url).map(Proxy::to_string)
    }

    #[test]
    fn the_environment_is_read_by_scheme() {
        let both = from_env(&[("http_proxy", "http://a:1"), ("HTTPS_PROXY", "b:2")]).unwrap();
        assert_eq!(way(&both, "http://x/").unwrap(), "http://a:1");
        assert_eq!(way(&both, "https://x/").unwrap(), "http://b:2");
        let one = from_env(&[("https_proxy", "http://b:2"), ("http_proxy", "")]).unwrap();
        assert_eq!(way(&one, "http://x/"), None);
        let all = from_env(&[("ALL_PROXY", "http://c:3"), ("https_proxy", "http://b")]).unwrap();
        assert_eq!(way(&all, "http://x/").unwrap(), "http://c:3");
        assert_eq!(way(&all, "https://x/").unwrap(), "http://b:80");
        assert_eq!(from_env(&[]).unwrap(), Proxies::default());
    }

    #[test]
    fn the_configuration_wins() {
        let network = Network {
            proxy: Some("http://mine:8080".into()),
            no_proxy: vec!["inner.example".into()],
            ..Network::default()
        };
        let other = |_: &str| Some("http://other:1".to_owned());
        let proxies = Proxies::new(&network, &other).unwrap();
        assert_eq!(way(&proxies, "https://x/").unwrap(), "http://mine:8080");
        assert_eq!(way(&proxies, "http://x/").unwrap(), "http://mine:8080");
        assert_eq!(way(&proxies, "http://a.inner.example/"), None);
    }

    #[test]
    fn a_proxy_that_is_none_is_an_error_without_its_value() {
        for bad in [
            "socks5://SECRET@x",
            "https://SECRET@x",
            "http://",
            "SECRET x",
            "ftp://x",
            "http://x:70000",
            "http://u:SECRET@x:0/",
            "x:65536",
        ] {
            let error = from_env(&[("https_proxy", bad)]).unwrap_err().to_string();
            assert!(error.contains("https_proxy") && !error.contains("SECRET"), "{error}");
        }
        let known = from_env(&[("https_proxy", "http://user:SECRET@x:1")]).unwrap();
        assert!(!format!("{known:?}").contains("SECRET"));
        assert!(!known.https.unwrap().to_string().contains("user"));
    }

    #[test]
    fn who_is_reached_without() {
        let covers = |list: &str, url: &str| {
            let variables = [("all_proxy", "http://p:1"), ("no_proxy", list)];
            from_env(&variables).unwrap().way(url).is_none()
        };
        for (list, url) in [
            ("*", "https://x/"),
            ("x.example", "https://x.example/"),
            ("X.Example.", "https://x.eXample/"),
            ("x.example", "https://a.b.x.example/"),
            (".x.example", "https://a.x.example/"),
            ("*.x.example", "https://a.x.example/"),
            ("a, x.example ,b", "https://x.example/"),
            ("a x.example", "https://x.example/"),
            ("x.example:8443", "https://x.example:8443/"),
            ("x.example:443", "https://x.example/"),
            ("192.0.2.1", "http://192.0.2.1:8080/"),
            ("192.0.2.1:8080", "http://192.0.2.1:8080/"),
            ("192.0.2.0/24", "http://192.0.2.77/"),
            ("0.0.0.0/0", "http://192.0.2.77/"),
            ("::1", "http://[::1]:8080/"),
            ("[::1]", "http://[::1]/"),
            ("2001:db8::/32", "http://[2001:db8:1::1]/"),
        ] {
            assert!(covers(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "https://x/"),
            (",,", "https://x/"),
            ("x.example", "https://evilx.example/"),
            ("x.example", "https://x.example.evil/"),
            (".x.example", "https://x.example/"),
            (".", "https://x.example/"),
            ("x.example:444", "https://x.example/"),
            ("192.0.2.1", "http://192.0.2.11/"),
            ("192.0.2.0/24", "http://192.0.3.1/"),
            ("192.0.2.0/24", "http://192.0.2.1.evil/"),
            ("2001:db8::/32", "http://192.0.2.1/"),
            ("192.0.2.0/99", "http://192.0.2.1/"),
        ] {
            assert!(!covers(list, url), "{list} {url}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_read_without_a_panic(list in ".*", host in "[a-z0-9.:\\[\\]]{0,20}") {
            let variables = [("all_proxy", "http://p:1"), ("no_proxy", &list)];
            let _ = from_env(&variables).unwrap().way(&format!("http://{host}/"));
        }
    }
}
