//! The push client: sends signed Patterns to the listener of a host. Scenarios use it for the updater in a
//! guest, and `testbed push` for every host, also for one of Etcha.

mod answer;
mod command;
mod source;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::pattern::{Mode, Pattern, PatternFiles, Report};
use protocol::token::{self, TokenError};
use protocol::{Claims, KeyRing, PrivateKey};
use serde_json::{Map, Value, json};

use self::answer::Answer;
pub(crate) use self::command::{Push, push};
use crate::client::{self, Address, Answered, ClientError, Phase, Trust, reason, shown};

/// The name of the source in the guest's configuration that has the testbed's key.
pub(crate) const SOURCE: &str = "testbed";
/// The guest's port.
pub(crate) const PORT: u16 = 4000;
/// The lifetime of a token in seconds. The updater accepts at most one hour.
const TOKEN_SECONDS: u64 = 1800;

/// A push that was not answered with a report.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The listener cannot be reached, or its certificate is not trusted, so nothing was sent. Another
    /// attempt may succeed.
    #[error("{0}")]
    NotSent(String),
    /// The listener did not answer. Another attempt may succeed.
    #[error("no answer from the listener: {0}")]
    NoAnswer(String),
    /// The listener cannot run the Pattern now. Another attempt may succeed.
    #[error("the listener is not available: status {status}: {body}")]
    Unavailable {
        /// The status: 409 (another Pattern is running), 425 (the host has just booted), 429, or 502
        /// to 504.
        status: u16,
        /// The body, shortened.
        body: String,
    },
    /// The listener rejected the push. Another attempt cannot succeed.
    #[error("the listener rejected the push: status {status}: {body}")]
    Rejected {
        /// The status.
        status: u16,
        /// The body, shortened.
        body: String,
    },
    /// The answer is not that of a listener.
    #[error(
        "the answer is not that of a listener (status {status}), so it is not known whether the Pattern \
         ran: {reason}; the answer was: {body}"
    )]
    NotUnderstood {
        /// The status.
        status: u16,
        /// What is wrong with it.
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
        matches!(self, Self::NotSent(_) | Self::NoAnswer(_) | Self::Unavailable { .. })
    }

    /// Returns whether it is certain that the listener ran nothing.
    pub(crate) fn ran_nothing(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Unavailable { .. } | Self::Rejected { .. } | Self::Sign(_) => {
                true
            }
            Self::NoAnswer(_) | Self::NotUnderstood { .. } => false,
        }
    }
}

/// A client that sends Patterns to one listener.
#[derive(Debug, Clone)]
pub(crate) struct PushClient {
    address: Address,
    trust: Trust,
    source: String,
    key: PrivateKey,
    /// Whether a listener without TLS is accepted, too.
    or_plain: bool,
}

/// What is pushed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    files: PatternFiles,
    mode: Mode,
    /// A regular expression for the ids of the Commands to run.
    filter: Option<String>,
    /// The hosts that may run it; all that trust the key if it is empty.
    audience: Vec<String>,
}

impl PushClient {
    /// Creates a client for the listener of a guest, at a loopback port of this machine. `key` is a key that
    /// the listener trusts.
    ///
    /// Guests of older releases have no TLS. Others make their certificate, so it is not known, and the connection
    /// does not leave this machine.
    pub(crate) fn new(port: u16, key: PrivateKey) -> Self {
        let address = Address { tls: true, host: "127.0.0.1".into(), port };
        Self { address, trust: Trust::Any, source: SOURCE.into(), key, or_plain: true }
    }

