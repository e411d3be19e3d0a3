//! The audience of tokens that operators sign.

/// The `aud` of tokens for all EtchaOS hosts.
const ALL: &str = "etchaos";

/// Returns whether a token with this audience is for this host: it names no host, all, or this one.
pub(crate) fn includes_this_host(audience: &[String]) -> bool {
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    audience.is_empty() || audience.iter().any(|aud| aud == ALL || hostname.to_str() == Some(aud))
}
