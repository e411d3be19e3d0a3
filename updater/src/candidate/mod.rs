//! The release that the CDN offers, or one of its mirrors.

mod cache;

use std::path::Path;

use protocol::claims::TimeError;
use protocol::manifest::ManifestError;
use protocol::release::Artifact;
use protocol::token::{TOKEN_MAX, TokenError, verify};
use protocol::url::{UrlError, artifact_url};
use protocol::{KeyRing, Manifest, Release, Target, Verified};

use self::cache::Cache;
use crate::cdn::{Answered, Cdn, CdnError, HTML, begins_like_html};

/// A release that the CDN offers. It is made by [`fetch`] alone, so whoever holds one holds a
/// manifest that is signed by a trusted key, is valid now and is for the target that was asked for.
#[derive(Debug, Clone)]
pub struct Candidate {
    manifest: Verified<Manifest>,
    token: String,
    /// Where it was found, and below the other bases, in order.
    urls: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The CDN and its mirrors, the best first: http(s) URLs or absolute directories, without a slash at
    /// the end, a query or credentials.
    pub bases: &'a [String],
    /// For whom.
    pub target: &'a Target,
    /// Who may sign.
    pub keys: &'a KeyRing,
    /// Unix seconds.
    pub now: u64,
    /// The newest build that was ever seen; an older one is refused. `None`: every one will do.
    pub newest: Option<u64>,
    /// Where to remember manifests, so that an unchanged one is not downloaded again. It need not
    /// survive a reboot.
    pub cache: Option<&'a Path>,
}

/// A manifest that is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// It could not be had.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// It is a page for people.
    #[error("the manifest {url} is not a JWT: {HTML}")]
    Html {
        /// Its URL.
        url: String,
    },
    /// Nobody that we trust says so.
    #[error("the manifest {url} is not to be trusted: {why}")]
    Token {
        /// Its URL.
        url: String,
        /// Why.
        why: TokenError,
    },
    /// Somebody that we trust signed it, and it says nothing that we understand.
    #[error("the manifest {url} is signed by a trusted key, and not usable: {why}")]
    Claims {
        /// Its URL.
        url: String,
        /// Why.
        why: TokenError,
    },
    /// It is no manifest.
    #[error("the manifest {url} is not usable: {why}")]
    Manifest {
        /// Its URL.
        url: String,
        /// Why.
        why: ManifestError,
    },
    /// It is not valid now.
    #[error("the manifest {url} is not valid: {why}{}", renewal(url, why))]
    Time {
        /// Its URL.
        url: String,
        /// Why.
        why: TimeError,
    },
    /// It is one of a disk image.
    #[error(
        "the manifest {url} has build 0, which only the manifest inside a disk image has: that one never expires, so a CDN that offers it could keep hosts from updates; publish the release's own manifest, with its build number"
    )]
    Unnumbered {
        /// Its URL.
        url: String,
    },
    /// It is for another host.
    #[error(
        "the manifest {url} is for {found}, expected {expected}: is the CDN's directory right?"
    )]
    Target {
        /// Its URL.
        url: String,
        /// What was asked for.
        expected: String,
        /// What it is for.
        found: String,
    },
    /// It is older than one that was seen before.
    #[error(
        "the manifest {url} has build {found}, which is older than build {newest} that was seen before: this mirror is behind, or somebody replays an old release; \"update --allow-downgrade\" takes it"
    )]
    Older {
        /// Its URL.
        url: String,
        /// Its build.
        found: u64,
        /// The newest build that was seen.
        newest: u64,
    },
    /// Nobody was asked.
    #[error("no CDN is configured")]
    Nobody,
    /// None of several has one.
    #[error("none of the {} CDNs has a usable manifest: {}", .0.len(), listed(.0))]
    None(Vec<(String, CandidateError)>),
}

/// Where the CDN is a directory, nobody publishes there but who is told this.
fn renewal(url: &str, why: &TimeError) -> &'static str {
    match why {
        TimeError::Expired { .. } if !url.contains("://") => {
            ": copy the publisher's newest manifest into this directory (for the same release it is all that is needed); what is installed goes on"
        }
        TimeError::Expired { .. } => "; what is installed goes on",
        TimeError::NoExpiry | TimeError::NotYetValid { .. } => "",
    }
}

fn listed(reasons: &[(String, CandidateError)]) -> String {
    let reasons: Vec<String> =
        reasons.iter().map(|(base, why)| format!("[{base}] {why}")).collect();
    reasons.join("; ")
}

