//! The push client: sends signed Patterns to the updater's listener in a guest.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::pattern::{Mode, Pattern, PatternFiles, Report};
use protocol::token::{self, TokenError};
use protocol::{Claims, KeyRing, PrivateKey};
use serde_json::{Map, Value, json};
use ureq::Agent;

/// The name of the source in the guest's configuration that has the testbed's key.
pub(crate) const SOURCE: &str = "testbed";
/// The guest's port.
pub(crate) const PORT: u16 = 4000;
/// The lifetime of a token in seconds. The updater accepts at most one hour.
const TOKEN_SECONDS: u64 = 1800;
/// The limit for the connection. A guest that has booted accepts it within milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer in bytes. A report with hundreds of packages takes 100 kB.
const ANSWER_MAX: u64 = 8 << 20;
/// The number of characters of an answer that an error shows.
const SHOWN_CHARS_MAX: usize = 500;

/// A push that was not answered with a report.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The listener did not answer. Another attempt may succeed.
    #[error("no answer from the guest's listener: {0}")]
    NoAnswer(String),
    /// The listener cannot run the Pattern now. Another attempt may succeed.
    #[error("the guest's listener is not available: status {status}: {body}")]
    Unavailable {
        /// The status: 409 (another Pattern is running), 425 (the guest has just booted), 429, or 502
        /// to 504.
        status: u16,
        /// The body, shortened.
        body: String,
    },
    /// The listener rejected the push. Another attempt cannot succeed.
    #[error("the guest's listener rejected the push: status {status}: {body}")]
    Rejected {
        /// The status.
        status: u16,
        /// The body, shortened.
        body: String,
    },
    /// The answer is not a report.
    #[error("the guest's listener sent an invalid report: {reason}; the answer was: {body}")]
    InvalidReport {
        /// The parser's error.
        reason: String,
        /// The body, shortened.
        body: String,
    },
    /// The Pattern could not be signed.
    #[error("cannot sign the Pattern: {0}")]
    Sign(#[from] TokenError),
}

impl PushError {
    /// Returns whether another attempt may succeed.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Unavailable { .. })
    }
}

/// A client that sends Patterns to one guest.
#[derive(Debug, Clone)]
pub(crate) struct PushClient {
    agent: Agent,
    url: String,
    key: PrivateKey,
}

impl PushClient {
    /// Creates a client for the listener at a loopback port of the host. `key` is a key that the
    /// listener trusts.
    pub(crate) fn new(port: u16, key: PrivateKey) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            // A proxy set in the environment would connect to its own loopback interface.
            .proxy(None)
            // The listener never redirects, so a redirect is an error.
            .max_redirects(0)
            // A reboot of the guest breaks open connections without closing them.
            .max_idle_connections(0)
            .build();
        let url = format!("http://127.0.0.1:{port}/etcha/v1/push/{SOURCE}");
        Self { agent: config.into(), url, key }
    }

    /// Sends a Pattern and returns the report.
    ///
    /// # Errors
    /// Fails if the Pattern cannot be signed, or if no report arrives within `timeout`.
    pub(crate) fn push(
        &self,
        pattern: &Pattern,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Report, PushError> {
        let token = self.token(pattern, mode)?;
        let mut response = self
            .agent
            .post(&self.url)
            .config()
            .timeout_global(Some(timeout))
            .build()
            .content_type("application/jwt")
            .send(token)
            .map_err(|error| no_answer(&error))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(ANSWER_MAX).read_to_string();
        let body = body.map_err(|error| no_answer(&error))?;
        let shown = || body.trim().chars().take(SHOWN_CHARS_MAX).collect();
        match status {
            200 => serde_json::from_str(&body).map_err(|error| PushError::InvalidReport {
                reason: error.to_string(),
                body: shown(),
            }),
            409 | 425 | 429 | 502..=504 => Err(PushError::Unavailable { status, body: shown() }),
            _ => Err(PushError::Rejected { status, body: shown() }),
        }
    }

    /// Returns a token for one push.
    ///
    /// Each push needs a new token, because the listener accepts a `jti` only once and rejects tokens
    /// issued before the guest booted.
    fn token(&self, pattern: &Pattern, mode: Mode) -> Result<String, TokenError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let claims = Claims {
            iss: Some(SOURCE.into()),
            iat: Some(now.as_secs()),
            exp: Some(now.as_secs() + TOKEN_SECONDS),
            jti: Some(format!("{SOURCE}-{}-{}-{count}", std::process::id(), now.as_nanos())),
            etcha_pattern: Some(PatternFiles::from(pattern)),
            etchaos_mode: Some(mode),
            ..Claims::default()
        };
        token::sign(&self.key, &claims)
    }
}

/// Returns a configuration for the updater, in JSON.
///
/// With it, the guest accepts pushes signed with `key`, updates from the CDN at `cdn_port` of the host,
/// and also trusts manifests signed with a key in `trusted`. `more` are other members.
pub(crate) fn guest_config(
    key: &PrivateKey,
    cdn_port: u16,
    trusted: &KeyRing,
    more: &Map<String, Value>,
) -> String {
    let mut config = json!({
        "cdn": format!("http://10.0.2.2:{cdn_port}"),
        "reboot": "now",
        "listen": {
            "tls": false,
            "address": format!("0.0.0.0:{PORT}"),
            "sources": { SOURCE: { "keys": [key.public().to_string()] } },
        },
    });
    if !trusted.is_empty() {
        let keys = trusted.ids().filter_map(|id| Some(trusted.get(id)?.to_string()));
        config["keys"] = keys.collect();
    }
    for (name, value) in more {
        config[name] = value.clone();
    }
    config.to_string()
}

