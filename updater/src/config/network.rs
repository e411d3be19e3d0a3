//! Settings for connections to the CDN.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use protocol::proxy::ProxyUrl;

/// Shown in place of a proxy that is not usable, since it may contain a password.
const NOT_USABLE: &str = "(not usable: expected http://[user:password@]host[:port])";

/// Settings for connections to the CDN.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The proxy for both schemes, `http://[user:password@]host:port`. If `None`, the environment
    /// applies (`https_proxy`, `http_proxy`, `no_proxy`).
    pub proxy: Option<String>,
    /// Hosts to connect to without the proxy: names, `.suffixes`, addresses, networks, or `*`, each of which
    /// may have a port.
    pub no_proxy: Vec<String>,
    /// PEM files with certificate authorities that are trusted in addition to the public ones.
    pub authorities: Vec<PathBuf>,
    /// The maximum download rate, in bytes per second.
    pub rate_limit: Option<NonZeroU64>,
}

/// An environment variable.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// The name.
    pub name: &'static str,
    /// The value, which may contain a password.
    pub value: String,
}

/// Omits the value.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The proxy variables of the environment, interpreted as by curl. They apply if no proxy is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// The proxy for `http://`.
    pub http: Option<Variable>,
    /// The proxy for `https://`.
    pub https: Option<Variable>,
    /// Hosts to connect to without a proxy.
    pub no_proxy: Option<Variable>,
}

impl Environment {
    /// Reads the variables. For each purpose, the first variable that is not empty applies.
    pub(crate) fn read(get: &dyn Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let set = |name: &&'static str| Some(Variable { name, value: get(name)? });
            names.iter().filter_map(set).find(|variable| !variable.value.trim().is_empty())
        };
        Self {
            http: first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            no_proxy: first(&["no_proxy", "NO_PROXY"]),
        }
    }

    /// Returns the variables that name a proxy. A variable that applies to both schemes is returned once.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = &Variable> {
        self.http.iter().chain(self.https.iter().filter(|https| Some(*https) != self.http.as_ref()))
    }

    /// Returns the hosts in `no_proxy`, which are separated by commas or spaces.
    pub(crate) fn bypass(&self) -> impl Iterator<Item = &str> {
        let list = self.no_proxy.iter().flat_map(|variable| variable.value.split([',', ' ']));
        list.map(str::trim).filter(|entry| !entry.is_empty())
    }
}

/// Formats a proxy without its credentials. Text that is not an http proxy is not shown at all.
pub(super) fn redact_proxy(text: &str) -> String {
    match ProxyUrl::parse(text) {
        Ok(proxy) if proxy.scheme() != "http" => NOT_USABLE.to_owned(),
        Ok(proxy) if proxy.user().is_some() => format!("{proxy} (with credentials)"),
        Ok(proxy) => proxy.to_string(),
        Err(_) => NOT_USABLE.to_owned(),
    }
}

/// Omits the credentials of the proxy.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("proxy", &self.proxy.as_deref().map(redact_proxy))
            .field("no_proxy", &self.no_proxy)
            .field("authorities", &self.authorities)
            .field("rate_limit", &self.rate_limit)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omits_credentials() {
        let shown = "http://proxy.example:3128 (with credentials)";
        for password in ["p@SECRET", "1234#SECRET", "1234/SECRET", "1234?SECRET", "SECRET://x"] {
            let proxy = format!("http://user:{password}@proxy.example:3128");
            assert_eq!(redact_proxy(&proxy), shown);
            let network = Network { proxy: Some(proxy), ..Network::default() };
            assert!(!format!("{network:?}").contains("SECRET"));
        }
        assert_eq!(redact_proxy("http://proxy:80"), "http://proxy:80");
        for bad in ["u:SECRET", "http://u:1#SECRET", "socks5://u:SECRET@x", "http://SECRET#x"] {
            assert!(redact_proxy(bad).starts_with("(not usable"), "{bad}");
        }
    }
}