/// Gets the manifest from the first base that has an acceptable one.
///
/// A base that is not reached, or whose manifest is not signed by a trusted key, not valid now, for
/// another target or older than what was seen before, is skipped and named in a warning. Bases after
/// the first acceptable one are not asked: a mirror that stays behind delays an update until its
/// manifest expires, and cannot undo one.
pub fn fetch(cdn: &Cdn, wanted: &Wanted<'_>) -> Result<Candidate, CandidateError> {
    let mut cache = Cache::read(wanted.cache);
    let mut reasons = Vec::new();
    for base in wanted.bases {
        match fetch_one(cdn, base, wanted, &mut cache) {
            Ok(candidate) => return Ok(candidate),
            Err(why) => {
                if wanted.bases.len() > 1 {
                    log::warn!("{base} is skipped: {why}");
                }
                reasons.push((base.clone(), why));
            }
        }
    }
    // Of a single one the reason says everything.
    match reasons.len() {
        0 | 1 => Err(reasons.pop().map_or(CandidateError::Nobody, |(_, why)| why)),
        _ => Err(CandidateError::None(reasons)),
    }
}

fn fetch_one(
    cdn: &Cdn,
    base: &str,
    wanted: &Wanted<'_>,
    cache: &mut Cache,
) -> Result<Candidate, CandidateError> {
    let urls = wanted.urls_from(base);
    let url = urls.first().cloned().unwrap_or_default();
    // What would not be acceptable is not asked about, so an answer of "unchanged" is always of use.
    let known = cache.get(&url).and_then(|entry| {
        let manifest = accept(&url, &entry.token, wanted).ok()?;
        Some((manifest, entry.clone()))
    });
    let unless = known.as_ref().map(|(_, entry)| &entry.validators);
    let (manifest, token) = match (cdn.manifest(&url, TOKEN_MAX, unless)?, known) {
        (Answered::Unchanged, Some((manifest, entry))) => (manifest, entry.token),
        // Never so: nobody was asked.
        (Answered::Unchanged, None) => return Err(CdnError::unexpected(url, 304).into()),
        (Answered::Changed { bytes, validators }, _) => {
            if begins_like_html(&bytes) {
                return Err(CandidateError::Html { url });
            }
            let token = String::from_utf8_lossy(&bytes).into_owned();
            let manifest = accept(&url, &token, wanted)?;
            cache.put(&url, validators, &token);
            cache.write(wanted.cache);
            (manifest, token)
        }
    };
    Ok(Candidate { manifest, token, urls })
}

/// Everything that must hold of a manifest, wherever it comes from.
fn accept(
    url: &str,
    token: &str,
    wanted: &Wanted<'_>,
) -> Result<Verified<Manifest>, CandidateError> {
    let url = || url.to_owned();
    let claims = verify(token, wanted.keys).map_err(|why| match why.has_valid_signature() {
        true => CandidateError::Claims { url: url(), why },
        false => CandidateError::Token { url: url(), why },
    })?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|why| CandidateError::Manifest { url: url(), why })?;
    let found = manifest.release.target();
    if found != *wanted.target {
        let (expected, found) = (wanted.target.to_string(), found.to_string());
        return Err(CandidateError::Target { url: url(), expected, found });
    }
    let build = manifest.release.build;
    if build == 0 {
        return Err(CandidateError::Unnumbered { url: url() });
    }
    manifest.check_time(wanted.now).map_err(|why| CandidateError::Time { url: url(), why })?;
    match wanted.newest {
        Some(newest) if build < newest => {
            Err(CandidateError::Older { url: url(), found: build, newest })
        }
        _ => Ok(manifest),
    }
}

impl Wanted<'_> {
    /// The manifest's URLs, the one below `first` first.
    fn urls_from(&self, first: &str) -> Vec<String> {
        let others = self.bases.iter().map(String::as_str).filter(|base| *base != first);
        let name = self.target.manifest_name();
        [first].into_iter().chain(others).map(|base| format!("{base}/{name}")).collect()
    }
}

impl Candidate {
    /// What the release is.
    pub fn release(&self) -> &Release {
        &self.manifest.release
    }

    /// The id of the key that signed it.
    pub fn key_id(&self) -> &str {
        self.manifest.key_id()
    }

    /// The manifest as it was signed.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The base that offered it: the CDN, or one of its mirrors.
    pub fn base(&self) -> &str {
        let manifest = self.urls.first().map_or("", String::as_str);
        manifest.rsplit_once('/').map_or(manifest, |(base, _)| base)
    }

    /// Where an artifact of it is: beside the manifest first, then at the other mirrors in order.
    /// Which bytes are right its digest says, so it does not matter which one they come from.
    pub fn sources(
        &self,
        artifact: &Artifact,
        allowed: &[String],
    ) -> Result<Vec<String>, UrlError> {
        let mut urls = self.urls.iter().map(|at| artifact_url(at, &artifact.url, allowed));
        let home = urls.next().transpose()?;
        let mut sources: Vec<String> = home.into_iter().collect();
        // An absolute URL may be at home here and not there.
        for url in urls.flatten() {
            if !sources.contains(&url) {
                sources.push(url);
            }
        }
        Ok(sources)
    }
}
