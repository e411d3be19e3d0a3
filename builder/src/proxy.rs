//! The proxies of the build host, from the usual environment variables.
//!
//! Programs differ in what they read: apt reads only the lower-case `http_proxy`, `https_proxy` and
//! `no_proxy`, curl ignores `HTTP_PROXY`, and ureq uses one proxy for both schemes. The builder reads
//! all variables once, and gives every program both spellings of the result.

use std::fmt;

use anyhow::{Context, Result, ensure};

/// The schemes of proxies that apt supports.
const SCHEMES: [&str; 3] = ["http", "https", "socks5h"];

/// Replaces a secret in logs and errors.
const HIDDEN: &str = "***";

/// The length from which a password is hidden wherever it occurs. A shorter one is hidden only in front
/// of the proxy's host, since hiding it everywhere would make logs unreadable.
const PASSWORD_LENGTH: usize = 4;

/// The proxies for each scheme, and the hosts that are reached without one.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<String>| proxy.as_deref().map(|proxy| self.redact(proxy));
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("except", &self.except)
            .finish()
    }
}

impl Proxies {
    /// Reads the proxies from the environment.
    ///
    /// # Errors
    /// Fails if a proxy is not a URL that all programs understand. The error does not contain the URL,
    /// which may have a password.
    pub(crate) fn from_environment() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        // An empty lower-case variable means "no proxy", also if the upper-case one has a value.
        let value = |name: &str| variable(name).or_else(|| variable(&name.to_uppercase()));
        let proxy = |name: &str| -> Result<Option<String>> {
            let (name, value) = match value(name) {
                Some(value) => (name, value),
                None => ("all_proxy", value("all_proxy").unwrap_or_default()),
            };
            if value.is_empty() { Ok(None) } else { normalized(name, &value).map(Some) }
        };
        Ok(Self {
            http: proxy("http_proxy")?,
            https: proxy("https_proxy")?,
            except: value("no_proxy").filter(|hosts| !hosts.is_empty()),
        })
    }

    /// Returns the environment variables for programs, in both spellings.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let all = [
            (["http_proxy", "HTTP_PROXY"], &self.http),
            (["https_proxy", "HTTPS_PROXY"], &self.https),
            (["no_proxy", "NO_PROXY"], &self.except),
        ];
        all.into_iter()
            .filter_map(|(names, value)| Some((names, value.clone()?)))
            .flat_map(|(names, value)| names.map(|name| (name, value.clone())))
            .collect()
    }

    /// Returns the proxy for a URL in the form that ureq needs.
    pub(crate) fn for_url(&self, url: &str) -> Result<Option<ureq::Proxy>> {
        let proxy = if url.starts_with("https:") { &self.https } else { &self.http };
        let Some(text) = proxy else { return Ok(None) };
        let invalid = || "the proxy in the environment is not supported for downloads";
        let parsed = ureq::Proxy::new(text).ok().with_context(invalid)?;
        let mut builder =
            ureq::Proxy::builder(parsed.protocol()).host(parsed.host()).port(parsed.port());
        if let Some(user) = parsed.username() {
            builder = builder.username(user);
        }
        if let Some(password) = parsed.password() {
            builder = builder.password(password);
        }
        for host in self.except.iter().flat_map(|hosts| hosts.split(',')) {
            builder = builder.no_proxy(host.trim());
        }
        builder.build().ok().with_context(invalid).map(Some)
    }

    /// Returns the texts that must not reach a log, the longest first.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = Vec::new();
        for user_info in
            [&self.http, &self.https].into_iter().flatten().filter_map(|p| user_info(p))
        {
            secrets.push(format!("{user_info}@"));
            if let Some((_, password)) = user_info.split_once(':')
                && password.len() >= PASSWORD_LENGTH
            {
                secrets.extend([percent_decoded(password), password.to_owned()]);
            }
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        secrets
    }

    /// Returns the text without the secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        redact(&self.secrets(), text)
    }
}

/// Returns the text with each of the secrets replaced.
pub(crate) fn redact(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), HIDDEN))
}

/// Returns the proxy's URL with a scheme and without a slash at its end.
fn normalized(name: &str, value: &str) -> Result<String> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
    let rest = rest.trim_end_matches('/');
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    ensure!(
        SCHEMES.contains(&scheme),
        "the scheme of the proxy in the environment variable {name} is not supported; expected {}, such \
         as http://proxy.example:3128",
        SCHEMES.join(", ")
    );
    ensure!(
        !host.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'\\`<>".contains(&byte))
            && !host.contains(['/', '?', '#']),
        "the proxy in the environment variable {name} is not a URL such as http://proxy.example:3128; \
         write special characters of a password as %XX"
    );
    Ok(format!("{scheme}://{rest}"))
}

/// Returns the part of a URL in front of `@`: the user and the password.
fn user_info(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.rsplit_once('@').map(|(user_info, _)| user_info)
}

fn percent_decoded(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
        Proxies::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn gives_programs_both_spellings_for_each_scheme() {
        let found = proxies(&[
            ("HTTP_PROXY", "proxy.example:3128"),
            ("all_proxy", "socks5h://[::1]:1080/"),
            ("NO_PROXY", "localhost,.example"),
        ]);
        let variables = found.unwrap().variables();
        let get = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
        };
        for name in ["http_proxy", "HTTP_PROXY"] {
            assert_eq!(get(name), Some("http://proxy.example:3128"), "{name}");
        }
        assert_eq!(get("https_proxy"), Some("socks5h://[::1]:1080"));
        assert_eq!(get("no_proxy"), Some("localhost,.example"));
    }

    #[test]
    fn empty_variable_disables_proxy() {
        let found = proxies(&[("http_proxy", ""), ("HTTP_PROXY", "http://x"), ("ALL_PROXY", "y")]);
        let variables = found.unwrap().variables();
        assert!(!variables.iter().any(|(name, _)| *name == "http_proxy"), "{variables:?}");
        assert!(variables.contains(&("https_proxy", "http://y".to_owned())), "{variables:?}");
    }

    #[test]
    fn rejects_invalid_proxies_and_hides_them() {
        for value in ["ftp://u:secret@host", "http://u:secret word@host", "http://u:secret@", "/x"]
        {
            let error = format!("{:#}", proxies(&[("https_proxy", value)]).unwrap_err());
            assert!(error.contains("https_proxy") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn hides_credentials_everywhere() {
        let proxies = proxies(&[("http_proxy", "http://user:pa%40ss@host:1")]).unwrap();
        let text = "to http://user:pa%40ss@host:1 with pa@ss and pa%40ss";
        assert_eq!(proxies.redact(text), "to http://***host:1 with *** and ***");
        assert!(!format!("{proxies:?}").contains("ss"), "{proxies:?}");
    }

    #[test]
    fn downloads_use_the_proxy_of_their_scheme() {
        let proxies = proxies(&[
            ("http_proxy", "http://u:p@one:1"),
            ("https_proxy", "http://two:2"),
            ("no_proxy", "direct.example, .internal"),
        ])
        .unwrap();
        let of = |url: &str| proxies.for_url(url).unwrap().unwrap();
        assert_eq!((of("http://x/").host(), of("http://x/").username()), ("one", Some("u")));
        assert_eq!(of("https://x/").host(), "two");
        let direct = "https://direct.example/".parse().unwrap();
        assert!(of("https://x/").is_no_proxy(&direct));
    }
}
