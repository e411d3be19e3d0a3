//! The operator's mirror of the distribution.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, ensure};
use protocol::url::origin;

/// The URL of a mirror, without a slash at its end.
///
/// Scripts append paths to it. A mirror of the security archive, for example, has the same URL with a
/// suffix, so that a slash too many would name another archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror(String);

impl Mirror {
    /// Returns the URL.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Mirror {
    type Err = Error;

    /// Validates and normalizes the URL.
    ///
    /// The errors do not contain the URL, which may have a password.
    fn from_str(url: &str) -> Result<Self> {
        let expected = "expected a URL such as https://mirror.example/debian";
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let scheme = scheme.to_ascii_lowercase();
        ensure!(
            scheme == "http" || scheme == "https",
            "the mirror has no scheme \"http\" or \"https\", {expected}"
        );
        ensure!(
            !rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@'),
            "the mirror contains credentials, which would reach logs; name a mirror that needs none, or \
             a proxy in the environment variable {scheme}_proxy that adds them"
        );
        ensure!(
            rest.bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"?#\\\"'`$&;(){}<>|^*".contains(&byte)),
            "the mirror contains a space or another character that a mirror's URL cannot have, {expected}"
        );
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        ensure!(
            !path.iter().any(|name| [".", ".."].contains(name)),
            "the path of the mirror contains \".\" or \"..\", {expected}"
        );
        let host = host.to_ascii_lowercase();
        let url = [&[host.as_str()], &path[..]].concat().join("/");
        let url = format!("{scheme}://{url}");
        ensure!(
            origin(&url).is_some(),
            "the host or the port of the mirror is not valid, {expected}"
        );
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mirror_has_one_spelling() {
        for url in [
            "http://mirror.example/debian",
            "http://mirror.example/debian/",
            "http://mirror.example//debian//",
            "HTTP://Mirror.example/debian/",
        ] {
            assert_eq!(url.parse::<Mirror>().unwrap().as_str(), "http://mirror.example/debian");
        }
        for url in ["https://[::1]:8080/a/b", "http://127.0.0.1:3142"] {
            assert_eq!(url.parse::<Mirror>().unwrap().as_str(), url);
        }
    }

    #[test]
    fn rejects_what_is_not_a_mirror() {
        for url in [
            "",
            "debian",
            "mirror.example/debian",
            "ftp://mirror.example/debian",
            "file:///srv/debian",
            "http://",
            "http:///debian",
            "http://mirror.example/de bian",
            " http://mirror.example/debian",
            "http://mirror.example/debian ",
            "http://mirror.example/debian\n",
            "http://mirror.example/$(id)",
            "http://mirror.example/'",
            "http://mirror.example/a/../debian",
            "http://mirror.example/debian?x",
            "http://mirror.example:port/debian",
            "http://mirror.example:0/debian",
        ] {
            assert!(url.parse::<Mirror>().is_err(), "{url}");
        }
    }

    #[test]
    fn rejects_credentials_without_repeating_them() {
        for url in ["http://me:secret@mirror.example/debian", "http://me:se/cret@mirror.example/"] {
            let error = format!("{:#}", url.parse::<Mirror>().unwrap_err());
            assert!(!error.contains("cret") && !error.contains("me:"), "{error}");
        }
    }
}
