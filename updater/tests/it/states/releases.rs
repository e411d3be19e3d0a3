//! The releases of the model: what a CDN offers, and how a boot of each ends.

use std::sync::LazyLock;

use protocol::{Claims, Manifest, Release};

/// The releases that the CDN offers, in order, with their build numbers.
pub(super) type Offers = &'static [(Kind, u64)];

/// The releases, named by how a boot of them ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    First,
    Second,
    Third,
    Unhealthy,
    Panics,
}
use Kind::{First, Panics, Second, Third, Unhealthy};

impl Kind {
    pub(super) fn is_healthy(self) -> bool {
        !matches!(self, Unhealthy | Panics)
    }
}

/// Bad releases in both slots, one that is withdrawn, and one that is published again with a newer build
/// number.
pub(super) const ALL: Offers =
    &[(First, 1), (Second, 2), (Unhealthy, 3), (Second, 4), (Panics, 5), (Third, 6)];

static RELEASE: LazyLock<Release> = LazyLock::new(|| crate::world::release(1));

/// Returns the manifest inside a disk image if the build is 0, or else a published one. Each release lacks
/// the newest package of the one before, so its epoch is earlier.
pub(super) fn manifest((kind, build): (Kind, u64)) -> Manifest {
    let version = format!("{kind:?}");
    let mut release = Release { version, build, epoch: RELEASE.epoch - build, ..RELEASE.clone() };
    for artifact in &mut release.artifacts {
        artifact.sha256 = format!("{:02x}", kind as u8).repeat(32);
    }
    let iat = (build > 0).then_some(RELEASE.epoch + build);
    Manifest { release, claims: Claims { iat, ..Claims::default() } }
}

/// Returns the kind of a release.
pub(super) fn kind(release: &Release) -> Kind {
    let kinds = [First, Second, Third, Unhealthy, Panics];
    kinds.into_iter().find(|kind| format!("{kind:?}") == release.version).unwrap()
}
