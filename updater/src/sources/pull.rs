//! Pulls the Patterns of sources. This part runs in a sandbox, and hands tokens over in files, so what is in
//! these files is verified again before it is run.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::claims::effective_time;
use protocol::token::{TOKEN_MAX, TokenError, verify};
use protocol::{Claims, Verified, digest};

use super::accept::{Refusal, acceptable};
use super::kept::{Kept, Way};
use super::results::{PullResult, Pulls, SourceRuns};
use super::store::Found;
use crate::cdn::{Cdn, CdnError, HTML_HINT, TokenCache, begins_like_html};
use crate::config::PatternSource;
use crate::esp::RUN;
use crate::host::{Host, read_limited};
use crate::record;

/// The cache of tokens, in the directory of the updater.
const CACHE: &str = "pull-cache";
/// The directory of pulled tokens there.
const PULLED: &str = "pulled";

/// How long after the start the last request begins. Kept Patterns wait for the pull, and a host on trial has to be
/// healthy within 15 minutes (`health.deadline`). A request may take four minutes, with its retries.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A Pattern that was not pulled.
#[derive(Debug, thiserror::Error)]
enum PullError {
    /// It could not be downloaded.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// The server sent an HTML page.
    #[error("the Pattern {url} is not a JWT: {HTML_HINT}")]
    Html { url: String },
    /// The signature is missing, malformed, or not by a key of the source.
    #[error("the Pattern {url} cannot be trusted: {error}")]
    Token { url: String, error: TokenError },
    /// The token is signed by a key of the source, and not acceptable.
    #[error("the Pattern {url} is not accepted: {error}")]
    Refused { url: String, error: Refusal },
}

/// The times and names on which the decision about a token depends.
pub(super) struct Facts {
    /// The time in Unix seconds, at least that of the image.
    pub(super) now: u64,
    /// The name of this host.
    pub(super) hostname: Option<String>,
}

impl Facts {
    pub(super) fn of(host: &Host, now: u64) -> Self {
        let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self { now: effective_time(now, host.image_epoch()), hostname }
    }

    /// Verifies a token that was pulled, and checks whether it may replace what is kept.
    fn accept(
        &self,
        url: &str,
        token: &str,
        source: &PatternSource,
        kept: &Kept,
    ) -> Result<Verified<Claims>, PullError> {
        let url = || url.to_owned();
        if begins_like_html(token.as_bytes()) {
            return Err(PullError::Html { url: url() });
        }
        let claims =
            verify(token, &source.keys).map_err(|error| PullError::Token { url: url(), error })?;
        acceptable(token, &claims, kept, self.hostname.as_deref(), self.now)
            .map_err(|error| PullError::Refused { url: url(), error })?;
        Ok(claims)
    }
}

/// Pulls Patterns for a limited time.
pub(crate) struct Puller<'a> {
    host: &'a Host,
    cdn: &'a Cdn,
    facts: Facts,
    now: u64,
    /// No request begins later.
    until: Instant,
}

impl<'a> Puller<'a> {
    /// `now` is the time in Unix seconds.
    pub(crate) fn new(host: &'a Host, cdn: &'a Cdn, now: u64) -> Self {
        Self::with_timeout(host, cdn, now, TIMEOUT)
    }

    fn with_timeout(host: &'a Host, cdn: &'a Cdn, now: u64, timeout: Duration) -> Self {
        Self { host, cdn, facts: Facts::of(host, now), now, until: Instant::now() + timeout }
    }

    /// Pulls the Patterns of the sources that are due, or of `all`, and records the results. Returns them by the names
    /// of the sources.
    pub(crate) fn pull(
        &self,
        sources: &BTreeMap<String, PatternSource>,
        kept: &BTreeMap<String, Found>,
        all: bool,
    ) -> BTreeMap<String, PullResult> {
        let runs = record::read::<SourceRuns>(self.host).unwrap_or_default();
        let mut pulls = record::read::<Pulls>(self.host).unwrap_or_default();
        pulls.sources.retain(|name, _| sources.contains_key(name));
        let is_due =
            |name: &String| all || runs.sources.get(name).is_none_or(|run| run.is_due(self.now));
        let mut due: Vec<_> = sources
            .iter()
            .filter(|(name, source)| !source.pull.is_empty() && is_due(name))
            .collect();
        // If the time is not enough for all, the others are the first ones in the next run.
        due.sort_by_key(|(name, _)| pulls.sources.get(*name).map(|pull| pull.time));
        for (name, source) in due {
            if self.is_late() {
                log::warn!(source = name.as_str(); "the source {name} is pulled later: the servers of other sources did not answer in time");
                continue;
            }
            let result = self.pull_one(name, source, kept.get(name));
            if let Err(error) = &result {
                log::warn!(source = name.as_str(); "the source {name}: {error}");
            }
            let result = PullResult::new(self.now, result.as_ref().err().map(String::as_str));
            pulls.sources.insert(name.clone(), result);
        }
        record::write(self.host, &pulls);
        pulls.sources
    }

