//! Pulls the Patterns of sources. This part runs in a sandbox, and hands tokens over in files, so what is in
//! these files is verified again before it is run.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

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

/// Pulls the Patterns of the sources that are due, or of `all`, and records the results. Returns them by the names of the sources.
pub(crate) fn pull(
    host: &Host,
    cdn: &Cdn,
    sources: &BTreeMap<String, PatternSource>,
    kept: &BTreeMap<String, Found>,
    all: bool,
    now: u64,
) -> BTreeMap<String, PullResult> {
    let facts = Facts::of(host, now);
    let runs = record::read::<SourceRuns>(host).unwrap_or_default();
    let mut pulls = record::read::<Pulls>(host).unwrap_or_default();
    pulls.sources.retain(|name, _| sources.contains_key(name));
    let is_due = |name: &String| all || runs.sources.get(name).is_none_or(|run| run.next <= now);
    for (name, source) in
        sources.iter().filter(|(name, source)| !source.pull.is_empty() && is_due(name))
    {
        let empty = Kept::new(name);
        let kept = kept.get(name).map_or(&empty, |found| &found.kept);
        let fetched = fetch(host, cdn, source, kept, &facts);
        let result = fetched.and_then(|token| {
            hand_over(host, name, &token)
                .map_err(|error| format!("cannot store the Pattern: {error}"))
        });
        if let Err(error) = &result {
            log::warn!(source = name.as_str(); "the source {name}: {error}");
        }
        let result = PullResult::new(now, result.as_ref().err().map(String::as_str));
        pulls.sources.insert(name.clone(), result);
    }
    record::write(host, &pulls);
    pulls.sources
}

/// Returns the first acceptable token of the URLs, or the errors of all of them.
fn fetch(
    host: &Host,
    cdn: &Cdn,
    source: &PatternSource,
    kept: &Kept,
    facts: &Facts,
) -> Result<String, String> {
    let file = host.path(RUN).join(CACHE);
    let mut cache = TokenCache::read(Some(&file));
    let mut errors = Vec::new();
    for url in &source.pull {
        let accept = |token: &str| facts.accept(url, token, source, kept);
        match cache.fetch(cdn, url, Some(&file), accept) {
            Ok((_, token)) => return Ok(token),
            // The Pattern that was pushed last stays in force until a newer one is published.
            Err(PullError::Refused { error: Refusal::Older { .. }, .. })
                if kept
                    .pattern
                    .current
                    .as_ref()
                    .is_some_and(|current| current.from == Way::Push) =>
            {
                let current = kept.pattern.current.as_ref();
                return Ok(current.map(|current| current.token.clone()).unwrap_or_default());
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    Err(errors.join("; "))
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
