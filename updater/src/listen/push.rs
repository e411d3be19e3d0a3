//! A pushed token: who sent it, is it new, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use hyper::StatusCode;
use protocol::claims::TimeError;
use protocol::pattern::{Mode, Report, RunError, run};
use protocol::token::{TokenError, verify};
use protocol::{Claims, KeyRing, Verified};

use crate::shell::Bounded;

/// A token that is valid for longer is a standing permission, and not a push.
const VALID_MAX: u64 = 60 * 60;
/// How long after its end a token is still taken, for the clocks' sake; see [`Claims::check_time`].
const REMEMBER_AFTER: u64 = 120;
/// The audience of everything that is for EtchaOS.
const AUDIENCE: &str = "etchaos";

/// Takes pushes, one at a time.
pub struct Push {
    sources: BTreeMap<String, KeyRing>,
    /// Ids of tokens that were taken, by source, with the time until which they are remembered.
    seen: Mutex<HashMap<(String, String), u64>>,
    running: Mutex<()>,
}

/// A push that was not run.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Another path.
    #[error("there is nothing here: Patterns are pushed to /etcha/v1/push/<source>")]
    Path,
    /// Another method.
    #[error("Patterns are pushed by POST")]
    Method,
    /// Nobody by this name may push.
    #[error("no source {0:?} is configured under \"listen\"")]
    Source(String),
    /// A body that is no token.
    #[error("the body could not be read: {0}")]
    Body(String),
    /// A body that is too large.
    #[error("the body is larger than any token: {} bytes are read", protocol::token::TOKEN_MAX)]
    TooLarge,
    /// Not signed by this source.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Not valid now.
    #[error("the token is not valid: {0}")]
    Time(#[from] TimeError),
    /// Valid, but not as a push.
    #[error("the token is not acceptable: {0}")]
    Claims(&'static str),
    /// Not a Pattern.
    #[error("{0}")]
    Pattern(String),
    /// Another push is running.
    #[error("another Pattern is running: push again when it has ended")]
    Busy,
    /// A Command could not be run at all.
    #[error("{0}")]
    Run(String),
}

impl PushError {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Path | Self::Source(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(_) | Self::Pattern(_) => StatusCode::BAD_REQUEST,
            Self::Token(error) if error.is_trusted() => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Token(_) | Self::Time(_) | Self::Claims(_) => StatusCode::UNAUTHORIZED,
            Self::Busy => StatusCode::CONFLICT,
            Self::Run(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Push {
    /// Nobody pushed yet.
    pub fn new(sources: BTreeMap<String, KeyRing>) -> Self {
        Self { sources, seen: Mutex::default(), running: Mutex::default() }
    }

    /// Whether a source is configured.
    pub fn knows(&self, source: &str) -> Result<&KeyRing, PushError> {
        let unknown = || PushError::Source(source.chars().take(64).collect());
        self.sources.get(source).ok_or_else(unknown)
    }

    /// Verifies a token, runs its Pattern, and gives the report in JSON. `now` is in Unix seconds.
    pub fn run(
        &self,
        source: &str,
        token: &str,
        mode: Mode,
        now: u64,
    ) -> Result<String, PushError> {
        let claims = verify(token, self.knows(source)?)?;
        check(&claims, now)?;
        let files = claims.etcha_pattern.as_ref();
        let files =
            files.ok_or(PushError::Pattern("the token has no claim etchaPattern".into()))?;
        let pattern = files.pattern().map_err(|error| PushError::Pattern(error.to_string()))?;
        // Before it is remembered: who is turned away may push the same token again.
        let _alone = self.alone()?;
        self.remember(source, &claims, now)?;
        log::info!(source = source, key = claims.key_id(); "running a Pattern of {source}, signed with {}", claims.key_id());
        let mut shell = Bounded::new(&pattern.exec);
        let report = run(&pattern.run, mode, &mut shell).map_err(|error| match error {
            RunError::Pattern(error) => PushError::Pattern(error.to_string()),
            RunError::Shell { id, source } => {
                PushError::Run(format!("the Command {id:?} could not be run: {source}"))
            }
        })?;
        tell(source, &report);
        serde_json::to_string(&report).map_err(|error| PushError::Run(error.to_string()))
    }

    fn alone(&self) -> Result<MutexGuard<'_, ()>, PushError> {
        match self.running.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::WouldBlock) => Err(PushError::Busy),
            // It guards no data that could be half changed.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        }
    }

    fn remember(&self, source: &str, claims: &Verified<Claims>, now: u64) -> Result<(), PushError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, until| *until > now);
        let id = claims.jti.clone().unwrap_or_default();
        let until = claims.exp.unwrap_or(u64::MAX).saturating_add(REMEMBER_AFTER);
        match seen.insert((source.to_owned(), id), until) {
            None => Ok(()),
            Some(_) => Err(PushError::Claims("its jti was pushed before: sign a new one")),
        }
    }
}

