//! How the CDN is reached.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

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
