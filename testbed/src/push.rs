//! The push client: sends signed Patterns to the updater's listener in a guest.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::pattern::{Mode, Pattern, PatternFiles, Report};
use protocol::token::{self, TokenError};
use protocol::{Claims, KeyRing, PrivateKey};
use serde_json::json;
use ureq::Agent;

/// The name of the source that the guest's configuration gives our key for.
pub const SOURCE: &str = "testbed";
/// The guest's port.
pub const PORT: u16 = 4000;
/// How long a token is good for. The updater takes one hour at most.
const TOKEN_SECONDS: u64 = 1800;
/// A guest that is up answers the handshake at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A report with hundreds of packages in it takes 100 kB.
const ANSWER_MAX: u64 = 8 << 20;
/// How much of an answer that is no report is shown.
const SHOWN_MAX: usize = 500;

/// A push that was not answered with a report.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Nobody answers, not yet or not any more. Worth another try.
    #[error("no answer from the guest's listener: {0}")]
    NoAnswer(String),
    /// The guest is up and says that it cannot answer now. Worth another try.
    #[error("the guest's listener cannot answer now: status {status}: {said}")]
    Unavailable {
        /// The status: 409 (another Pattern is running), 425 (only just booted), 429, 502 to 504.
        status: u16,
        /// The body, shortened.
        said: String,
    },
    /// The guest is up and refuses. It will do so again.
    #[error("the guest's listener refuses the push: status {status}: {said}")]
    Refused {
        /// The status.
        status: u16,
        /// The body, shortened.
        said: String,
    },
    /// The answer is no report.
    #[error("the guest's listener answers, but not with a report: {why}; it said: {said}")]
    Answer {
        /// What the parser says.
        why: String,
        /// The body, shortened.
        said: String,
    },
    /// The Pattern could not be signed.
    #[error("the Pattern cannot be signed: {0}")]
    Sign(#[from] TokenError),
}

impl PushError {
    /// Whether another try may succeed.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Unavailable { .. })
    }
}

/// Sends Patterns to one guest.
#[derive(Debug, Clone)]
pub struct PushClient {
    agent: Agent,
    url: String,
    key: PrivateKey,
}

impl PushClient {
    /// A client for the listener at this port of our loopback, with the key that it trusts.
    pub fn new(port: u16, key: PrivateKey) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            // A proxy of the environment would be asked for its own loopback.
            .proxy(None)
            // A guest that sends us elsewhere is a broken guest.
            .max_redirects(0)
            // A connection from before a reboot is dead without saying so.
            .max_idle_connections(0)
            .build();
        let url = format!("http://127.0.0.1:{port}/etcha/v1/push/{SOURCE}");
        Self { agent: config.into(), url, key }
    }

    /// Sends a Pattern and waits for the report, for as long as `timeout`.
    pub fn push(
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
        let said = || body.trim().chars().take(SHOWN_MAX).collect();
        match status {
            200 => serde_json::from_str(&body)
                .map_err(|error| PushError::Answer { why: error.to_string(), said: said() }),
            409 | 425 | 429 | 502..=504 => Err(PushError::Unavailable { status, said: said() }),
            _ => Err(PushError::Refused { status, said: said() }),
        }
    }

    /// A new token for each push: the listener takes a `jti` once, and none that is as old as the
    /// boot.
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

/// What makes a guest listen to this key, update from this CDN, and trust manifests of these keys,
/// too: JSON for the SMBIOS.
pub fn guest_config(key: &PrivateKey, cdn_port: u16, trusted: &KeyRing) -> String {
    let mut config = json!({
        "cdn": format!("http://10.0.2.2:{cdn_port}"),
        "reboot": "now",
        "listen": {
            "address": format!("0.0.0.0:{PORT}"),
            "sources": { SOURCE: { "keys": [key.public().to_string()] } },
        },
    });
    if !trusted.is_empty() {
        let keys = trusted.ids().filter_map(|id| Some(trusted.get(id)?.to_string()));
        config["keys"] = keys.collect();
    }
    config.to_string()
}

