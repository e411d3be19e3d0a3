//! Host names and other names that become a part of a file of systemd.

use std::net::IpAddr;

/// The maximum length of a host name: that of the kernel (`__NEW_UTS_LEN`), without its final zero.
const HOST_NAME_MAX: usize = 64;
/// The maximum length of a domain name as text (RFC 1035 section 2.3.4, without the dot at the end).
const DOMAIN_MAX: usize = 253;
/// The maximum length of a label (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;
/// The maximum length of the name that a configuration gives to an interface.
const INTERFACE_MAX: usize = 32;

/// Returns a host name in lower case, or `None` if it is not a valid one. It may be a domain name, whose first
/// label is then the name of the host.
pub(crate) fn host_name(text: &str) -> Option<String> {
    let name = domain(text)?;
    // systemd ignores a host with this name.
    let is_localhost = name.rsplit('.').next() == Some("localhost")
        || name == "localhost.localdomain"
        || name.ends_with(".localhost.localdomain");
    (name.len() <= HOST_NAME_MAX && !is_localhost).then_some(name)
}

/// Returns a domain name in lower case, or `None` if it does not follow RFC 1123 section 2.1 and RFC 952:
/// labels of letters, digits and dashes, none of which begins or ends with a dash. The last label is not a
/// number, so that no name looks like an address.
pub(super) fn domain(text: &str) -> Option<String> {
    let is_valid = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    let is_domain = text.len() <= DOMAIN_MAX && text.split('.').all(is_valid) && !is_number;
    is_domain.then(|| text.to_ascii_lowercase())
}

/// Returns a host name or an address in its usual form, or `None` if it is neither.
pub(crate) fn time_server(text: &str) -> Option<String> {
    match text.parse::<IpAddr>() {
        Ok(address) => is_host(address).then(|| address.to_string()),
        Err(_) => domain(text),
    }
}

/// Returns whether an address can be the one of a single host.
pub(super) fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

/// Returns whether the text can be a part of a file name.
pub(super) fn is_label(text: &str) -> bool {
    (1..=INTERFACE_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}
