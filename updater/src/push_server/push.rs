//! Verifies pushed tokens and runs their Patterns.
//!
//! No token is accepted twice. A token is identified by the digest of what its signature covers, not by its `jti`:
//! Etcha's client writes the id of a Pattern there, which is the same in each push, or no `jti` at all.
//!
//! [`ReplayGuard`] stores the tokens that were accepted during this boot. Those of an earlier boot are recognised
//! by their age: a token is accepted only while its `iat` is at most [`AHEAD_MAX`] seconds ahead of the clock, so
//! one that was accepted before a reboot has an `iat` of at most [`AHEAD_MAX`] after the boot. This relies on a
//! clock that a reboot does not set back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use hyper::StatusCode;
use protocol::claims::TimeError;
use protocol::pattern::{Mode, Outcome, Report, RunError};
use protocol::token::{TokenError, verify};
use protocol::{Claims, KeyRing, Verified};

use super::answer;
use super::query::Query;
use super::replay::{ReplayError, ReplayGuard};
use crate::audience::includes_this_host;
use crate::sources::{Pushed, Runner};

/// The longest validity of a token, in seconds. A longer one would be a standing permission.
const VALIDITY_MAX: u64 = 60 * 60;
/// The validity of a token without `exp`, in seconds after its `iat`.
const FRESH: u64 = 5 * 60;
/// How many seconds the clock of the signer may be ahead of that of the host. No token is accepted for as
/// long after a boot, so this is shorter than the minute for manifests. A virtual machine on a busy host
/// may be some seconds behind.
const AHEAD_MAX: u64 = 20;
/// How many seconds after its `exp` a token is stored. [`Claims::check_time`] accepts it for some time, to
/// allow for different clocks.
const STORE_AFTER: u64 = 120;

/// Accepts pushes and runs their Patterns, one at a time.
pub(super) struct Push {
    sources: BTreeMap<String, KeyRing>,
    runner: Runner,
    /// Locked while a Pattern runs.
    accepted: Mutex<ReplayGuard>,
}

/// The times that decide whether a token is accepted, in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The current time.
    pub now: u64,
    /// The start of the kernel.
    pub booted: u64,
}

/// A push that was refused, or could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    /// The path is unknown.
    #[error("not found: push Patterns to /etcha/v1/push/<source>")]
    Path,
    /// The method is not POST.
    #[error("method not allowed: push Patterns with POST")]
    Method,
    /// The source is not configured.
    #[error("\"listen\" of the configuration has no source {0:?}")]
    Source(String),
    /// The body cannot be read.
    #[error("cannot read the body: {0}")]
    Body(String),
    /// The body is too large.
    #[error("the body is larger than the limit of {} bytes", protocol::token::TOKEN_MAX)]
    TooLarge,
    /// The token is malformed or not signed by this source.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is not valid at this time.
    #[error("the token is not valid: {0}")]
    Time(#[from] TimeError),
    /// The token is valid, but not as a push.
    #[error("the token is not acceptable: {0}")]
    Claims(&'static str),
    /// The token may have been accepted before the reboot.
    #[error(
        "the token was issued less than {AHEAD_MAX} s after the host booted, or before, so it may have been pushed before the reboot: sign a new one"
    )]
    BeforeBoot,
    /// The token was accepted before, or cannot be stored.
    #[error("the token is not acceptable: {0}")]
    Replay(#[from] ReplayError),
    /// The query of the URL has something that is not supported, although it may exclude Commands.
    #[error(
        "the query {0:?} is not supported, and nothing was run: expected \"?check\" or \"?filter=REGEX\""
    )]
    Query(String),
    /// The filter in the query of the URL cannot be used.
    #[error("the filter in the query {0}, and nothing was run")]
    Filter(String),
    /// The URL has a fragment, which may hide a query.
    #[error(
        "the URL has a fragment (\"#\" and what follows), which is not supported, and nothing was run"
    )]
    Fragment,
    /// The token has no valid Pattern.
    #[error("{0}")]
    Pattern(String),
    /// Another push is running.
    #[error("another Pattern is running: push again when it has ended")]
    AnotherRuns,
    /// A Command could not be started.
    #[error("{0}")]
    Run(String),
}

