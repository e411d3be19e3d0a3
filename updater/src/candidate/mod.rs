//! The newest release on the CDN or on one of its mirrors.

use std::path::Path;

use protocol::claims::TimeError;
use protocol::manifest::ManifestError;
use protocol::release::Artifact;
use protocol::token::{TokenError, verify};
use protocol::url::{UrlError, artifact_url};
use protocol::{KeyRing, Manifest, Release, Target, Verified};

use crate::cdn::{Cdn, CdnError, HTML_HINT, TokenCache, begins_like_html};

/// A release on the CDN. Only [`fetch`] creates one, so its manifest is signed by a trusted key, is valid
/// now, and is for the requested target.
#[derive(Debug, Clone)]
pub struct Candidate {
    manifest: Verified<Manifest>,
    token: String,
    /// The manifest's URLs: first the one that it was downloaded from, then the ones on the other mirrors.
    urls: Vec<String>,
}

/// The release to look for, and where.
#[derive(Debug, Clone, Copy)]
pub struct CandidateRequest<'a> {
    /// The CDN and its mirrors in order of preference: http(s) URLs or absolute directories, without a
    /// trailing slash, a query or credentials.
    pub bases: &'a [String],
    /// The target of the release.
    pub target: &'a Target,
    /// The keys that may sign the manifest.
    pub keys: &'a KeyRing,
    /// The time at which the manifest must be valid, in Unix seconds.
    pub now: u64,
    /// The newest known build. Older builds are rejected. With `None`, every build is accepted.
    pub newest: Option<u64>,
    /// The file that caches manifests, so that an unchanged one is not downloaded again. It need not
    /// survive a reboot.
    pub cache: Option<&'a Path>,
}

/// A failure to get an acceptable manifest.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// The manifest could not be downloaded.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// The server sent an HTML page.
    #[error("the manifest {url} is not a JWT: {HTML_HINT}")]
    Html {
        /// The manifest's URL.
        url: String,
    },
    /// The signature is missing, malformed, or not by a trusted key.
    #[error("the manifest {url} cannot be trusted: {error}")]
    Token {
        /// The manifest's URL.
        url: String,
        /// The reason.
        error: TokenError,
    },
    /// The signature is valid, but the claims are not.
    #[error("the manifest {url} is signed by a trusted key, but cannot be used: {error}")]
    Claims {
        /// The manifest's URL.
        url: String,
        /// The reason.
        error: TokenError,
    },
    /// The claims are not those of a manifest.
    #[error("the manifest {url} cannot be used: {error}")]
    Manifest {
        /// The manifest's URL.
        url: String,
        /// The reason.
        error: ManifestError,
    },
    /// The manifest has expired or is not valid yet.
    #[error("the manifest {url} is not valid: {error}{}", renewal(url, error))]
    Time {
        /// The manifest's URL.
        url: String,
        /// The reason.
        error: TimeError,
    },
    /// The manifest was taken from a disk image.
    #[error(
        "the manifest {url} has build 0, which only the manifest inside a disk image has: that manifest never expires, so a CDN that serves it could keep hosts from updates; publish the release's own manifest, which has its build number"
    )]
    BuildZero {
        /// The manifest's URL.
        url: String,
    },
    /// The manifest is for another target.
    #[error(
        "the manifest {url} is for {found}, expected {expected}: is the CDN's directory right?"
    )]
    Target {
        /// The manifest's URL.
        url: String,
        /// The requested target.
        expected: String,
        /// The manifest's target.
        found: String,
    },
    /// The release is older than the newest known one.
    #[error(
        "the manifest {url} has build {found}, which is older than the known build {newest}: the mirror is out of date, or an old release is being replayed; to install it anyway, use \"update --allow-downgrade\""
    )]
    Older {
        /// The manifest's URL.
        url: String,
        /// The manifest's build.
        found: u64,
        /// The newest known build.
        newest: u64,
    },
    /// There are no bases.
    #[error("no CDN is configured")]
    NoCdn,
    /// None of several bases has an acceptable manifest.
    #[error("no usable manifest on any of the {} CDNs: {}", .0.len(), listed(.0))]
    AllMirrors(Vec<(String, CandidateError)>),
}

/// Returns what to do about an expired manifest. In a directory, the operator has to replace it, because
/// nothing publishes there regularly.
fn renewal(url: &str, error: &TimeError) -> &'static str {
    match error {
        TimeError::Expired { .. } if !url.contains("://") => {
            ": copy the publisher's newest manifest into this directory (if it is for the same release, no other file is needed); the installed release keeps running"
        }
        TimeError::Expired { .. } => "; the installed release keeps running",
        TimeError::NoExpiry | TimeError::NotYetValid { .. } => "",
    }
}

