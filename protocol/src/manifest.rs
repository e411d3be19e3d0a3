//! The manifest of a release: the claims of a token that describes one.

use crate::claims::{Claims, TimeError};
use crate::release::{Release, ReleaseError};

/// The claims of a token with a valid `etchaosRelease`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The release. It has passed [`Release::validate`].
    pub release: Release,
    /// All claims of the token.
    pub claims: Claims,
}

impl Manifest {
    /// Checks that a manifest from a CDN is valid at `now`, in Unix seconds; see
    /// [`effective_time`](crate::claims::effective_time).
    ///
    /// # Errors
    /// Fails as [`Claims::check_time`] does, and if the manifest has no expiry time. Do not call
    /// this for an installed manifest: the one inside a disk image never expires.
    pub fn check_time(&self, now: u64) -> Result<(), TimeError> {
        match self.claims.exp {
            None => Err(TimeError::NoExpiry),
            Some(_) => self.claims.check_time(now),
        }
    }
}

impl TryFrom<Claims> for Manifest {
    type Error = ManifestError;

    fn try_from(claims: Claims) -> Result<Self, ManifestError> {
        let release = claims.etchaos_release.clone().ok_or(ManifestError::NotAManifest)?;
        release.validate()?;
        Ok(Self { release, claims })
    }
}

/// Why a token is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The claim `etchaosRelease` is missing.
    #[error("the token has no claim \"etchaosRelease\": it is not a manifest")]
    NotAManifest,
    /// The claim describes an invalid release.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_an_expiry_time() {
        let manifest = |exp| Manifest {
            release: Release::example(),
            claims: Claims { exp, ..Claims::default() },
        };
        assert_eq!(manifest(Some(1000)).check_time(1000), Ok(()));
        assert!(matches!(manifest(Some(1000)).check_time(1060), Err(TimeError::Expired { .. })));
        assert_eq!(manifest(None).check_time(1000), Err(TimeError::NoExpiry));
    }
}