impl PushError {
    /// Returns the status of the response. Etcha's client knows 404 and 429; see [`answer`] about the others.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            // The body of a push is read only if its source exists, which Etcha does not tell apart either.
            Self::Path | Self::Source(_) => StatusCode::NOT_FOUND,
            Self::Token(error) if !error.has_valid_signature() => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(_)
            | Self::Pattern(_)
            | Self::Token(_)
            | Self::Query(_)
            | Self::Filter(_)
            | Self::Fragment => StatusCode::BAD_REQUEST,
            // RFC 8470 section 5.2: the server is unwilling to risk a replay. Another token will be accepted.
            Self::BeforeBoot => StatusCode::TOO_EARLY,
            Self::Replay(ReplayError::File { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Replay(ReplayError::Full) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Time(_) | Self::Claims(_) | Self::Replay(ReplayError::Repeated) => {
                StatusCode::UNAUTHORIZED
            }
            Self::AnotherRuns => StatusCode::CONFLICT,
            Self::Run(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Push {
    /// Creates an instance with the keys of each source and the tokens that were accepted before.
    pub(super) fn new(
        sources: BTreeMap<String, KeyRing>,
        runner: Runner,
        accepted: ReplayGuard,
    ) -> Self {
        Self { sources, runner, accepted: Mutex::new(accepted) }
    }

    /// Returns the keys of a source.
    ///
    /// # Errors
    /// Fails if the source is not configured.
    pub(super) fn key_ring(&self, source: &str) -> Result<&KeyRing, PushError> {
        let unknown = || PushError::Source(source.chars().take(64).collect());
        self.sources.get(source).ok_or_else(unknown)
    }

    /// Verifies a token, runs its Pattern as far as the query allows, and returns the status and the body of the
    /// response.
    pub(super) fn run(
        &self,
        source: &str,
        token: &str,
        query: &Query,
        clock: Clock,
    ) -> Result<(StatusCode, String), PushError> {
        let claims = verify(token, self.key_ring(source)?)?;
        let until = acceptable(&claims, clock)?;
        let mode = match query.check {
            true => Mode::Check,
            false => claims.etchaos_mode.unwrap_or(Mode::Change),
        };
        if claims.etcha_pattern.is_none() {
            return Err(PushError::Pattern("the token has no claim etchaPattern".into()));
        }
        // The locks come first: a client that is refused now may push the same token again. A token is used up
        // before its Pattern is rendered, so that nobody who saw it can make the host render it again and again.
        let mut accepted = self.lock()?;
        let turn = self.runner.turn().map_err(|error| PushError::Run(error.to_string()))?;
        let turn = turn.ok_or(PushError::AnotherRuns)?;
        accepted.accept(claims.digest(), until.saturating_add(STORE_AFTER), clock.now)?;
        let pattern = self.runner.render(source, &claims).map_err(PushError::Pattern)?;
        log::info!(source = source, key = claims.key_id(); "running a Pattern of {source}, signed with {}", claims.key_id());
        let (claims, pattern) = (&claims, &pattern);
        let pushed = Pushed { source, token, claims, pattern, mode, filter: query.filter.as_ref() };
        let report = self.runner.push(&turn, &pushed);
        let report = report.map_err(|error| match error {
            RunError::Pattern(error) => PushError::Pattern(error.to_string()),
            RunError::Shell { id, source } => {
                PushError::Run(format!("cannot run the Command {id:?}: {source}"))
            }
        })?;
        log_report(source, &report);
        Ok(answer::ran(mode, &report))
    }

    /// Takes the lock for running a Pattern.
    ///
    /// # Errors
    /// Fails if another Pattern is running.
    fn lock(&self) -> Result<MutexGuard<'_, ReplayGuard>, PushError> {
        match self.accepted.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::WouldBlock) => Err(PushError::AnotherRuns),
            // A panic while a Pattern ran did not change the accepted tokens.
            Err(TryLockError::Poisoned(poisoned)) => Ok(PoisonError::into_inner(poisoned)),
        }
    }
}

/// Checks that a token is recent, short-lived and for this host, and returns its expiry time.
fn acceptable(claims: &Verified<Claims>, clock: Clock) -> Result<u64, PushError> {
    let iat = claims.iat.ok_or(PushError::Claims("a push needs iat"))?;
    let exp = claims.exp.unwrap_or(iat.saturating_add(FRESH));
    let times = Claims { iat: Some(iat), nbf: claims.nbf, exp: Some(exp), ..Claims::default() };
    times.check_time(clock.now)?;
    if iat > clock.now.saturating_add(AHEAD_MAX) {
        return Err(PushError::Claims(
            "its iat is ahead of the clock of this host: check both clocks",
        ));
    }
    if iat <= clock.booted.saturating_add(AHEAD_MAX) {
        return Err(PushError::BeforeBoot);
    }
    if exp.saturating_sub(iat) > VALIDITY_MAX {
        return Err(PushError::Claims("a push must not be valid for more than an hour"));
    }
    if !includes_this_host(&claims.aud) {
        return Err(PushError::Claims(
            "its audience (aud) is neither \"etchaos\" nor the name of this host",
        ));
    }
    if claims.etchaos_release.is_some() {
        return Err(PushError::Claims("it is the manifest of a release and not a push"));
    }
    Ok(exp)
}

fn log_report(source: &str, report: &Report) {
    let failures: Vec<&str> = report.failures().map(|result| result.id.as_str()).collect();
    let (count, changed) = (report.results.len(), report.with_outcome(Outcome::Changed).count());
    match failures.is_empty() {
        true => log::info!(
            source = source;
            "the Pattern of {source} ran: {count} Commands, {changed} changed something"
        ),
        false => log::warn!(source = source; "the Pattern of {source} failed: {failures:?}"),
    }
}

#[cfg(test)]
mod tests;
