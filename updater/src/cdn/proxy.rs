//! Decides whether a request uses a proxy.
//!
//! The list of hosts without a proxy is evaluated here and not by ureq, whose own support has neither
//! networks (`192.0.2.0/24`) nor ports, and is not available to `forward_proxy`.

use std::fmt;

use protocol::proxy::ProxyUrl;
use protocol::url::Origin;
use ureq::ProxyProtocol;

use super::error::NetworkConfigError;
use crate::config::{Bypass, Environment, Network, Variable};

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy(ureq::Proxy);

impl Proxy {
    /// Parses `http://[user:password@]host[:port]`; the scheme is optional. `from` is the name of the
    /// setting, which the error shows in place of the value, because that may contain a password.
    fn parse(text: &str, from: &str) -> Result<Self, NetworkConfigError> {
        let parsed = ProxyUrl::parse(text).ok().filter(|url| url.scheme() == "http");
        let proxy = parsed.and_then(|url| {
            // ureq must not parse the text, since it ends the host at a `#`, `/` or `?` in the password.
            let mut builder = ureq::Proxy::builder(ProxyProtocol::Http).host(&url.host());
            builder = builder.port(url.port().unwrap_or(80));
            if let Some(user) = url.user() {
                builder = builder.username(user);
            }
            if let Some(password) = url.password() {
                builder = builder.password(password);
            }
            builder.build().ok()
        });
        proxy.map(Self).ok_or_else(|| NetworkConfigError::Proxy { from: from.to_owned() })
    }

    pub(super) fn inner(&self) -> &ureq::Proxy {
        &self.0
    }
}

/// Omits the credentials.
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

/// The proxies, and the hosts that are reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies {
    /// For `http://`.
    pub(super) http: Option<Proxy>,
    /// For `https://`.
    pub(super) https: Option<Proxy>,
    bypass: Vec<Bypass>,
}

impl Proxies {
    /// Uses the configured proxy for both schemes. If none is configured, reads the environment like
    /// curl. Fails if a proxy is not usable.
    pub(super) fn new(
        network: &Network,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, NetworkConfigError> {
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

    /// Returns the proxy for a URL, or `None` for a direct connection.
    pub(super) fn for_url(&self, url: &str) -> Option<&Proxy> {
        let origin = Origin::of(url)?;
        let proxy = if origin.is_https() { self.https.as_ref()? } else { self.http.as_ref()? };
        let (host, port) = (origin.host(), origin.port());
        (!self.bypass.iter().any(|bypass| bypass.matches(host, port))).then_some(proxy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn from_env(variables: &[(&str, &str)]) -> Result<Proxies, NetworkConfigError> {
        let get = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        Proxies::new(&Network::default(), &get)
    }

    fn proxy_for(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.for_url(url).map(Proxy::to_string)
    }

    #[test]
    fn reads_environment_variables_by_scheme() {
        let both = from_env(&[("http_proxy", "http://a:1"), ("HTTPS_PROXY", "b:2")]).unwrap();
        assert_eq!(proxy_for(&both, "http://x/").unwrap(), "http://a:1");
        assert_eq!(proxy_for(&both, "https://x/").unwrap(), "http://b:2");
        let one = from_env(&[("https_proxy", "http://b:2"), ("http_proxy", "")]).unwrap();
        assert_eq!(proxy_for(&one, "http://x/"), None);
        let all = from_env(&[("ALL_PROXY", "http://c:3"), ("https_proxy", "http://b")]).unwrap();
        assert_eq!(proxy_for(&all, "http://x/").unwrap(), "http://c:3");
        assert_eq!(proxy_for(&all, "https://x/").unwrap(), "http://b:80");
        assert_eq!(from_env(&[]).unwrap(), Proxies::default());
    }

    #[test]
    fn configuration_overrides_environment() {
        let network = Network {
            proxy: Some("http://mine:8080".into()),
            no_proxy: vec!["inner.example".into()],
            ..Network::default()
        };
        let other = |_: &str| Some("http://other:1".to_owned());
        let proxies = Proxies::new(&network, &other).unwrap();
        assert_eq!(proxy_for(&proxies, "https://x/").unwrap(), "http://mine:8080");
        assert_eq!(proxy_for(&proxies, "http://x/").unwrap(), "http://mine:8080");
        assert_eq!(proxy_for(&proxies, "http://a.inner.example/"), None);
    }

    #[test]
    fn error_for_unusable_proxy_omits_value() {
        for bad in [
            "socks5://SECRET@x",
            "https://SECRET@x",
            "http://",
            "SECRET x",
            "ftp://x",
            "http://x:70000",
            "http://u:SECRET@x:0/",
            "x:65536",
            "http://1234:SECRET",
            "http://u:1234#SECRET",
            "http://u:1234/SECRET",
            "http://u:SECRET@x/path",
        ] {
            let error = from_env(&[("https_proxy", bad)]).unwrap_err().to_string();
            assert!(error.contains("https_proxy") && !error.contains("SECRET"), "{error}");
        }
        let proxies = from_env(&[("https_proxy", "http://user:SECRET@x:1")]).unwrap();
        assert!(!format!("{proxies:?}").contains("SECRET"));
        assert!(!proxies.https.unwrap().to_string().contains("user"));
    }

    /// A general parser takes the user for the host in these.
    #[test]
    fn accepts_special_characters_in_passwords() {
        for password in
            ["1234#SECRET", "1234/SECRET", "1234?SECRET", "1@SECRET", "1:SECRET", "%23SECRET"]
        {
            let text = format!("http://user:{password}@127.0.0.1:3128");
            let proxies = from_env(&[("http_proxy", &text)]).unwrap();
            assert_eq!(
                proxy_for(&proxies, "http://x/").unwrap(),
                "http://127.0.0.1:3128",
                "{text}"
            );
            assert!(!format!("{proxies:?}").contains("SECRET"));
            let proxy = proxies.http.unwrap();
            let expected = password.replace("%23", "#");
            assert_eq!(proxy.inner().password(), Some(expected.as_str()));
            assert_eq!(proxy.inner().uri().host(), Some("127.0.0.1"));
        }
        let ipv6 = from_env(&[("http_proxy", "http://u:p/q@[::1]:3128")]).unwrap();
        assert_eq!(proxy_for(&ipv6, "http://x/").unwrap(), "http://[::1]:3128");
    }

    #[test]
    fn bypasses_proxy_for_listed_hosts() {
        let bypasses = |list: &str, url: &str| {
            let variables = [("all_proxy", "http://p:1"), ("no_proxy", list)];
            from_env(&variables).unwrap().for_url(url).is_none()
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
            assert!(bypasses(list, url), "{list} {url}");
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
            ("x.example:0", "https://x.example/"),
            ("x.example:port", "https://x.example/"),
        ] {
            assert!(!bypasses(list, url), "{list} {url}");
        }
    }

    proptest! {
        #[test]
        fn parsing_no_proxy_never_panics(list in ".*", host in "[a-z0-9.:\\[\\]]{0,20}") {
            let variables = [("all_proxy", "http://p:1"), ("no_proxy", &list)];
            let _ = from_env(&variables).unwrap().for_url(&format!("http://{host}/"));
        }
    }
}
