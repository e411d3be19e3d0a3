//! URLs in manifests: which of them a host may follow, and what may be shown of the others.

use crate::release::is_file_name;
use crate::target::shortened;

/// As much of a host as is shown: a DNS name has 253 characters at most, with scheme and port.
pub const HOST_MAX: usize = 270;

/// The URL of an artifact that the manifest at `manifest_url` names as `url`, if it stays at home.
///
/// A relative `url` is a path of plain file names below the manifest's directory; an absolute one must
/// have the scheme and host of the manifest, or begin with one of `allowed` (`https://host[:port]`).
pub fn artifact_url(manifest_url: &str, url: &str, allowed: &[String]) -> Result<String, UrlError> {
    if url.contains("://") {
        let origin = origin(url).ok_or_else(|| UrlError::Malformed(place(url)))?;
        let home = self::origin(manifest_url);
        if home != Some(origin) && !allowed.iter().any(|other| other == origin) {
            return Err(UrlError::Foreign { origin: origin.chars().take(HOST_MAX).collect() });
        }
        return Ok(url.to_owned());
    }
    if !url.split('/').all(is_file_name) {
        return Err(UrlError::Malformed(place(url)));
    }
    let directory = manifest_url.rfind('/').map_or("", |end| &manifest_url[..=end]);
    Ok(format!("{directory}{url}"))
}

/// Scheme, host and port of an `http` or `https` URL without credentials.
pub fn origin(url: &str) -> Option<&str> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&b);
    let host = url[scheme.len()..].split(['/', '?', '#']).next().unwrap_or_default();
    let good =
        !host.is_empty() && !host.contains('@') && has_sane_port(host) && url.bytes().all(plain);
    good.then(|| &url[..scheme.len() + host.len()])
}

/// Whether what comes after the host's colon is a port, from 1 to 65535. What is no number is most
/// likely a password with a slash in it, and of a number that is too large who connects takes none,
/// and goes to the scheme's own.
fn has_sane_port(host: &str) -> bool {
    // The colons of an IPv6 address are in brackets.
    let after = host.rsplit(']').next().unwrap_or_default();
    let port = after.split_once(':').map(|(_, port)| port);
    let is_one = |port: &str| {
        // Or a sign in front of it would do.
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0)
    };
    port.is_none_or(is_one)
}

/// What may be shown of a URL that is not followed: scheme and host. Credentials and query may be
/// secrets, and a path may hold either where the URL is not well formed.
fn place(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "a relative one".to_owned() };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if scheme.is_empty() || !scheme.bytes().all(plain) {
        return "with a scheme that is none".to_owned();
    }
    let scheme = shortened(scheme);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let (host, after) = match authority.rsplit_once('@') {
        Some((_, host)) => (host, &rest[authority.len()..]),
        None => (authority, &rest[authority.len()..]),
    };
    // An `@` further on: what looks like the host may be the beginning of a password.
    let is_known = !host.is_empty() && !after.contains('@') && has_sane_port(host);
    match is_known {
        true => format!(
            "{:?}",
            format!("{scheme}://{}", host.chars().take(HOST_MAX).collect::<String>())
        ),
        false => format!("with the scheme {scheme:?}"),
    }
}

/// A URL in a manifest that a host must not follow. No more than scheme and host of it are shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither a plain relative path nor an http(s) URL.
    #[error(
        "the artifact's URL ({0}) is neither a path of plain file names nor an http(s) URL without credentials"
    )]
    Malformed(String),
    /// Another scheme or host than the manifest's.
    #[error(
        "the artifact's URL leaves the CDN for {origin}; if that is meant, name it in \"allowedOrigins\""
    )]
    Foreign {
        /// Its scheme, host and port.
        origin: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_stay_at_home() {
        let at = "https://cdn.example/os/etchaos_deb_amd64.jwt";
        let join = |url: &str| artifact_url(at, url, &["https://mirror.example:8443".into()]);
        assert_eq!(join("x.raw").unwrap(), "https://cdn.example/os/x.raw");
        assert_eq!(join("7/x.raw").unwrap(), "https://cdn.example/os/7/x.raw");
        assert!(join("https://cdn.example/else/x").is_ok());
        assert!(join("https://mirror.example:8443/x").is_ok());
        for url in [
            "",
            "/x",
            "../x",
            "a/../x",
            "a//x",
            "a\\x",
            "%2e%2e/x",
            "x?y",
            "//evil.example/x",
            "http://cdn.example/x",
            "https://cdn.example.evil/x",
            "https://cdn.example:444/x",
            "https://u:p@cdn.example/x",
            "ftp://cdn.example/x",
            "file:///etc/shadow",
            "https://mirror.example:84430/x",
            "https://",
            "https://cdn.example/a b",
            "https://cdn.example:port/x",
        ] {
            assert!(join(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_port_is_one_that_can_be_connected_to() {
        for host in ["x", "x:1", "x:80", "x:65535", "[::1]", "[::1]:443", "192.0.2.1:8080"] {
            let url = format!("http://{host}");
            assert_eq!(origin(&url), Some(url.as_str()));
        }
        for port in
            ["", "0", "00", "65536", "70000", "4294967376", "+80", "-1", "0x50", "80 ", "８０"]
        {
            for host in ["x", "[::1]"] {
                let url = format!("http://{host}:{port}");
                assert_eq!(origin(&url), None, "{url}");
                let error = artifact_url(&url, &format!("{url}/x"), std::slice::from_ref(&url))
                    .unwrap_err();
                assert!(matches!(error, UrlError::Malformed(_)), "{error}");
            }
        }
    }

    #[test]
    fn no_more_of_a_refused_url_is_shown_than_scheme_and_host() {
        let at = "https://cdn.example/etchaos_deb_amd64.jwt";
        for (url, shown) in [
            ("https://user:SECRET@host.example/x", "\"https://host.example\""),
            ("https://user:SECRET/word@host.example/x", "the scheme \"https\""),
            ("https://us/er:SECRET@host.example/x", "https://us;"),
            ("https://other.example/x?token=SECRET", "https://other.example;"),
            ("https://other.example/SECRET#SECRET", "https://other.example;"),
            ("ftp://SECRET@host.example", "\"ftp://host.example\""),
            ("SECRET:SECRET@host://x", "a scheme that is none"),
            ("x?token=SECRET", "a relative one"),
            ("SECRET:SECRET@host.example/x", "a relative one"),
        ] {
            let error = artifact_url(at, url, &[]).unwrap_err();
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("SECRET"), "{text}");
            }
            assert!(error.to_string().contains(shown), "{error}");
        }
    }
}
