//! Requests to the HTTP API of a registry.
//!
//! Everything that the registry sends is bounded in size and time. The password is sent to the registry, and to the
//! server that the registry names for tokens; both use TLS unless they are on this machine. Neither passwords nor
//! tokens follow a redirect, and errors contain neither.

use std::cell::RefCell;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use http_auth::ChallengeRef;
use serde::Deserialize;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use super::login::{Login, Logins};
use super::reference::{Reference, is_loopback};
use super::text::{excerpt, printable};
use crate::proxy::{Proxies, redact};

/// The maximum size of an index, a manifest or a configuration, in bytes. Registries accept manifests of 4 MiB.
pub(super) const DOCUMENT_MAX: u64 = 4 << 20;
/// The maximum size of the answer of a token server, in bytes.
const TOKEN_MAX: u64 = 256 << 10;
/// The maximum size of an error that is shown, in bytes.
const ERROR_MAX: u64 = 16 << 10;
/// The maximum number of redirects. Registries redirect to the store of their files.
const REDIRECTS_MAX: u32 = 5;
/// The timeout for a whole request, for anything but layers.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// The timeout for a whole request for a layer.
const LAYER_TIMEOUT: Duration = Duration::from_secs(3600);

/// A client for one image.
pub(super) struct Client<'a> {
    image: &'a Reference,
    /// The login for the registry.
    login: Option<&'a Login>,
    logins: &'a Logins,
    proxies: &'a Proxies,
    agent: Agent,
    /// The value of the header `Authorization`, after the registry asked for it.
    authorization: RefCell<Option<String>>,
    /// The texts that no error contains.
    secrets: RefCell<Vec<String>>,
}

/// A request below `/v2/NAME/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) path: &'a str,
    pub(super) accept: &'a str,
    /// The first byte to send; 0 for the whole file.
    pub(super) from: u64,
    pub(super) timeout: Duration,
}

impl<'a> Request<'a> {
    /// Returns a request for a document.
    pub(super) fn document(path: &'a str, accept: &'a str) -> Self {
        Self { path, accept, from: 0, timeout: DOCUMENT_TIMEOUT }
    }

    /// Returns a request for a layer from a byte on.
    pub(super) fn layer(path: &'a str, from: u64) -> Self {
        Self { path, accept: "*/*", from, timeout: LAYER_TIMEOUT }
    }
}

/// What a registry's answer means for a later request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// The same request can succeed, for example after an interrupted connection.
    Useful,
    Useless,
}

impl<'a> Client<'a> {
    /// Creates a client, which gives up if the registry sends nothing for the time `stall`.
    pub(super) fn new(
        image: &'a Reference,
        logins: &'a Logins,
        proxies: &'a Proxies,
        stall: Duration,
    ) -> Result<Self> {
        let login = logins.find(image);
        let mut secrets = proxies.secrets();
        secrets.extend(login.iter().flat_map(|login| [login.basic(), login.password.clone()]));
        let mut client = Self {
            image,
            login,
            logins,
            proxies,
            agent: Agent::new_with_defaults(),
            authorization: RefCell::new(None),
            secrets: RefCell::new(secrets),
        };
        client.agent = client.agent(&client.base(), stall)?;
        Ok(client)
    }

    /// Returns the URL of the registry's API.
    pub(super) fn base(&self) -> String {
        let scheme = if self.image.is_loopback() { "http" } else { "https" };
        format!("{scheme}://{}", self.image.api_host())
    }

    fn agent(&self, url: &str, stall: Duration) -> Result<Agent> {
        // A proxy cannot reach this machine's loopback address.
        let proxy = if self.image.is_loopback() { None } else { self.proxies.for_url(url)? };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(
                rustls::crypto::aws_lc_rs::default_provider().into(),
            )
            // Registries of an organization often have a certificate of its own authority.
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        Ok(Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .https_only(!self.image.is_loopback())
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .timeout_connect(Some(stall))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .build()
            .into())
    }