    fn pull_one(
        &self,
        name: &str,
        source: &PatternSource,
        found: Option<&Found>,
    ) -> Result<(), String> {
        let nothing = Kept::new(name);
        let kept = found.map_or(&nothing, |found| &found.kept);
        let Some(token) = self.fetch(source, kept)? else { return Ok(()) };
        hand_over(self.host, name, &token)
            .map_err(|error| format!("cannot store the Pattern: {error}"))
    }

    /// Returns the first acceptable token of the URLs, or the errors of all of them. Returns `None` if a Pattern was
    /// pushed last, which stays in force until a newer one is published.
    fn fetch(&self, source: &PatternSource, kept: &Kept) -> Result<Option<String>, String> {
        let file = self.host.path(RUN).join(CACHE);
        let mut cache = TokenCache::read(Some(&file));
        let current = kept.pattern.current.as_ref();
        let is_pushed = current.is_some_and(|current| current.from == Way::Push);
        let mut errors = Vec::new();
        for url in &source.pull {
            if self.is_late() {
                errors.push(format!("there was no time left for {url}"));
                break;
            }
            let accept = |token: &str| self.facts.accept(url, token, source, kept);
            match cache.fetch(self.cdn, url, Some(&file), accept) {
                Ok((_, token)) => return Ok(Some(token)),
                Err(PullError::Refused { error: Refusal::Older { .. }, .. }) if is_pushed => {}
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() { Ok(None) } else { Err(errors.join("; ")) }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}

fn path(host: &Host, source: &str) -> PathBuf {
    let name = digest::of_bytes(source.as_bytes());
    host.path(RUN).join(PULLED).join(format!("{name:.16}.jwt"))
}

/// Stores a token for [`pulled`]. It is not flushed, because `/run` is in memory.
fn hand_over(host: &Host, source: &str, token: &str) -> io::Result<()> {
    let path = path(host, source);
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, token)?;
    std::fs::rename(new, path)
}

/// Returns the token that was pulled for a source, if it may replace what is kept.
pub(super) fn pulled(
    host: &Host,
    name: &str,
    source: &PatternSource,
    kept: &Kept,
    facts: &Facts,
) -> Option<(String, Verified<Claims>)> {
    let bytes = read_limited(&path(host, name), TOKEN_MAX as u64).ok().flatten()?;
    let token = String::from_utf8(bytes).ok()?;
    if kept.pattern.current.as_ref().is_some_and(|current| current.token == token) {
        return None;
    }
    // Why a token is refused was reported when it was pulled.
    let claims = facts.accept("that was pulled", &token, source, kept);
    claims.inspect_err(|error| log::debug!("{error}")).ok().map(|claims| (token, claims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdn::Timeouts;
    use crate::config::Network;

    /// Returns the names of the sources that were requested, although their servers do not exist.
    fn requested(host: &Host, timeout: Duration) -> Vec<String> {
        let cdn = Cdn::new(&Network::default(), &[], Timeouts::default()).unwrap();
        let source = |name: &str| {
            let pull =
                vec![format!("/nonexistent/{name}.jwt"), format!("/nonexistent/{name}.2.jwt")];
            (name.to_owned(), PatternSource { pull, ..PatternSource::default() })
        };
        let sources = ["a", "b"].map(source).into();
        let pulls =
            Puller::with_timeout(host, &cdn, 100, timeout).pull(&sources, &BTreeMap::new(), true);
        pulls.into_iter().filter(|(_, pull)| pull.time == 100).map(|(name, _)| name).collect()
    }

    #[test]
    fn servers_that_do_not_answer_do_not_delay_the_sources_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        std::fs::create_dir(directory.path().join("run")).unwrap();
        assert!(requested(&host, Duration::ZERO).is_empty());
        assert_eq!(requested(&host, TIMEOUT), ["a", "b"]);
    }
}
