//! Stage 6: publishes a release, if it is another than the published one.

use anyhow::{Result, ensure};
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
            Self::Published { build, .. } => format!("published build {build}"),
        }
    }
}

/// Artifacts first, each read back; the manifest last.
pub fn run(build: &Build, tested: Tested, log: &mut LogFile) -> Result<Outcome> {
    let release = tested.release();
    let published = build.cdn.manifest(&build.target, &build.signing.ring()?)?;
    let differences = published.as_ref().map(|old| differences(&old.release, release));
    if let Some(old) = &published {
        if differences.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Outcome::Unchanged { build: old.release.build });
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
        build.cdn.upload(&build.folders.artifacts.join(&artifact.name), artifact)?;
    }
    build.cdn.publish(&tested.packaged().manifest, &build.target)?;
    Ok(Outcome::Published { build: release.build, differences })
}
