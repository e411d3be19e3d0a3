//! A pushed token: who sent it, is it new, and what came of it.
//!
//! No token is taken twice. [`Seen`] remembers those of this boot. Those of an earlier one are told by
//! their age: a token is taken only while its `iat` is at most [`AHEAD_MAX`] ahead of the clock, so
//! what was taken before a reboot was issued before the boot and that much more. All that this asks of
//! the clock is that a reboot does not set it back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use hyper::StatusCode;
use protocol::claims::TimeError;
use protocol::pattern::{Mode, Report, RunError, run};
use protocol::token::{TokenError, verify};
use protocol::{Claims, KeyRing, Verified};

use super::seen::{Seen, SeenError};
use crate::shell::Bounded;

/// A token that is valid for longer is a standing permission, and not a push.
const VALID_MAX: u64 = 60 * 60;
/// How many seconds the signer's clock may be ahead of the host's. As long as that after a boot no
/// token is taken, so it is not the minute that manifests have; a virtual machine on a busy host may
/// be some seconds behind.
const AHEAD_MAX: u64 = 20;
/// How long after its end a token is still taken, for the clocks' sake; see [`Claims::check_time`].
const REMEMBER_AFTER: u64 = 120;
/// The audience of everything that is for EtchaOS.
const AUDIENCE: &str = "etchaos";

/// Takes pushes, one at a time.
pub struct Push {
    sources: BTreeMap<String, KeyRing>,
    /// Held while a Pattern runs.
    seen: Mutex<Seen>,
}

/// The time, in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Now.
    pub now: u64,
    /// When the kernel was started.
    pub booted: u64,
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
    /// Perhaps taken before the last reboot.
    #[error(
        "the token was issued before this host was up for {AHEAD_MAX} s, so it may have been pushed before the reboot: sign a new one"
    )]
    BeforeBoot,
    /// Taken before, or it cannot be told.
    #[error("the token is not acceptable: {0}")]
    Seen(#[from] SeenError),
    /// A check that is asked for by the URL, and not by the token.
    #[error(
        "\"?check=true\" is not signed, so anybody on the way could take it off: sign the claim \"etchaosMode\": \"check\""
    )]
    UnsignedCheck,
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
            Self::Body(_) | Self::Pattern(_) | Self::UnsignedCheck => StatusCode::BAD_REQUEST,
            // RFC 8470 section 5.2: the host does not risk a replay, and another token will do.
            Self::BeforeBoot => StatusCode::TOO_EARLY,
            Self::Seen(SeenError::File { .. }) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Seen(SeenError::Full) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Token(error) if error.has_valid_signature() => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Token(_) | Self::Time(_) | Self::Claims(_) | Self::Seen(SeenError::Again) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Busy => StatusCode::CONFLICT,
            Self::Run(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Push {
    /// Who may push, and what was pushed before.
    pub fn new(sources: BTreeMap<String, KeyRing>, seen: Seen) -> Self {
        Self { sources, seen: Mutex::new(seen) }
    }

    /// Whether a source is configured.
    pub fn knows(&self, source: &str) -> Result<&KeyRing, PushError> {
        let unknown = || PushError::Source(source.chars().take(64).collect());
        self.sources.get(source).ok_or_else(unknown)
    }

    /// Verifies a token, runs its Pattern as the token says, and gives the report in JSON. `check`:
    /// the sender expects that nothing is changed.
    pub fn run(
        &self,
        source: &str,
        token: &str,
        check: bool,
        clock: Clock,
    ) -> Result<String, PushError> {
        let claims = verify(token, self.knows(source)?)?;
        let id = acceptable(&claims, clock)?;
        let mode = claims.etchaos_mode.unwrap_or(Mode::Change);
        if check && mode != Mode::Check {
            return Err(PushError::UnsignedCheck);
        }
        let files = claims.etcha_pattern.as_ref();
        let files =
            files.ok_or(PushError::Pattern("the token has no claim etchaPattern".into()))?;
        let pattern = files.pattern().map_err(|error| PushError::Pattern(error.to_string()))?;
        // Before it is remembered: who is turned away may push the same token again.
        let mut seen = self.alone()?;
        seen.take(claims.key_id(), id.jti, id.exp.saturating_add(REMEMBER_AFTER), clock.now)?;
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

    /// One Pattern runs at a time.
    fn alone(&self) -> Result<MutexGuard<'_, Seen>, PushError> {
        match self.seen.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::WouldBlock) => Err(PushError::Busy),
            // A Command that panicked has changed nothing of what was seen.
            Err(TryLockError::Poisoned(poisoned)) => Ok(PoisonError::into_inner(poisoned)),
        }
    }
}

/// What tells a token from all others.
struct Id<'a> {
    jti: &'a str,
    exp: u64,
}

/// Only a token that is new, short-lived and for us is a push.
fn acceptable(claims: &Verified<Claims>, clock: Clock) -> Result<Id<'_>, PushError> {
    let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
        return Err(PushError::Claims("a push needs iat and exp"));
    };
    claims.check_time(clock.now)?;
    if iat > clock.now.saturating_add(AHEAD_MAX) {
        return Err(PushError::Claims("its iat is ahead of this host's clock: are both right?"));
    }
    if iat <= clock.booted.saturating_add(AHEAD_MAX) {
        return Err(PushError::BeforeBoot);
    }
    if exp.saturating_sub(iat) > VALID_MAX {
        return Err(PushError::Claims("a push is valid for an hour at most"));
    }
    let jti = claims.jti.as_deref().filter(|jti| !jti.is_empty());
    let jti = jti.ok_or(PushError::Claims("a push needs a jti that no other one has"))?;
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    let is_ours = |aud: &String| aud == AUDIENCE || hostname.to_str() == Some(aud);
    if !claims.aud.is_empty() && !claims.aud.iter().any(is_ours) {
        return Err(PushError::Claims("its audience is neither \"etchaos\" nor this host's name"));
    }
    if claims.etchaos_release.is_some() {
        return Err(PushError::Claims("it is the manifest of a release, and not a push"));
    }
    Ok(Id { jti, exp })
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
mod tests;
