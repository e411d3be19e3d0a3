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

    /// Returns whether this release was published before `other`. Releases of different targets
    /// have no order.
    ///
    /// Build numbers are compared. The manifest inside a disk image has build 0 and no date, but all
    /// packages in the image are older than the manifest of any later release. Therefore a published
    /// release is older than an image if its manifest was signed (`iat`) before the image's epoch.
    /// The epoch of the published release does not count: without the newest package, a later
    /// release has an earlier epoch. If the published manifest has no `iat`, or neither release is
    /// published, the epochs are compared.
    pub fn is_older_than(&self, other: &Self) -> bool {
        let (release, than) = (&self.release, &other.release);
        let is_epoch_older = release.epoch < than.epoch;
        release.target() == than.target()
            && match (release.build, than.build) {
                (0, 0) => is_epoch_older,
                (_, 0) => self.claims.iat.map_or(is_epoch_older, |signed| signed < than.epoch),
                (0, _) => other.claims.iat.map_or(is_epoch_older, |signed| signed >= release.epoch),
                (build, than) => build < than,
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
    use proptest::prelude::*;

    use super::*;

    fn manifest(build: u64, epoch: u64, iat: Option<u64>) -> Manifest {
        Manifest {
            release: Release { build, epoch, ..Release::example() },
            claims: Claims { iat, ..Claims::default() },
        }
    }

    #[test]
    fn orders_published_releases_by_build_alone() {
        let (old, new) = (manifest(7, 2000, Some(9000)), manifest(8, 1000, Some(5000)));
        assert!(old.is_older_than(&new) && !new.is_older_than(&old));
        let renewed = manifest(7, 2000, Some(10_000));
        assert!(!renewed.is_older_than(&old) && !old.is_older_than(&renewed));
    }

    /// Each row: epoch and time of signing of a published release, and whether it is older than an image
    /// with the epoch 1000.
    #[test]
    fn compares_the_time_of_signing_with_the_epoch_of_an_image() {
        let image = manifest(0, 1000, None);
        let rows = [
            (900, Some(1001), false),
            (900, Some(1000), false),
            (900, Some(999), true),
            // An epoch after the time of signing does not count.
            (1100, Some(999), true),
            (999, None, true),
            (1000, None, false),
        ];
        for (epoch, iat, expected) in rows {
            let published = manifest(7, epoch, iat);
            assert_eq!(published.is_older_than(&image), expected, "{epoch} {iat:?}");
        }
        assert!(manifest(0, 999, None).is_older_than(&image));
    }

    #[test]
    fn releases_of_different_targets_have_no_order() {
        let old = manifest(7, 1000, Some(1000));
        let mut other = manifest(8, 2000, Some(2000));
        other.release.variant = "ubu".parse().unwrap();
        assert!(!old.is_older_than(&other) && !other.is_older_than(&old));
    }

    fn any_manifest() -> impl Strategy<Value = Manifest> {
        (0u64..3, 0u64..4, proptest::option::of(0u64..4))
            .prop_map(|(build, epoch, iat)| manifest(build, epoch, iat))
    }

    proptest! {
        #[test]
        fn no_two_manifests_are_older_than_each_other(a in any_manifest(), b in any_manifest()) {
            prop_assert!(!a.is_older_than(&a));
            prop_assert!(!(a.is_older_than(&b) && b.is_older_than(&a)));
        }

        /// The publisher signs after all packages of any earlier image were made.
        #[test]
        fn a_later_publication_is_never_older_than_an_image(
            image_epoch: u64,
            build in 1u64..,
            epoch: u64,
            delay: u64,
        ) {
            let image = manifest(0, image_epoch, None);
            let later = manifest(build, epoch, Some(image_epoch.saturating_add(delay)));
            prop_assert!(!later.is_older_than(&image) && image.is_older_than(&later));
        }
    }

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
