//! The URLs of proxies, which may contain a password. Every source of such a URL is parsed here, so that
//! one rule decides which part of it is secret.

use std::fmt;

use crate::url::{bracketed, host_and_port, percent_decoded};

/// The schemes of proxies that programs know.
const SCHEMES: [&str; 6] = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];

/// The URL of a proxy, `[scheme://][user[:password]@]host[:port]`.
///
/// The credentials end at the last `@`, whatever they contain: a `#`, `/`, `?` or `@` in a password that
/// was not percent-encoded is part of the password. A parser of general URLs would end the host at such a
/// character, and take the user for the host and the password for the port.
///
/// [`Display`](fmt::Display) and [`Debug`] omit the credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    scheme: String,
    credentials: Option<Credentials>,
    host: String,
    port: Option<u16>,
    is_portable: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: Option<String>,
}

/// A text that is not the URL of a proxy. It is not shown, because it may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected [http://][user:password@]host[:port]")]
pub struct ProxyUrlError;

impl ProxyUrl {
    /// Parses the URL of a proxy. A missing scheme is `http`. Slashes at the end are ignored.
    ///
    /// # Errors
    /// Fails if the scheme is not one of proxies, if the host or the port is invalid, if more follows them, if
    /// there are spaces or control characters, or if the credentials are not UTF-8 after decoding.
    pub fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let text = text.trim();
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ProxyUrlError);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => ("http", text),
        };
        let (user_info, after) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (host, port) = host_and_port(after.trim_end_matches('/')).ok_or(ProxyUrlError)?;
        let credentials = (!user_info.is_empty()).then(|| Credentials::parse(user_info));
        let credentials = credentials.transpose()?;
        let (scheme, is_portable) = (scheme.to_ascii_lowercase(), is_portable(user_info));
        // Any other "scheme" may be a user whose password begins with "//".
        if !SCHEMES.contains(&scheme.as_str()) {
            return Err(ProxyUrlError);
        }
        Ok(Self { scheme, credentials, host, port, is_portable })
    }

    /// Returns the scheme in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the host in lower case, an IPv6 address in brackets.
    pub fn host(&self) -> String {
        bracketed(&self.host)
    }

    /// Returns the port.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the decoded user. Secret: some proxies take a token here, without a password.
    pub fn user(&self) -> Option<&str> {
        self.credentials.as_ref().map(|credentials| credentials.user.as_str())
    }

    /// Returns the decoded password. Secret.
    pub fn password(&self) -> Option<&str> {
        self.credentials.as_ref()?.password.as_deref()
    }

    /// Returns whether every program reads the URL as this one does, since special characters in the
    /// credentials are percent-encoded.
    pub fn is_portable(&self) -> bool {
        self.is_portable
    }

    /// Returns the credentials as URLs write them, with every special character encoded. Secret.
    pub fn user_info(&self) -> Option<String> {
        let Credentials { user, password } = self.credentials.as_ref()?;
        let password = password.as_ref().map(|password| format!(":{}", encoded(password)));
        Some(format!("{}{}", encoded(user), password.unwrap_or_default()))
    }

    /// Returns the URL with its credentials, which every program reads as this one does. Secret.
    pub fn reveal(&self) -> String {
        let user_info = self.user_info().map_or(String::new(), |user_info| user_info + "@");
        format!("{}://{user_info}{}", self.scheme, self.address())
    }

    fn address(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}{port}", self.host())
    }
}