fn no_answer(error: &ureq::Error) -> PushError {
    let why = match error {
        ureq::Error::Timeout(which) => format!("timeout ({which})"),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it hung up".into()
        }
        error => error.to_string(),
    };
    PushError::NoAnswer(why)
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

    /// A listener that gives these answers, one a connection, and tells what it was sent: the
    /// request line and the body.
    fn guest(answers: Vec<String>) -> (u16, mpsc::Receiver<(String, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (send, requests) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut first, mut length) = (String::new(), 0);
                reader.read_line(&mut first).unwrap();
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
                let _ = send.send((first, String::from_utf8(body).unwrap()));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (port, requests)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn push(answer: String) -> Result<Report, PushError> {
        let (port, _requests) = guest(vec![answer]);
        let client = PushClient::new(port, PrivateKey::generate());
        client.push(&pattern(), Mode::Change, TIMEOUT)
    }

    #[test]
    fn a_signed_pattern_is_sent_and_the_report_comes_back() {
        let key = PrivateKey::generate();
        let report = r#"{"results":[{"id":"x","outcome":"failed","output":"no"}],"new":1}"#;
        let (port, requests) = guest(vec![answer("200 OK", report), answer("200 OK", report)]);
        let client = PushClient::new(port, key.clone());
        let report = client.push(&pattern(), Mode::Check, TIMEOUT).unwrap();
        assert_eq!(report.failures().next().unwrap().output, "no");
        client.push(&pattern(), Mode::Change, TIMEOUT).unwrap();

        let (first, token) = requests.recv().unwrap();
        assert!(first.starts_with("POST /etcha/v1/push/testbed "), "{first}");
        let claims = token::verify(&token, &key.public().clone().into()).unwrap();
        assert_eq!(claims.etcha_pattern.as_ref().unwrap().pattern().unwrap(), pattern());
        assert!(claims.exp.unwrap() - claims.iat.unwrap() <= 3600);
        assert_eq!(claims.etchaos_mode, Some(Mode::Check));
        let (first, again) = requests.recv().unwrap();
        assert!(first.starts_with("POST /etcha/v1/push/testbed "), "{first}");
        let again = token::verify(&again, &key.public().clone().into()).unwrap();
        assert_ne!(claims.jti, again.jti);
        assert_eq!(again.etchaos_mode, Some(Mode::Change));
    }

    #[test]
    fn a_refusal_is_final_and_says_why() {
        for status in
            ["401 Unauthorized", "404 Not Found", "500 Internal Server Error", "302 Found"]
        {
            let error = push(answer(status, "unknown key\n")).unwrap_err();
            assert!(!error.is_temporary());
            assert!(error.to_string().contains("unknown key"), "{error}");
        }
    }

    #[test]
    fn a_busy_guest_is_asked_again() {
        for status in
            ["409 Conflict", "425 Too Early", "503 Service Unavailable", "429 Too Many Requests"]
        {
            assert!(push(answer(status, "starting")).unwrap_err().is_temporary(), "{status}");
        }
    }

    #[test]
    fn an_answer_that_is_no_report_is_shown() {
        let error = push(answer("200 OK", "<html>")).unwrap_err();
        assert!(!error.is_temporary() && error.to_string().contains("<html>"), "{error}");
    }

    #[test]
    fn no_listener_a_hang_up_and_a_cut_answer_are_no_answers() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = PushClient::new(closed, PrivateKey::generate());
        let error = client.push(&pattern(), Mode::Check, TIMEOUT).unwrap_err();
        assert!(matches!(error, PushError::NoAnswer(_)), "{error}");
        for cut in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
            let error = push(cut.into()).unwrap_err();
            assert!(matches!(error, PushError::NoAnswer(_)), "{error}");
        }
    }

    #[test]
    fn times_out() {
        // Accepted by the system's queue, answered by nobody.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = PushClient::new(port, PrivateKey::generate());
        let error = client.push(&pattern(), Mode::Check, Duration::from_millis(200)).unwrap_err();
        assert!(error.is_temporary() && error.to_string().contains("timeout"), "{error}");
    }

    #[test]
    fn the_guest_is_told_the_public_key_alone() {
        let key = PrivateKey::generate();
        let config: serde_json::Value =
            serde_json::from_str(&guest_config(&key, 8080, &KeyRing::default())).unwrap();
        assert_eq!(config["cdn"], "http://10.0.2.2:8080");
        assert_eq!(config["listen"]["sources"]["testbed"]["keys"][0], key.public().to_string());
    }
}
