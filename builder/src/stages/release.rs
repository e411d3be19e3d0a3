//! Stage 6: publishes a release if it differs from the published one.

use anyhow::{Result, ensure};
use jiff::Timestamp;
use protocol::Claims;
use protocol::compare::{Difference, differences};
use serde::Serialize;

use super::build::{Build, Describe};
use super::test::Tested;
use crate::log_file::LogFile;

/// Whether the release was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub(crate) enum Outcome {
    /// The published release has the same content.
    Unchanged {
        /// The build number of the published release.
        build: u64,
    },
    /// The published release has the same content, but its manifest was about to expire. A new
    /// manifest of the same content replaced it.
    Renewed {
        /// The new build number.
        build: u64,
    },
    /// The release was published.
    Published {
        /// The new build number.
        build: u64,
        /// The differences from the previous release; absent for the first release.
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

/// Returns whether less than half of a manifest's validity period is left.
///
/// Hosts refuse an expired manifest, and the next build may be a week away.
fn expires_soon(claims: &Claims, now: u64) -> bool {
    match (claims.iat, claims.exp) {
        (Some(issued), Some(expires)) => now >= issued.midpoint(expires),
        _ => false,
    }
}

/// Publishes the artifacts, each verified after the copy, and then the manifest.
///
/// Hosts see the release as soon as its manifest is in the directory, so the manifest has to come last.
pub(super) fn run(build: &Build, tested: Tested, log: &mut LogFile) -> Result<Outcome> {
    let release = tested.release();
    let published = build.cdn.manifest(&build.target, &build.signing.ring()?)?;
    let differences = published.as_ref().map(|old| differences(&old.release, release));
    if let Some(old) = &published {
        if differences.as_ref().is_some_and(Vec::is_empty) {
            let now = u64::try_from(Timestamp::now().as_second())?;
            if !expires_soon(&old.claims, now) {
                return Ok(Outcome::Unchanged { build: old.release.build });
            }
            build.cdn.publish(&tested.packaged().manifest, &build.target, log)?;
            return Ok(Outcome::Renewed { build: release.build });
        }
        ensure!(
            old.release.build < release.build,
            "build {} was published while this build, {}, was running; run the build again",
            old.release.build,
            release.build
        );
    }
    for artifact in &release.artifacts {
        log.step(&format!("uploading {}", artifact.name));
        build.cdn.upload(&build.directories.artifacts.join(&artifact.name), artifact, log)?;
    }
    build.cdn.publish(&tested.packaged().manifest, &build.target, log)?;
    Ok(Outcome::Published { build: release.build, differences })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_manifest_in_second_half_of_its_validity() {
        let claims = Claims { iat: Some(1000), exp: Some(2000), ..Claims::default() };
        assert!(!expires_soon(&claims, 1499));
        assert!(expires_soon(&claims, 1500));
        assert!(expires_soon(&claims, 3000), "an expired manifest is renewed too");
        assert!(
            !expires_soon(&Claims::default(), 3000),
            "a manifest without expiry needs no renewal"
        );
    }
}
