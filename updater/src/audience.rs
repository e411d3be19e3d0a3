//! The audience of tokens that operators sign.

/// The `aud` of tokens for all EtchaOS hosts.
const ALL: &str = "etchaos";

/// Returns whether a token with this audience is for this host: it names no host, all, or this one.
pub(crate) fn includes_this_host(audience: &[String]) -> bool {
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    includes(audience, hostname.to_str())
}

/// Returns whether a token with this audience is for the host with this name, if the name is known.
pub(crate) fn includes(audience: &[String], hostname: Option<&str>) -> bool {
    let is_ours = |aud: &String| aud == ALL || hostname == Some(aud);
    audience.is_empty() || audience.iter().any(is_ours)
}
