//! Origins as RFC 6454 defines them: scheme, host and port, however they are written.

use std::fmt;
use std::net::Ipv6Addr;

/// The origin of an `http` or `https` URL. Two URLs with equal origins lead to the same server: the
/// letter case of scheme and host, a port that is the default of the scheme, and the ways of writing an
/// IPv6 address make no difference.
///
/// It is displayed in its shortest form, `https://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    is_https: bool,
    /// In lower case. An IPv6 address is without brackets, as RFC 5952 writes it.
    host: String,
    port: u16,
}

impl Origin {
    /// Returns the origin of a URL. Returns `None` under the conditions of [`split`](Self::split).
    pub fn of(url: &str) -> Option<Self> {
        Self::split(url).map(|(origin, _)| origin)
    }

    /// Splits a URL into its origin and the rest, which is empty or begins with `/`, `?` or `#`.
    ///
    /// Returns `None` if the URL is not an `http` or `https` URL without credentials, or has a character
    /// that RFC 3986 does not allow.
    pub fn split(url: &str) -> Option<(Self, &str)> {
        let (scheme, after) = url.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        let is_allowed = |b: u8| b.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&b);
        if !(is_https || scheme.eq_ignore_ascii_case("http")) || !url.bytes().all(is_allowed) {
            return None;
        }
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        let (host, port) = host_and_port(authority)?;
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        Some((Self { is_https, host, port }, rest))
    }

    /// Returns whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Returns the host in lower case, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, which is the default of the scheme if the URL has none.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.is_https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", bracketed(&self.host))?;
        match self.port == default {
            true => Ok(()),
            false => write!(f, ":{}", self.port),
        }
    }
}

/// Returns a host as URLs write it: an IPv6 address is in brackets.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Splits the authority of a URL without credentials into its host, as in [`Origin::host`], and its port.
/// Returns `None` if either is invalid.
///
/// A port is a number from 1 to 65535. Other text after the colon is probably a password with a slash in
/// it, and so is an empty one. A host with `%` would mean one host to this program, and another to one that
/// decodes it.
pub(crate) fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, after) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.to_string(), after)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            (authority[..end].to_ascii_lowercase(), &authority[end..])
        }
    };
    let is_name = |b: u8| b.is_ascii_graphic() && !b"@%[]/?#\\\"<>^`{|}".contains(&b);
    if host.is_empty() || !host.bytes().all(is_name) {
        return None;
    }
    if after.is_empty() {
        return Some((host, None));
    }
    let port = after.strip_prefix(':')?;
    // `parse` alone would accept a plus sign.
    let is_number = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port: &u16| is_number && *port > 0)?;
    Some((host, Some(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::url::Url;
    use proptest::prelude::*;

    #[test]
    fn compares_origins_however_they_are_written() {
        for (one, other) in [
            ("http://cdn.example", "http://cdn.example:80/x"),
            ("https://cdn.example/", "https://cdn.example:443?x"),
            ("https://CDN.example", "HTTPS://cdn.EXAMPLE#x"),
            ("http://cdn.example:080", "http://cdn.example"),
            ("http://[::1]:80", "http://[0:0:0:0:0:0:0:1]"),
            ("http://[2001:DB8::A]:8080", "http://[2001:db8:0::a]:8080"),
        ] {
            assert_eq!(Origin::of(one).unwrap(), Origin::of(other).unwrap(), "{one} {other}");
        }
        for (one, other) in [
            ("http://cdn.example", "https://cdn.example"),
            ("http://cdn.example:443", "https://cdn.example"),
            ("https://cdn.example:80", "https://cdn.example"),
            ("https://cdn.example", "https://cdn.example.evil"),
            ("https://cdn.example", "https://cdn.example."),
            ("http://127.0.0.1", "http://[::ffff:127.0.0.1]"),
            ("http://127.0.0.1", "http://127.1"),
        ] {
            assert_ne!(Origin::of(one).unwrap(), Origin::of(other).unwrap(), "{one} {other}");
        }
    }

    #[test]
    fn rejects_malformed_origins() {
        for url in [
            "",
            "x",
            "http:/x",
            "http://",
            "http:///x",
            "ftp://x",
            "http://u@x",
            "http://u:p@x",
            "http://x:",
            "http://x:0",
            "http://x:+80",
            "http://x:65536",
            "http://cdn%2eexample",
            "http://[::1",
            "http://[::1]x",
            "http://[::1%25eth0]",
            "http://::1",
            "http://x[::1]",
            "http://a b",
            "http://\u{e9}",
            "http://x/\u{e9}",
            "http://x\\y",
        ] {
            assert_eq!(Origin::of(url), None, "{url}");
        }
    }

    /// A URL in which the case of letters, the port and the scheme vary.
    fn variants(host: &str, upper: bool, port: &str) -> String {
        let host = if upper { host.to_ascii_uppercase() } else { host.to_owned() };
        format!("http://{host}{port}/x")
    }

    proptest! {
        #[test]
        fn agrees_with_the_url_crate(
            one in "[hH][tT]TPS?://[a-zA-Z0-9.:@/?#%\\[\\]\\\\_~+\t \u{e9}-]{0,20}",
            other in "https?://[a-zA-Z0-9.:@/?#%\\[\\]\\\\_~+\t \u{e9}-]{0,20}",
        ) {
            for url in [&one, &other] {
                if let (Some(origin), Ok(parsed)) = (Origin::of(url), Url::parse(url)) {
                    let shown = Url::parse(&origin.to_string()).unwrap();
                    prop_assert_eq!(parsed.origin(), shown.origin());
                    prop_assert!(parsed.username().is_empty() && parsed.password().is_none());
                }
            }
            if let (Some(a), Some(b)) = (Origin::of(&one), Origin::of(&other))
                && a == b
            {
                // The same origin for this program is the same for every other program.
                let parsed = |url: &str| Url::parse(url).map(|url| url.origin());
                prop_assert_eq!(parsed(&one), parsed(&other));
            }
        }

        #[test]
        fn displays_the_canonical_form(host in "[a-z0-9][a-z0-9.-]{0,12}", upper: bool, own: bool) {
            let port = if own { ":8080" } else { ":80" };
            let origin = Origin::of(&variants(&host, upper, port)).unwrap();
            let expected = format!("http://{host}{}", if own { ":8080" } else { "" });
            prop_assert_eq!(origin.to_string(), expected.clone());
            prop_assert_eq!(Origin::of(&expected), Some(origin));
        }

        #[test]
        fn splits_without_loss(url in "https?://[a-z0-9.:\\[\\]]{1,10}[/?#][a-z/?#%.]{0,10}") {
            if let Some((_, rest)) = Origin::split(&url) {
                prop_assert!(url.ends_with(rest) && rest.starts_with(['/', '?', '#']));
            }
        }
    }
}
