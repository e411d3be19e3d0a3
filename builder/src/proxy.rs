//! The proxies of the build host, from the usual environment variables.
//!
//! Programs differ in what they read: apt reads only the lower-case `http_proxy`, `https_proxy` and
//! `no_proxy`, curl ignores `HTTP_PROXY`, and ureq uses one proxy for both schemes. The builder reads
//! all variables once, and gives every program both spellings of the result.

use std::fmt;

use anyhow::{Context, Result, anyhow, ensure};
use protocol::proxy::ProxyUrl;
use ureq::ProxyProtocol;

/// The schemes of proxies that apt supports.
const SCHEMES: [&str; 3] = ["http", "https", "socks5h"];

/// Replaces a secret in logs and errors.
const HIDDEN: &str = "***";

/// The length from which a password or token is hidden wherever it occurs. A shorter one is hidden only in
/// front of the proxy's host, since hiding it everywhere would make logs unreadable.
const SECRET_LENGTH: usize = 4;

/// The proxies for each scheme, and the hosts that are reached without one.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    http: Option<ProxyUrl>,
    https: Option<ProxyUrl>,
    except: Option<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A `ProxyUrl` shows no credentials.
        f.debug_struct("Proxies")
            .field("http", &self.http)
            .field("https", &self.https)
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
        let proxy = |name: &str| -> Result<Option<ProxyUrl>> {
            let (name, value) = match value(name) {
                Some(value) => (name, value),
                None => ("all_proxy", value("all_proxy").unwrap_or_default()),
            };
            if value.is_empty() { Ok(None) } else { parsed(name, &value).map(Some) }
        };
        Ok(Self {
            http: proxy("http_proxy")?,
            https: proxy("https_proxy")?,
            except: value("no_proxy").filter(|hosts| !hosts.is_empty()),
        })
    }

    /// Checks the variables for libraries of this process that read them by themselves.
    ///
    /// # Errors
    /// Fails as [`Proxies::from_environment`] does, or if the two spellings of a variable differ: libraries
    /// disagree about which of them applies.
    pub(crate) fn check_for_libraries() -> Result<()> {
        Self::check_variables(|name| std::env::var(name).ok())
    }

    fn check_variables(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            let upper = name.to_uppercase();
            let (one, other) = (variable(name), variable(&upper));
            ensure!(
                one.is_none() || other.is_none() || one == other,
                "the environment variables {name} and {upper} differ; set them to the same value, or unset \
                 one of them"
            );
        }
        Self::from_variables(variable).map(drop)
    }

    /// Returns the environment variables for programs, in both spellings.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let url = |proxy: &Option<ProxyUrl>| proxy.as_ref().map(ProxyUrl::reveal);
        let all = [
            (["http_proxy", "HTTP_PROXY"], url(&self.http)),
            (["https_proxy", "HTTPS_PROXY"], url(&self.https)),
            (["no_proxy", "NO_PROXY"], self.except.clone()),
        ];
        all.into_iter()
            .filter_map(|(names, value)| Some((names, value?)))
            .flat_map(|(names, value)| names.map(|name| (name, value.clone())))
            .collect()
    }

    /// Returns the proxy for a URL in the form that ureq needs.
    pub(crate) fn for_url(&self, url: &str) -> Result<Option<ureq::Proxy>> {
        let proxy = if url.starts_with("https:") { &self.https } else { &self.http };
        let Some(proxy) = proxy else { return Ok(None) };
        let invalid = || "the proxy in the environment is not supported for downloads";
        // ureq must not parse the text, since it ends the host at a `#`, `/` or `?` in the password.
        let protocol = ProxyProtocol::try_from(proxy.scheme()).ok().with_context(invalid)?;
        let mut builder = ureq::Proxy::builder(protocol).host(&proxy.host());
        if let Some(port) = proxy.port() {
            builder = builder.port(port);
        }
        if let Some(user) = proxy.user() {
            builder = builder.username(user);
        }
        if let Some(password) = proxy.password() {
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
        for proxy in [&self.http, &self.https].into_iter().flatten() {
            let Some(user_info) = proxy.user_info() else { continue };
            // As programs get it, and as they may show it.
            let (user, password) = (proxy.user().unwrap_or_default(), proxy.password());
            let decoded = password.map_or(user.to_owned(), |password| format!("{user}:{password}"));
            secrets.extend([format!("{user_info}@"), format!("{decoded}@")]);
            // Without a password, the user is a token.
            let secret = password.filter(|password| !password.is_empty()).unwrap_or(user);
            let encoded = user_info.trim_end_matches(':').rsplit(':').next().unwrap_or_default();
            if secret.len() >= SECRET_LENGTH {
                secrets.extend([secret.to_owned(), encoded.to_owned()]);
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

/// Parses the value of an environment variable.
///
/// Special characters in credentials must be encoded, because some programs, and libraries of this one, read
/// the variable by themselves, and would take a part of the credentials for the host.
fn parsed(name: &str, value: &str) -> Result<ProxyUrl> {
    let proxy = ProxyUrl::parse(value).ok().filter(ProxyUrl::is_portable).ok_or_else(|| {
        anyhow!(
            "the proxy in the environment variable {name} is not a URL such as \
             http://proxy.example:3128; write special characters of a password as %XX"
        )
    })?;
    ensure!(
        SCHEMES.contains(&proxy.scheme()),
        "the scheme of the proxy in the environment variable {name} is not supported; expected {}, such \
         as http://proxy.example:3128",
        SCHEMES.join(", ")
    );
    Ok(proxy)
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
    fn libraries_need_the_same_value_in_both_spellings() {
        let check = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
            Proxies::check_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
        };
        check(&[("HTTPS_PROXY", "http://a:1"), ("no_proxy", "b")]).unwrap();
        check(&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://a:1")]).unwrap();
        let secret = "http://user:1#s3cret@host:1";
        for variables in [
            [("https_proxy", "http://a:1"), ("HTTPS_PROXY", secret)],
            [("https_proxy", ""), ("HTTPS_PROXY", "http://a:1")],
            [("https_proxy", secret), ("HTTPS_PROXY", secret)],
        ] {
            let error = format!("{:#}", check(&variables).unwrap_err());
            assert!(error.contains("https_proxy") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn rejects_invalid_proxies_and_hides_them() {
        for value in [
            "ftp://u:secret@host",
            "http://u:secret word@host",
            "http://u:secret@",
            "/x",
            "http://user:1234#secret@127.0.0.1:3128",
            "http://user:1234/secret@127.0.0.1:3128",
            "http://user:1234?secret@127.0.0.1:3128",
            "http://user:1234@secret@127.0.0.1:3128",
            "http://user:1234#secret",
            "http://u:secret@host/path",
            "http://u:secret@host:0",
        ] {
            let error = format!("{:#}", proxies(&[("https_proxy", value)]).unwrap_err());
            assert!(error.contains("https_proxy") && !error.contains("secret"), "{error}");
            assert!(!error.contains("user") && !error.contains("1234"), "{error}");
        }
    }

    #[test]
    fn hides_credentials_everywhere() {
        let proxies = proxies(&[("http_proxy", "http://user:pa%40ss@host:1")]).unwrap();
        let text = "to http://user:pa%40ss@host:1 with pa@ss and pa%40ss";
        assert_eq!(proxies.redact(text), "to http://***host:1 with *** and ***");
        assert!(!format!("{proxies:?}").contains("ss"), "{proxies:?}");
        let proxies = self::proxies(&[("http_proxy", "http://us%2Fer:12%2334@host:1")]).unwrap();
        let text = "us%2Fer:12%2334@host us/er:12#34@host 12#34 12%2334";
        assert_eq!(proxies.redact(text), "***host ***host *** ***");
        let token = self::proxies(&[("http_proxy", "http://t0ken@host:1")]).unwrap();
        assert_eq!(token.redact("t0ken@host t0ken"), "***host ***");
        let token = self::proxies(&[("http_proxy", "http://t0ken:@host:1")]).unwrap();
        assert_eq!(token.redact("t0ken:@host t0ken"), "***host ***");
    }

    #[test]
    fn downloads_use_the_proxy_of_their_scheme() {
        let proxies = proxies(&[
            ("http_proxy", "http://u:p%23%2f@one:1"),
            ("https_proxy", "http://two:2"),
            ("no_proxy", "direct.example, .internal"),
        ])
        .unwrap();
        let of = |url: &str| proxies.for_url(url).unwrap().unwrap();
        assert_eq!((of("http://x/").host(), of("http://x/").username()), ("one", Some("u")));
        assert_eq!((of("http://x/").password(), of("http://x/").port()), (Some("p#/"), 1));
        assert_eq!(of("https://x/").host(), "two");
        let direct = "https://direct.example/".parse().unwrap();
        assert!(of("https://x/").is_no_proxy(&direct));
    }
}
