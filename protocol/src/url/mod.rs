//! The URLs in manifests: decides which of them a host may fetch, and redacts the others in errors.
//!
//! The `url` crate is not used: it accepts and rewrites empty ports, tabs, backslashes, dot segments and
//! unusual IPv4 addresses, so every check here would still be needed in front of it.

mod origin;
mod path;

pub use self::origin::Origin;
pub(crate) use self::origin::{bracketed, host_and_port};
pub use self::path::is_plain_path;
pub(crate) use self::path::percent_decoded;
use crate::excerpt::excerpt;
use crate::release::is_file_name;

/// The maximum length of a host that errors show: 253 characters of a DNS name, with scheme and port.
pub const HOST_MAX: usize = 270;

/// Returns the absolute URL of an artifact whose URL is `url` in the manifest at `manifest_url`.
///
/// A relative `url` is a path of plain file names below the directory of the manifest. An absolute
/// `url` must have the origin of the manifest or one of the `allowed` origins, each of which is
/// written as `https://host[:port]`, and a [plain path](is_plain_path). The result has the origin in its
/// shortest form.
///
/// # Errors
/// Fails if the URL is malformed or has another origin.
pub fn artifact_url(manifest_url: &str, url: &str, allowed: &[String]) -> Result<String, UrlError> {
    if url.contains("://") {
        let malformed = || UrlError::Malformed(redacted(url));
        let (origin, rest) = Origin::split(url).ok_or_else(malformed)?;
        let is_same = |other: &str| Origin::of(other).as_ref() == Some(&origin);
        if !is_same(manifest_url) && !allowed.iter().any(|other| is_same(other)) {
            let origin = origin.to_string().chars().take(HOST_MAX).collect();
            return Err(UrlError::ForeignOrigin { origin });
        }
        return match is_plain_path(rest) {
            true => Ok(format!("{origin}{rest}")),
            false => Err(malformed()),
        };
    }
    if !url.split('/').all(is_file_name) {
        return Err(UrlError::Malformed(redacted(url)));
    }
    let directory = manifest_url.rfind('/').map_or("", |end| &manifest_url[..=end]);
    Ok(format!("{directory}{url}"))
}

/// Returns the origin (scheme, host and port) of a URL, as it is written there, for programs that need
/// the scheme in lower case. Returns `None` if it is not, and under the conditions of [`Origin::split`].
pub fn origin(url: &str) -> Option<&str> {
    let (_, rest) = Origin::split(url)?;
    let is_lower = url.starts_with("https://") || url.starts_with("http://");
    is_lower.then(|| &url[..url.len() - rest.len()])
}

/// Returns the part of a malformed URL that an error may show: scheme and host. Credentials and query
/// may be secrets, and the path of a malformed URL may contain either.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "a relative one".to_owned() };
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if scheme.is_empty() || !scheme.bytes().all(is_allowed) {
        return "with an invalid scheme".to_owned();
    }
    let scheme = excerpt(scheme);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let after = &rest[authority.len()..];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // If an `@` follows, the apparent host may be the beginning of a password.
    if host.is_empty() || after.contains('@') || host_and_port(host).is_none() {
        return format!("with the scheme {scheme:?}");
    }
    let host: String = host.chars().take(HOST_MAX).collect();
    format!("{:?}", format!("{scheme}://{host}"))
}

/// Why a host must not fetch a URL of a manifest. Errors show at most the scheme and host of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The URL is neither a plain relative path nor an http(s) URL without credentials and dot segments.
    #[error(
        "the artifact's URL ({0}) is neither a path of plain file names nor an http(s) URL without credentials and dot segments"
    )]
    Malformed(String),
    /// The URL has another origin than the manifest.
    #[error(
        "the artifact's URL points to another origin, {origin}; to allow it, add it to \"allowedOrigins\""
    )]
    ForeignOrigin {
        /// The origin of the URL.
        origin: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::url::Url;
    use proptest::prelude::*;

    #[test]
    fn accepts_only_urls_of_the_cdn_and_allowed_origins() {
        let manifest = "https://cdn.example/os/etchaos_deb_amd64.jwt";
        let join = |url: &str| artifact_url(manifest, url, &["https://mirror.example:8443".into()]);
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
    fn accepts_only_valid_ports() {
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
    fn shows_at_most_scheme_and_host_of_a_rejected_url() {
        let manifest = "https://cdn.example/etchaos_deb_amd64.jwt";
        for (url, shown) in [
            ("https://user:SECRET@host.example/x", "\"https://host.example\""),
            ("https://user:SECRET/word@host.example/x", "the scheme \"https\""),
            ("https://us/er:SECRET@host.example/x", "https://us;"),
            ("https://other.example/x?token=SECRET", "https://other.example;"),
            ("https://other.example/SECRET#SECRET", "https://other.example;"),
            ("ftp://SECRET@host.example", "\"ftp://host.example\""),
            ("SECRET:SECRET@host://x", "an invalid scheme"),
            ("x?token=SECRET", "a relative one"),
            ("SECRET:SECRET@host.example/x", "a relative one"),
        ] {
            let error = artifact_url(manifest, url, &[]).unwrap_err();
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("SECRET"), "{text}");
            }
            assert!(error.to_string().contains(shown), "{error}");
        }
    }

    #[test]
    fn compares_origins_as_rfc_6454_does() {
        let allowed = ["https://mirror.example".to_owned()];
        for (manifest, url, expected) in [
            ("http://cdn.example:80/x.jwt", "http://cdn.example/y", "http://cdn.example/y"),
            ("http://cdn.example/x.jwt", "http://CDN.example:80/y", "http://cdn.example/y"),
            ("https://cdn.example:443/x.jwt", "HTTPS://cdn.example/y", "https://cdn.example/y"),
            (
                "https://CDN.example/x.jwt",
                "https://cdn.example/a%2Fb?c",
                "https://cdn.example/a%2Fb?c",
            ),
            ("/mnt/x.jwt", "https://Mirror.example:443/y", "https://mirror.example/y"),
        ] {
            assert_eq!(artifact_url(manifest, url, &allowed).unwrap(), expected, "{url}");
        }
        for url in ["https://cdn.example/a/../y", "https://cdn.example/a%2F..%2Fy"] {
            let error = artifact_url("https://cdn.example/x.jwt", url, &allowed).unwrap_err();
            assert!(matches!(error, UrlError::Malformed(_)), "{error}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_url_crate_about_origins(
            url in "https?://[a-zA-Z0-9.:@/?#%\\[\\]\\\\_~+\t \u{e9}-]{0,20}",
        ) {
            if let (Some(origin), Ok(parsed)) = (origin(&url), Url::parse(&url)) {
                prop_assert_eq!(parsed.origin(), Url::parse(origin).unwrap().origin());
                prop_assert!(parsed.username().is_empty() && parsed.password().is_none());
            }
        }

        /// An accepted URL leads to an allowed server and to the path that was signed.
        #[test]
        fn accepted_urls_keep_their_path(
            url in "[hH]TTPS://(CDN|cdn|other)\\.example(:443|:80)?/[a.%/2eEfF5cC;?#]{0,12}",
        ) {
            if let Ok(accepted) = artifact_url("https://cdn.example/x.jwt", &url, &[]) {
                let rest = accepted.strip_prefix("https://cdn.example/").unwrap();
                prop_assert!(url.ends_with(rest));
                // A program that normalizes dot segments finds the same path.
                let path = rest.split(['?', '#']).next().unwrap();
                let parsed = Url::parse(&accepted).unwrap();
                prop_assert_eq!(&parsed.path()[1..], path);
            }
        }
    }
}