    /// Sends a request, logs in if the registry asks for it, and returns the answer, whose status is a success.
    pub(super) fn get(&self, request: Request<'_>) -> Result<Response<Body>, (Error, Retry)> {
        let useless = |error| (error, Retry::Useless);
        let mut response = self.send(request)?;
        // Tokens expire after a few minutes, so a later request may need another one.
        if response.status() == 401 {
            let authorization = self.log_in(&response).map_err(useless)?;
            let old = self.authorization.replace(Some(authorization.clone()));
            if old.as_ref() != Some(&authorization) {
                self.secrets.borrow_mut().push(authorization);
                response = self.send(request)?;
            }
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry = if status >= 500 { Retry::Useful } else { Retry::Useless };
        Err((self.refusal(response), retry))
    }

    fn send(&self, request: Request<'_>) -> Result<Response<Body>, (Error, Retry)> {
        let url = format!("{}/v2/{}/{}", self.base(), self.image.name(), request.path);
        let mut call = self.agent.get(&url).header("Accept", request.accept);
        if request.from > 0 {
            call = call.header("Range", format!("bytes={}-", request.from));
        }
        if let Some(authorization) = &*self.authorization.borrow() {
            call = call.header("Authorization", authorization);
        }
        let call = call.config().timeout_global(Some(request.timeout)).build();
        call.call().map_err(|error| (self.no_answer(error), Retry::Useful))
    }

    /// Returns the value of the header `Authorization` that the answer asks for.
    fn log_in(&self, response: &Response<Body>) -> Result<String> {
        let headers = response.headers().get_all("www-authenticate").iter();
        let texts: Vec<&str> = headers.filter_map(|value| value.to_str().ok()).collect();
        let challenges = texts.iter().filter_map(|text| http_auth::parse_challenges(text).ok());
        let challenges: Vec<ChallengeRef<'_>> = challenges.flatten().collect();
        let find = |scheme: &str| {
            challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme))
        };
        if let Some(bearer) = find("Bearer") {
            return Ok(format!("Bearer {}", self.token(bearer)?));
        }
        ensure!(
            find("Basic").is_some(),
            "the registry asks for a login of an unknown kind, expected Bearer or Basic"
        );
        let login = self.login.with_context(|| {
            format!("the registry requires a login, and there is none; {}", self.way_out())
        })?;
        Ok(format!("Basic {}", login.basic()))
    }

    /// Fetches a token for pulling the image from the server that the registry names.
    fn token(&self, challenge: &ChallengeRef<'_>) -> Result<String> {
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").context("the registry names no server for tokens")?;
        check_realm(&realm, self.image.is_loopback())?;
        let mut call = self.agent.get(&realm);
        if let Some(service) = parameter("service") {
            call = call.query("service", service);
        }
        call = call.query("scope", format!("repository:{}:pull", self.image.name()));
        if let Some(login) = self.login {
            call = call.header("Authorization", format!("Basic {}", login.basic()));
        }
        let call = call.config().timeout_global(Some(DOCUMENT_TIMEOUT)).build();
        let server = format!("the token server {}", excerpt(&realm));
        let response =
            call.call().map_err(|error| self.no_answer(error)).context(server.clone())?;
        if !response.status().is_success() {
            return Err(self.refusal(response).context(server));
        }
        let text = self.read(response, TOKEN_MAX).with_context(|| server.clone())?;
        let token = Token::parse(&text).with_context(|| format!("{server} sent no token"))?;
        self.secrets.borrow_mut().push(token.clone());
        Ok(token)
    }

    /// Reads an answer, which must not be larger than `max` bytes.
    pub(super) fn read(&self, response: Response<Body>, max: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(max + 1);
        body.read_to_end(&mut bytes).map_err(|error| self.interrupted(&error))?;
        ensure!(bytes.len() as u64 <= max, "the answer has more than {max} bytes");
        Ok(bytes)
    }

    /// Returns an error about an answer that ended early.
    pub(super) fn interrupted(&self, error: &std::io::Error) -> Error {
        anyhow!(self.redacted(&format!("the answer was interrupted: {error}")))
    }

    /// Returns an error about a request without an answer.
    fn no_answer(&self, error: ureq::Error) -> Error {
        let way_out = match &error {
            // The URL can contain a signature that gives access.
            ureq::Error::RequireHttpsOnly(_) => {
                return anyhow!("the registry redirects to a URL without TLS, expected https");
            }
            ureq::Error::Timeout(_) => "; check that it can be reached from this machine",
            ureq::Error::Io(error) if is_invalid_certificate(error) => {
                "; if its certificate is of a private authority, name that authority in SSL_CERT_FILE"
            }
            ureq::Error::HostNotFound | ureq::Error::Io(_) | ureq::Error::ConnectionFailed => {
                "; check its name, that it runs, and that this machine reaches it, if necessary by a proxy in \
                 https_proxy"
            }
            _ => "",
        };
        anyhow!(self.redacted(&format!("no answer: {}{way_out}", printable(&error.to_string()))))
    }

    /// Returns an error about an answer that is not a success.
    fn refusal(&self, response: Response<Body>) -> Error {
        let status = response.status();
        let said = self.read(response, ERROR_MAX).ok().and_then(|text| message(&text));
        let said = said.map(|text| format!(" ({text})")).unwrap_or_default();
        let advice = match status.as_u16() {
            401 | 403 if self.login.is_some() => {
                let user = &self.login.map(|login| excerpt(&login.user)).unwrap_or_default();
                format!(
                    "it refuses the user {user}; check the password, and that the user may pull the image"
                )
            }
            401 | 403 => format!("it refuses access without a login; {}", self.way_out()),
            404 => "it does not have this image or version; check the reference".to_owned(),
            429 => format!("it limits the number of requests; wait, or {}", self.way_out()),
            _ => "try again later, or use another registry with --image".to_owned(),
        };
        anyhow!(self.redacted(&format!("the answer was \"{status}\"{said}: {advice}")))
    }

    fn way_out(&self) -> String {
        self.logins.way_out(self.image)
    }

    /// Returns the text without passwords and tokens.
    fn redacted(&self, text: &str) -> String {
        redact(&self.secrets.borrow(), text)
    }
}

