//! The release that the CDN offers.

use std::io::Read;

use protocol::claims::{ManifestError, TimeError};
use protocol::release::{Artifact, UrlError, artifact_url};
use protocol::token::{TOKEN_MAX, TokenError, verify};
use protocol::{KeyRing, Manifest, Release, Target, Verified};

use crate::cdn::{Cdn, CdnError, without_query};

/// A release that the CDN offers. It is made by [`fetch`] alone, so whoever holds one holds a
/// manifest that is signed by a trusted key, is valid now and is for the target that was asked for.
#[derive(Debug, Clone)]
pub struct Candidate {
    manifest: Verified<Manifest>,
    token: String,
    url: String,
}

/// A manifest that is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// It could not be had.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// It ended early.
    #[error("the manifest {url} could not be read to its end: {why}")]
    Read {
        /// Its URL.
        url: String,
        /// What the system says.
        why: std::io::Error,
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
    #[error("the manifest {url} is not valid: {why}")]
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
    #[error("the manifest {url} is for {found}, expected {expected}: is the CDN's folder right?")]
    Target {
        /// Its URL.
        url: String,
        /// What was asked for.
        expected: String,
        /// What it is for.
        found: String,
    },
}

/// Gets the manifest for a target below `base` and verifies it. `now` is in Unix seconds.
pub fn fetch(
    cdn: &Cdn,
    base: &str,
    target: &Target,
    keys: &KeyRing,
    now: u64,
) -> Result<Candidate, CandidateError> {
    let url = format!("{base}/{}", target.manifest_name());
    let token = read(cdn, &url)?;
    let claims = verify(&token, keys).map_err(|why| match why.is_trusted() {
        true => CandidateError::Claims { url: without_query(&url), why },
        false => CandidateError::Token { url: without_query(&url), why },
    })?;
    claims.check_time(now).map_err(|why| CandidateError::Time { url: url.clone(), why })?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|why| CandidateError::Manifest { url: url.clone(), why })?;
    let found = manifest.release.target();
    if found != *target {
        let (expected, found) = (target.to_string(), found.to_string());
        return Err(CandidateError::Target { url, expected, found });
    }
    if manifest.release.build == 0 {
        return Err(CandidateError::Unnumbered { url });
    }
    Ok(Candidate { manifest, token, url })
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

    /// Where an artifact of it is.
    pub fn artifact_url(
        &self,
        artifact: &Artifact,
        allowed: &[String],
    ) -> Result<String, UrlError> {
        artifact_url(&self.url, &artifact.url, allowed)
    }
}

fn read(cdn: &Cdn, url: &str) -> Result<String, CandidateError> {
    let body = cdn.open_manifest(url)?;
    let mut bytes = Vec::new();
    // One more than is allowed, so that `verify` can say that it is too long.
    let max = TOKEN_MAX as u64 + 1;
    body.reader
        .take(max)
        .read_to_end(&mut bytes)
        .map_err(|why| CandidateError::Read { url: url.to_owned(), why })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
