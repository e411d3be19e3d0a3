//! Stage 6: publishes a release, if it is another than the published one.

use anyhow::{Result, ensure};
use jiff::Timestamp;
use protocol::Claims;
use protocol::compare::{Difference, differences};
use serde::Serialize;

use super::test::Tested;
use super::{Build, Describe};
use crate::log_file::LogFile;

/// Whether something was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub enum Outcome {
    /// The published release is the same.
    Unchanged {
        /// Its build number.
        build: u64,
    },
    /// The published release is the same, but its manifest was about to expire: a newer one that
    /// says the same took its place.
    Renewed {
        /// The new build number.
        build: u64,
    },
    /// Published.
    Published {
        /// The new build number.
        build: u64,
        /// What differs from what was published before; none, if this is the first release.
        differences: Option<Vec<Difference>>,
    },
}

impl Describe for Outcome {
    fn describe(&self) -> String {
        match self {
            Self::Unchanged { build } => format!("unchanged since build {build}"),
            Self::Renewed { build } => format!("unchanged, manifest renewed as build {build}"),
            Self::Published { build, .. } => format!("published build {build}"),
        }
    }
}

/// Whether less than half of a manifest's time is left. Hosts refuse one that has expired, and the
/// next chance to renew it may be a week away.
fn expires_soon(claims: &Claims, now: u64) -> bool {
    match (claims.iat, claims.exp) {
        (Some(issued), Some(expires)) => now >= issued.midpoint(expires),
        _ => false,
    }
}

/// Artifacts first, each read back; the manifest last.
pub fn run(build: &Build, tested: Tested, log: &mut LogFile) -> Result<Outcome> {
    let release = tested.release();
    let published = build.cdn.manifest(&build.target, &build.signing.ring()?)?;
    let differences = published.as_ref().map(|old| differences(&old.release, release));
    if let Some(old) = &published {
        if differences.as_ref().is_some_and(Vec::is_empty) {
            let now = u64::try_from(Timestamp::now().as_second())?;
            if !expires_soon(&old.claims, now) {
                return Ok(Outcome::Unchanged { build: old.release.build });
            }
            build.cdn.publish(&tested.packaged().manifest, &build.target)?;
            return Ok(Outcome::Renewed { build: release.build });
        }
        ensure!(
            old.release.build < release.build,
            "somebody published build {} in the meantime, this is build {}; build again",
            old.release.build,
            release.build
        );
    }
    for artifact in &release.artifacts {
        log.step(&format!("uploading {}", artifact.name));
        build.cdn.upload(&build.directories.artifacts.join(&artifact.name), artifact)?;
    }
    build.cdn.publish(&tested.packaged().manifest, &build.target)?;
    Ok(Outcome::Published { build: release.build, differences })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_renewed_in_the_second_half_of_its_time() {
        let claims = Claims { iat: Some(1000), exp: Some(2000), ..Claims::default() };
        assert!(!expires_soon(&claims, 1499));
        assert!(expires_soon(&claims, 1500));
        assert!(expires_soon(&claims, 3000), "also when it is too late");
        assert!(!expires_soon(&Claims::default(), 3000), "what never expires needs no renewal");
    }
}
