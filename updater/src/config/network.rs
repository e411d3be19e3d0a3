//! How the CDN is reached.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use protocol::url::origin;

/// How the CDN is reached.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// `http://[user:password@]host:port`, for both schemes; `None`: as the environment says
    /// (`https_proxy`, `http_proxy`, `no_proxy`).
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy: names, `.suffixes`, or `*`.
    pub no_proxy: Vec<String>,
    /// Files of PEM certificates that are trusted besides the public ones.
    pub authorities: Vec<PathBuf>,
    /// Bytes per second at most.
    pub rate_limit: Option<NonZeroU64>,
}

/// A variable of the environment.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it says. It may hold a password.
    pub value: String,
}

/// Its value is not shown.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What the environment says of proxies, as curl reads it. It counts where no proxy is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// The proxy for `http://`.
    pub http: Option<Variable>,
    /// The proxy for `https://`.
    pub https: Option<Variable>,
    /// Hosts that are reached without it.
    pub no_proxy: Option<Variable>,
}

impl Environment {
    /// Of several variables the first that is not empty counts.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Self {
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

    /// The variables with proxies, one for both schemes once.
    pub fn proxies(&self) -> impl Iterator<Item = &Variable> {
        self.http.iter().chain(self.https.iter().filter(|https| Some(*https) != self.http.as_ref()))
    }

    /// The entries of the list, which are apart by commas or spaces.
    pub fn bypass(&self) -> impl Iterator<Item = &str> {
        let list = self.no_proxy.iter().flat_map(|variable| variable.value.split([',', ' ']));
        list.map(str::trim).filter(|entry| !entry.is_empty())
    }
}

/// `http://host[:port]` of a proxy as the environment may name it, with or without scheme and
/// credentials; `None` if it is not one that can be used.
pub fn proxy_place(text: &str) -> Option<String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let place = format!("http://{}", host.split('/').next()?);
    let is_http = scheme.eq_ignore_ascii_case("http");
    (is_http && origin(&place) == Some(&place)).then_some(place)
}

/// A proxy of the environment, without its credentials.
pub fn shown_variable(variable: &Variable) -> String {
    match proxy_place(&variable.value) {
        Some(place) if variable.value.contains('@') => format!("{place} (with credentials)"),
        Some(place) => place,
        None => "(not usable: expected http://[user:password@]host[:port])".to_owned(),
    }
}

/// The proxy's password is not shown.
impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("proxy", &self.proxy.as_deref().map(without_credentials))
            .field("no_proxy", &self.no_proxy)
            .field("authorities", &self.authorities)
            .field("rate_limit", &self.rate_limit)
            .finish()
    }
}

/// A URL without what stands before its last `@`. What is no URL is not shown at all.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".to_owned() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host} (with credentials)"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let proxy = "http://user:p@SECRET@proxy.example:3128".to_owned();
        assert_eq!(without_credentials(&proxy), "http://proxy.example:3128 (with credentials)");
        assert_eq!(without_credentials("http://proxy:80"), "http://proxy:80");
        assert!(!without_credentials("SECRET").contains("SECRET"));
        let network = Network { proxy: Some(proxy), ..Network::default() };
        assert!(!format!("{network:?}").contains("SECRET"));
    }
}