    /// Sends a Pattern to a guest and returns the report.
    ///
    /// # Errors
    /// Fails if the Pattern cannot be signed, or if no report arrives within `timeout`.
    pub(crate) fn push(
        &self,
        pattern: &Pattern,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Report, PushError> {
        let files = PatternFiles::from(pattern);
        let request = Request { files, mode, filter: None, audience: Vec::new() };
        let answer = self.send(&request, timeout)?;
        answer.report.ok_or_else(|| PushError::NotUnderstood {
            status: 200,
            reason: "it has no report".into(),
            body: String::new(),
        })
    }

    /// Sends a request and returns the answer.
    ///
    /// # Errors
    /// Fails if the request cannot be signed or sent, or if no answer that says what was done arrives within
    /// `timeout`.
    fn send(&self, request: &Request, timeout: Duration) -> Result<Answer, PushError> {
        let token = self.token(request)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| PushError::NotSent(error.to_string()))?;
        let target = target(&self.source, request);
        let answered = runtime.block_on(async {
            let exchange = self.exchange(&target, token);
            tokio::time::timeout(timeout, exchange).await
        });
        // A lookup of a name may still be running; nothing waits for it.
        runtime.shutdown_background();
        match answered {
            Ok(Ok(answered)) => judge(&answered),
            Ok(Err(error)) if error.phase() == Phase::Connect => {
                Err(PushError::NotSent(error.to_string()))
            }
            Ok(Err(error)) => Err(PushError::NoAnswer(error.to_string())),
            Err(_) => Err(PushError::NoAnswer(format!("timeout after {} s", timeout.as_secs()))),
        }
    }

    async fn exchange(&self, target: &str, token: String) -> Result<Answered, ClientError> {
        let mut address = self.address.clone();
        let connection = match client::connect(&address, &self.trust).await {
            Err(ClientError::NotTls(_)) if self.or_plain => {
                address.tls = false;
                client::connect(&address, &self.trust).await
            }
            connection => connection,
        };
        client::post(connection?, &address, target, "application/jwt", token).await
    }

    /// Returns a token for one push.
    ///
    /// Each push needs a new token, because a listener of EtchaOS accepts a `jti` only once and rejects
    /// tokens issued before the host booted.
    fn token(&self, request: &Request) -> Result<String, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: Some(SOURCE.into()),
            aud: request.audience.clone(),
            iat: Some(now),
            exp: Some(now + TOKEN_SECONDS),
            jti: Some(format!("{:032x}", fastrand::u128(..))),
            etcha_pattern: Some(request.files.clone()),
            etchaos_mode: Some(request.mode),
            ..Claims::default()
        };
        token::sign(&self.key, &claims)
    }
}

/// Returns the path and the query of a push.
fn target(source: &str, request: &Request) -> String {
    let mut target = format!("/etcha/v1/push/{source}");
    let mut separator = '?';
    // A listener of EtchaOS takes the mode from the token. Etcha's own knows only the query.
    if request.mode == Mode::Check {
        target.push_str("?check");
        separator = '&';
    }
    if let Some(filter) = &request.filter {
        target.push(separator);
        target.push_str("filter=");
        target.push_str(&percent_encoded(filter));
    }
    target
}

/// Encodes everything but unreserved characters (RFC 3986 section 2.3).
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Decides what an answer says. Only an answer with all fields of a listener says that a Pattern ran.
fn judge(answered: &Answered) -> Result<Answer, PushError> {
    let Answered { status, body } = answered;
    let status = *status;
    let not_understood =
        |reason: String| Err(PushError::NotUnderstood { status, reason, body: shown(body) });
    match status {
        200 => Answer::decode(body).or_else(not_understood),
        // Etcha's listener has this Pattern already.
        304 => Ok(Answer::default()),
        // The answer to a Pattern with a Command that failed.
        500 => match Answer::decode(body) {
            Ok(answer) if answer.is_failure() => Ok(answer),
            Ok(_) => not_understood("it names no error".into()),
            Err(reason) => not_understood(reason),
        },
        409 | 425 | 429 | 502..=504 => {
            Err(PushError::Unavailable { status, body: reason(status, body) })
        }
        400..=499 => Err(PushError::Rejected { status, body: reason(status, body) }),
        _ => not_understood("a listener sends no such status".into()),
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

#[cfg(test)]
mod tests;