/// The answer of a token server.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    fn parse(text: &[u8]) -> Result<String> {
        // The error of the parser could quote the token.
        let parsed: Option<Self> = serde_json::from_slice(text).ok();
        let parsed = parsed.context("the answer is not JSON")?;
        let token = parsed.token.or(parsed.access_token).unwrap_or_default();
        ensure!(
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
            "the token is empty, or cannot be part of a header"
        );
        Ok(token)
    }
}

/// Returns whether TLS failed because the certificate of the server is not trusted.
fn is_invalid_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// Checks that a token server is reached over TLS, or that it and the registry are on this machine.
fn check_realm(realm: &str, loopback: bool) -> Result<()> {
    let Some((scheme, rest)) = realm.split_once("://") else {
        bail!("the registry names {} for tokens, expected a URL", excerpt(realm));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    ensure!(
        !host.contains('@') && (scheme == "https" || (loopback && is_loopback(host))),
        "the registry names {} for tokens, expected an https URL without a user",
        excerpt(realm)
    );
    Ok(())
}

/// Returns what the registry says about an error.
fn message(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let answer: Answer = serde_json::from_slice(text).ok()?;
    let Problem { code, message } = answer.errors.into_iter().next()?;
    Some(printable(format!("{code} {message}").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_servers_need_tls() {
        for (realm, loopback, valid) in [
            ("https://auth.example/token", false, true),
            ("https://auth.example/token", true, true),
            ("http://127.0.0.1:5001/token", true, true),
            ("http://127.0.0.1:5001/token", false, false),
            ("http://auth.example/token", true, false),
            ("http://127.0.0.1:80@auth.example/token", true, false),
            ("https://u:p@auth.example/", false, false),
            ("file:///etc/passwd", true, false),
            ("auth.example", false, false),
        ] {
            assert_eq!(check_realm(realm, loopback).is_ok(), valid, "{realm} {loopback}");
        }
    }

    #[test]
    fn reads_both_names_of_tokens() {
        for text in [r#"{"token": "t"}"#, r#"{"access_token": "t"}"#] {
            assert_eq!(Token::parse(text.as_bytes()).unwrap(), "t");
        }
        for text in ["{}", r#"{"token": ""}"#, r#"{"token": "a\nb"}"#, "secret"] {
            let error = format!("{:#}", Token::parse(text.as_bytes()).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn messages_of_registries_are_short_and_printable() {
        let long = format!(
            r#"{{"errors": [{{"code": "C", "message": "\u001b[2J{}"}}]}}"#,
            "x".repeat(999)
        );
        let text = message(long.as_bytes()).unwrap();
        assert!(text.starts_with("C \\u{1b}[2J") && text.len() < 300, "{text}");
        assert_eq!(message(b"<html>"), None);
        assert_eq!(message(br#"{"errors": []}"#), None);
    }
}