impl Credentials {
    fn parse(user_info: &str) -> Result<Self, ProxyUrlError> {
        let decoded = |text: &str| {
            String::from_utf8(percent_decoded(text.as_bytes())).map_err(|_| ProxyUrlError)
        };
        Ok(match user_info.split_once(':') {
            Some((user, password)) => {
                Self { user: decoded(user)?, password: Some(decoded(password)?) }
            }
            None => Self { user: decoded(user_info)?, password: None },
        })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// Returns whether the credentials have only characters that RFC 3986 allows there, and one colon.
fn is_portable(user_info: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%".contains(&b);
    user_info.bytes().all(is_plain) && user_info.matches(':').count() <= 1
}

/// Percent-encodes all characters but the unreserved ones (RFC 3986 section 2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_end_at_the_last_at_sign() {
        for (text, shown, user, password) in [
            (
                "http://user:1234#s3cret@127.0.0.1:3128",
                "http://127.0.0.1:3128",
                "user",
                "1234#s3cret",
            ),
            ("http://user:12/s3@127.0.0.1:3128/", "http://127.0.0.1:3128", "user", "12/s3"),
            ("http://user:12?s3@[::1]:3128", "http://[::1]:3128", "user", "12?s3"),
            ("user:1@2@host", "http://host", "user", "1@2"),
            ("us/er:a:b@host:1", "http://host:1", "us/er", "a:b"),
            ("HTTP://user:p://q@Host", "http://host", "user", "p://q"),
            ("user:p://q@host", "http://host", "user", "p://q"),
            ("http://%75ser:%40%2F@host", "http://host", "user", "@/"),
            ("http://user:100%@host", "http://host", "user", "100%"),
        ] {
            let proxy = ProxyUrl::parse(text).unwrap();
            assert_eq!(proxy.to_string(), shown, "{text}");
            assert_eq!((proxy.user(), proxy.password()), (Some(user), Some(password)), "{text}");
            assert_eq!(format!("{proxy:?}"), shown);
        }
        let proxy = ProxyUrl::parse("socks5h://proxy.example:1080/").unwrap();
        assert_eq!((proxy.scheme(), proxy.port(), proxy.user()), ("socks5h", Some(1080), None));
        assert_eq!(ProxyUrl::parse("http://token@x").unwrap().password(), None);
        assert_eq!(ProxyUrl::parse("http://@x").unwrap().user(), None);
    }

    #[test]
    fn errors_do_not_repeat_the_text() {
        for text in [
            "",
            "s3cret://x@host",
            "http://",
            "user:s3cret",
            "http://user:s3cret",
            "http://user:1234/s3cret",
            "http://user:1234#s3cret",
            "http://user:1234?s3cret",
            "http://user:s3cret@",
            "http://user:s3cret@host:0",
            "http://user:s3cret@host:70000",
            "http://user:s3cret@host:",
            "http://user:s3cret@host/path",
            "http://user:s3 cret@host",
            "http://user:s3\ncret@host",
            "http://user:%ff@host",
        ] {
            let error = ProxyUrl::parse(text).unwrap_err();
            assert!(!format!("{error}{error:?}").contains("s3"), "{text}");
        }
    }

    #[test]
    fn tells_which_urls_every_program_reads_alike() {
        for (text, expected) in [
            ("http://user:pass@x", true),
            ("http://user:%23@x", true),
            ("http://x", true),
            ("http://user:#@x", false),
            ("http://user:/@x", false),
            ("http://user:a:b@x", false),
            ("http://user:@@x", false),
            ("http://user:\u{e9}@x", false),
        ] {
            assert_eq!(ProxyUrl::parse(text).unwrap().is_portable(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_of_the_credentials_is_shown(
            user in "[S-Z!-/:-?\\[-`{-~]{1,8}",
            password in "[S-Z!-/:-@\\[-`{-~]{0,12}",
            scheme in "(http://)?",
        ) {
            // The host has none of the characters of the credentials.
            let text = format!("{scheme}{user}:{password}@abc");
            if let Ok(proxy) = ProxyUrl::parse(&text) {
                prop_assert_eq!(proxy.to_string(), "http://abc");
            }
        }

        #[test]
        fn revealed_urls_mean_the_same(text in "(http://)?[a-c:@/?#%\u{e9}]{0,12}@[a-c]{1,4}(:80)?") {
            if let Ok(proxy) = ProxyUrl::parse(&text) {
                let again = ProxyUrl::parse(&proxy.reveal()).unwrap();
                prop_assert_eq!(again.user(), proxy.user());
                prop_assert_eq!(again.password(), proxy.password());
                prop_assert_eq!(again.to_string(), proxy.to_string());
                prop_assert!(again.is_portable());
                // General parsers find the same host.
                let url = ::url::Url::parse(&proxy.reveal()).unwrap();
                prop_assert_eq!(url.host_str(), Some(proxy.host.as_str()));
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            let _ = ProxyUrl::parse(&text);
        }
    }
}
