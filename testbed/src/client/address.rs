//! The address of a listener, as a person writes it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port of a listener, of Etcha and of EtchaOS.
pub(crate) const PORT: u16 = 4000;

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Whether the connection is encrypted.
    pub(crate) tls: bool,
    /// A name, an address of IPv4, or an address of IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Returns the host and the port, as the header `Host` has them (RFC 9110 section 7.2).
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// Parses `HOST`, `HOST:PORT`, an address of IPv6 with or without brackets, or one of these after
    /// `https://` or `http://`. Without a port, it is 4000 for each of them.
    fn from_str(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, _)) => {
                return Err(format!("the scheme {scheme:?} is neither https nor http"));
            }
            None => (true, text),
        };
        let (host, port) = split_port(rest.strip_suffix('/').unwrap_or(rest))?;
        let port = match port {
            None => PORT,
            Some(port) => parse_port(port)?,
        };
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    /// Writes the address as a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Splits `HOST[:PORT]` into the host, without brackets, and the port.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the \"[\" has no \"]\"")?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(format!("expected \":PORT\" after \"]\", found {rest:?}")),
            Some(port) => Some(port),
        };
        return Ok((ipv6(host)?, port));
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Ok((ipv6(text)?, None)),
        Some((host, port)) => Ok((name(host)?, Some(port))),
        None => Ok((name(text)?, None)),
    }
}

fn ipv6(text: &str) -> Result<&str, String> {
    match text.parse::<Ipv6Addr>() {
        Ok(_) => Ok(text),
        Err(_) => Err(format!("{text:?} is not an address of IPv6")),
    }
}

/// Checks a name or an address of IPv4. This also rejects URLs with a path, a query or a user.
fn name(text: &str) -> Result<&str, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match text.is_empty() || !text.chars().all(is_allowed) {
        false => Ok(text),
        true => Err(format!(
            "{text:?} is not the name or address of a host; expected HOST, HOST:PORT, [IPV6]:PORT, or \
             one of these after https:// or http://"
        )),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok());
    port.flatten()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{text:?} is not a port; expected 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_hosts_ports_and_urls() {
        for (text, url) in [
            ("web1", "https://web1:4000"),
            ("web1.example.org:443", "https://web1.example.org:443"),
            ("192.0.2.7", "https://192.0.2.7:4000"),
            ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000"),
            ("[2001:db8::1]", "https://[2001:db8::1]:4000"),
            ("2001:db8::1", "https://[2001:db8::1]:4000"),
            ("http://web1", "http://web1:4000"),
            ("https://web1:1/", "https://web1:1"),
            ("HTTP://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn rejects_everything_else() {
        for text in [
            "",
            "web1:",
            "web1:0",
            "web1:65536",
            "web1:+80",
            "web1:http",
            "[::1",
            "[::1]4000",
            "[web1]:4000",
            "1:2:3",
            "ftp://web1",
            "https://",
            "https://web1/path",
            "web1?check",
            "user@web1",
            "web 1",
            "web1\r\nX: y",
            "wéb",
            "https://web1:4000//",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
