//! How the CDN is reached.

use std::num::NonZeroU64;
use std::path::PathBuf;

/// How the CDN is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