fn listed(errors: &[(String, CandidateError)]) -> String {
    let errors: Vec<String> =
        errors.iter().map(|(base, error)| format!("[{base}] {error}")).collect();
    errors.join("; ")
}

/// Downloads the manifest from the first base that has an acceptable one.
///
/// Skips, with a warning, a base that is not reachable, or whose manifest is not signed by a trusted key,
/// not valid now, for another target, or older than the newest known build. Sends no request to the bases
/// after the first acceptable one. A mirror that is out of date can therefore delay an update until its
/// manifest expires, but it cannot cause a downgrade.
///
/// Fails if no base has an acceptable manifest.
pub fn fetch(cdn: &Cdn, request: &CandidateRequest<'_>) -> Result<Candidate, CandidateError> {
    let mut cache = TokenCache::read(request.cache);
    let mut errors = Vec::new();
    for base in request.bases {
        match fetch_one(cdn, base, request, &mut cache) {
            Ok(candidate) => return Ok(candidate),
            Err(error) => {
                if request.bases.len() > 1 {
                    log::warn!("skipping {base}: {error}");
                }
                errors.push((base.clone(), error));
            }
        }
    }
    // With a single base, its error needs no list around it.
    match errors.len() {
        0 | 1 => Err(errors.pop().map_or(CandidateError::NoCdn, |(_, error)| error)),
        _ => Err(CandidateError::AllMirrors(errors)),
    }
}

fn fetch_one(
    cdn: &Cdn,
    base: &str,
    request: &CandidateRequest<'_>,
    cache: &mut TokenCache,
) -> Result<Candidate, CandidateError> {
    let urls = request.urls_from(base);
    let url = urls.first().cloned().unwrap_or_default();
    let accept = |token: &str| accept(&url, token, request);
    let (manifest, token) = cache.fetch(cdn, &url, request.cache, accept)?;
    Ok(Candidate { manifest, token, urls })
}

/// Verifies a manifest, which may come from a server or from the cache.
fn accept(
    url: &str,
    token: &str,
    request: &CandidateRequest<'_>,
) -> Result<Verified<Manifest>, CandidateError> {
    let url = || url.to_owned();
    if begins_like_html(token.as_bytes()) {
        return Err(CandidateError::Html { url: url() });
    }
    let claims =
        verify(token, request.keys).map_err(|error| match error.has_valid_signature() {
            true => CandidateError::Claims { url: url(), error },
            false => CandidateError::Token { url: url(), error },
        })?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|error| CandidateError::Manifest { url: url(), error })?;
    let found = manifest.release.target();
    if found != *request.target {
        let (expected, found) = (request.target.to_string(), found.to_string());
        return Err(CandidateError::Target { url: url(), expected, found });
    }
    let build = manifest.release.build;
    if build == 0 {
        return Err(CandidateError::BuildZero { url: url() });
    }
    manifest.check_time(request.now).map_err(|error| CandidateError::Time { url: url(), error })?;
    match request.newest {
        Some(newest) if build < newest => {
            Err(CandidateError::Older { url: url(), found: build, newest })
        }
        _ => Ok(manifest),
    }
}

impl CandidateRequest<'_> {
    /// Returns the manifest's URLs, beginning with the one below the base `first`.
    fn urls_from(&self, first: &str) -> Vec<String> {
        let others = self.bases.iter().map(String::as_str).filter(|base| *base != first);
        let name = self.target.manifest_name();
        [first].into_iter().chain(others).map(|base| format!("{base}/{name}")).collect()
    }
}

impl Candidate {
    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the release.
    pub fn release(&self) -> &Release {
        &self.manifest.release
    }

    /// Returns the id of the key that signed the manifest.
    pub fn key_id(&self) -> &str {
        self.manifest.key_id()
    }

    /// Returns the signed manifest.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the base that the manifest was downloaded from.
    pub fn base(&self) -> &str {
        let manifest = self.urls.first().map_or("", String::as_str);
        manifest.rsplit_once('/').map_or(manifest, |(base, _)| base)
    }

    /// Returns the URLs of an artifact: first the one next to the manifest, then those on the other
    /// mirrors in order. Any of them may be used, because the artifact's digest is verified. Fails if the
    /// first URL is not allowed.
    pub fn artifact_urls(
        &self,
        artifact: &Artifact,
        allowed: &[String],
    ) -> Result<Vec<String>, UrlError> {
        let mut urls = self.urls.iter().map(|at| artifact_url(at, &artifact.url, allowed));
        let first = urls.next().transpose()?;
        let mut allowed_urls: Vec<String> = first.into_iter().collect();
        // An absolute URL may have the origin of one mirror only.
        for url in urls.flatten() {
            if !allowed_urls.contains(&url) {
                allowed_urls.push(url);
            }
        }
        Ok(allowed_urls)
    }
}