fn no_answer(error: &ureq::Error) -> PushError {
    let reason = match error {
        ureq::Error::Timeout(phase) => format!("timeout ({phase})"),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed".into()
        }
        error => error.to_string(),
    };
    PushError::NoAnswer(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::pattern::{Command, Entry};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn pattern() -> Pattern {
        let command = Command { id: "x".into(), check: Some("true".into()), ..Command::default() };
        Pattern { run: vec![Entry::Command(Box::new(command))], ..Pattern::default() }
    }

    /// Starts a listener that sends one of `answers` per connection. Returns its port and a receiver of
    /// the request lines and bodies.
    fn listener(answers: Vec<String>) -> (u16, mpsc::Receiver<(String, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut request_line, mut length) = (String::new(), 0);
                reader.read_line(&mut request_line).unwrap();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let line = line.to_ascii_lowercase();
                    if let Some(value) = line.strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let _ = sender.send((request_line, String::from_utf8(body).unwrap()));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (port, requests)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn push(answer: String) -> Result<Report, PushError> {
        let (port, _requests) = listener(vec![answer]);
        let client = PushClient::new(port, PrivateKey::generate());
        client.push(&pattern(), Mode::Change, TIMEOUT)
    }

    #[test]
    fn sends_signed_pattern_and_returns_report() {
        let key = PrivateKey::generate();
        let report = r#"{"results":[{"id":"x","outcome":"failed","output":"no"}],"new":1}"#;
        let (port, requests) = listener(vec![answer("200 OK", report), answer("200 OK", report)]);
        let client = PushClient::new(port, key.clone());
        let report = client.push(&pattern(), Mode::Check, TIMEOUT).unwrap();
        assert_eq!(report.failures().next().unwrap().output, "no");
        client.push(&pattern(), Mode::Change, TIMEOUT).unwrap();

        let (request_line, token) = requests.recv().unwrap();
        assert!(request_line.starts_with("POST /etcha/v1/push/testbed "), "{request_line}");
        let claims = token::verify(&token, &key.public().clone().into()).unwrap();
        assert_eq!(claims.etcha_pattern.as_ref().unwrap().pattern().unwrap(), pattern());
        assert!(claims.exp.unwrap() - claims.iat.unwrap() <= 3600);
        assert_eq!(claims.etchaos_mode, Some(Mode::Check));
        let (request_line, token) = requests.recv().unwrap();
        assert!(request_line.starts_with("POST /etcha/v1/push/testbed "), "{request_line}");
        let second = token::verify(&token, &key.public().clone().into()).unwrap();
        assert_ne!(claims.jti, second.jti);
        assert_eq!(second.etchaos_mode, Some(Mode::Change));
    }

    #[test]
    fn treats_rejection_as_final_and_shows_body() {
        for status in
            ["401 Unauthorized", "404 Not Found", "500 Internal Server Error", "302 Found"]
        {
            let error = push(answer(status, "unknown key\n")).unwrap_err();
            assert!(!error.is_temporary());
            assert!(error.to_string().contains("unknown key"), "{error}");
        }
    }

    #[test]
    fn treats_busy_statuses_as_temporary() {
        for status in
            ["409 Conflict", "425 Too Early", "503 Service Unavailable", "429 Too Many Requests"]
        {
            assert!(push(answer(status, "starting")).unwrap_err().is_temporary(), "{status}");
        }
    }

    #[test]
    fn shows_answer_that_is_not_a_report() {
        let error = push(answer("200 OK", "<html>")).unwrap_err();
        assert!(!error.is_temporary() && error.to_string().contains("<html>"), "{error}");
    }

    #[test]
    fn reports_closed_port_and_truncated_answers_as_no_answer() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = PushClient::new(closed, PrivateKey::generate());
        let error = client.push(&pattern(), Mode::Check, TIMEOUT).unwrap_err();
        assert!(matches!(error, PushError::NoAnswer(_)), "{error}");
        for truncated in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
            let error = push(truncated.into()).unwrap_err();
            assert!(matches!(error, PushError::NoAnswer(_)), "{error}");
        }
    }

    #[test]
    fn times_out_without_answer() {
        // The kernel accepts the connection into its backlog, but no answer is sent.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = PushClient::new(port, PrivateKey::generate());
        let error = client.push(&pattern(), Mode::Check, Duration::from_millis(200)).unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("timeout"), "{error}");
    }

    #[test]
    fn guest_config_contains_public_key() {
        let key = PrivateKey::generate();
        let config: serde_json::Value =
            serde_json::from_str(&guest_config(&key, 8080, &KeyRing::default(), &Map::new()))
                .unwrap();
        assert_eq!(config["cdn"], "http://10.0.2.2:8080");
        assert_eq!(config["listen"]["sources"]["testbed"]["keys"][0], key.public().to_string());
    }
}