/// Only a token that is new, short-lived and for us is a push.
fn check(claims: &Claims, now: u64) -> Result<(), PushError> {
    let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
        return Err(PushError::Claims("a push needs iat and exp"));
    };
    claims.check_time(now)?;
    if exp.saturating_sub(iat) > VALID_MAX {
        return Err(PushError::Claims("a push is valid for an hour at most"));
    }
    if claims.jti.as_deref().is_none_or(str::is_empty) {
        return Err(PushError::Claims("a push needs a jti that no other one has"));
    }
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    let is_ours = |aud: &String| aud == AUDIENCE || hostname.to_str() == Some(aud);
    if !claims.aud.is_empty() && !claims.aud.iter().any(is_ours) {
        return Err(PushError::Claims("its audience is neither \"etchaos\" nor this host's name"));
    }
    Ok(())
}

fn tell(source: &str, report: &Report) {
    let failures: Vec<&str> = report.failures().map(|result| result.id.as_str()).collect();
    let count = report.results.len();
    match failures.is_empty() {
        true => log::info!(source = source; "the Pattern of {source} ran: {count} Commands"),
        false => log::warn!(source = source; "the Pattern of {source} failed: {failures:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::PrivateKey;
    use protocol::pattern::{Pattern, PatternFiles};
    use protocol::token::sign;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn pattern() -> PatternFiles {
        let pattern: Pattern = serde_json::from_value(json!({
            "exec": {"command": "/bin/sh", "flags": "-c"},
            "run": [{"id": "x", "check": "false", "change": "echo done"}],
        }))
        .unwrap();
        PatternFiles::from(&pattern)
    }

    fn claims() -> Claims {
        Claims {
            iat: Some(NOW),
            exp: Some(NOW + 60),
            jti: Some("1".into()),
            etcha_pattern: Some(pattern()),
            ..Claims::default()
        }
    }

    fn push(key: &PrivateKey) -> Push {
        Push::new(BTreeMap::from([("ci".to_owned(), key.public().clone().into())]))
    }

    #[test]
    fn a_push_runs_once() {
        let key = PrivateKey::generate();
        let push = push(&key);
        let token = sign(&key, &claims()).unwrap();
        let report = push.run("ci", &token, Mode::Change, NOW).unwrap();
        assert!(report.contains(r#""outcome":"changed","output":"done\n""#), "{report}");
        assert!(matches!(push.run("ci", &token, Mode::Change, NOW), Err(PushError::Claims(_))));
        assert!(matches!(push.run("cd", &token, Mode::Change, NOW), Err(PushError::Source(_))));
    }

    #[test]
    fn a_push_that_came_at_a_bad_moment_may_come_again() {
        let key = PrivateKey::generate();
        let push = push(&key);
        let token = sign(&key, &claims()).unwrap();
        let other = push.alone().unwrap();
        assert!(matches!(push.run("ci", &token, Mode::Check, NOW), Err(PushError::Busy)));
        drop(other);
        assert!(push.run("ci", &token, Mode::Check, NOW).is_ok());
    }

    #[test]
    fn claims_that_are_not_a_pushs_are_refused() {
        let key = PrivateKey::generate();
        let changes: [fn(&mut Claims); 9] = [
            |c| c.iat = None,
            |c| c.exp = None,
            |c| c.exp = Some(NOW + 3601),
            |c| (c.iat, c.exp) = (Some(NOW - 600), Some(NOW - 300)),
            |c| c.iat = Some(NOW + 300),
            |c| c.jti = None,
            |c| c.jti = Some(String::new()),
            |c| c.aud = vec!["somebody.else".into()],
            |c| c.etcha_pattern = None,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut bad = claims();
            change(&mut bad);
            let token = sign(&key, &bad).unwrap();
            assert!(push(&key).run("ci", &token, Mode::Change, NOW).is_err(), "change {index}");
        }
        let ours = Claims { aud: vec!["x".into(), "etchaos".into()], ..claims() };
        let token = sign(&key, &ours).unwrap();
        assert!(push(&key).run("ci", &token, Mode::Change, NOW).is_ok());
    }
}
