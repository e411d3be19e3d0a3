//! Publishes releases: immutable files first, the manifest last.
//!
//! - [`release`], [`renew`], [`withdraw`] and [`bridge`] decide which manifest to publish
//! - [`deltas`] makes deltas from earlier releases, which [`history`] finds
//! - [`layout`] has the paths, and [`issue`] signs the manifest
//! - [`site`] uploads to one destination, and [`retention`] removes old releases
//!
//! All destinations get the same manifest.

pub(crate) mod bridge;
pub(crate) mod deltas;
mod documents;
mod files;
mod history;
mod installation;
mod issue;
pub(crate) mod layout;
mod release;
pub(crate) mod renew;
mod retention;
mod site;
pub(crate) mod withdraw;

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use protocol::Target;
use protocol::compare::Difference;
use serde::Serialize;

use crate::published::Published;
use crate::signing::Signing;
pub(crate) use documents::checksums;
use files::Files;
use issue::Issued;
pub(crate) use issue::issue;
pub(crate) use issue::next_build;
pub(crate) use release::publish;
pub(crate) use retention::Retention;
use site::Opened;
pub(crate) use site::Site;

/// What became of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub(crate) enum Outcome {
    /// All destinations have a release of the same content.
    Unchanged {
        /// The build number of the published release.
        build: u64,
    },
    /// The published release has the same content, and got a new manifest: the old one was about to
    /// expire, another key had signed it, or not every destination had it.
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

/// The result of a publication at one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SiteReport {
    /// The destination, for display.
    pub destination: String,
    /// The number of files that were uploaded.
    pub uploaded: usize,
    /// The files that were damaged and are repaired, with their problems.
    pub repaired: Vec<String>,
    /// The files that were removed.
    pub removed: Vec<String>,
    /// Why the release was not published here.
    pub error: Option<String>,
}

/// The result of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// What became of the release.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Lines of text about the deltas: made, not made or left out, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<String>,
    /// The destinations.
    pub destinations: Vec<SiteReport>,
}

/// Returns the newest manifest that is live at any destination, and its site.
fn newest<'a>(openings: &'a [Opening<'a>]) -> Option<(&'a Site, &'a Published)> {
    let live = openings
        .iter()
        .filter_map(|(site, opened)| Some((*site, opened.as_ref().ok()?.live.as_ref()?)));
    live.max_by_key(|(_, live)| live.release().build)
}

impl Report {
    /// Fails if a destination failed.
    pub(crate) fn check(&self) -> Result<()> {
        let failed: Vec<String> = self
            .destinations
            .iter()
            .filter_map(|site| Some(format!("{}: {}", site.destination, site.error.as_ref()?)))
            .collect();
        ensure!(
            failed.is_empty(),
            "{} of {} destinations failed:\n  {}",
            failed.len(),
            self.destinations.len(),
            failed.join("\n  ")
        );
        Ok(())
    }
}

/// The parameters of all publications.
pub(crate) struct Publisher<'a> {
    /// The target.
    pub target: &'a Target,
    /// The destinations; at least one.
    pub sites: &'a [Site],
    /// The signing key.
    pub signing: &'a Signing,
    /// Which old releases are kept.
    pub retention: Retention,
    /// The number of newest releases from which deltas are made, besides the monthly ones; 0 for no deltas.
    pub deltas: usize,
    /// The directory for temporary files. Programs in it can be started.
    pub work: &'a Path,
    /// Shows what is being done.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// A site that was opened, or the error.
type Opening<'a> = (&'a Site, Result<Opened<'a>>);

/// A manifest to publish, and the files that it names.
struct Publication<'f> {
    issued: Issued,
    files: Files<'f>,
    outcome: Outcome,
    /// See [`Report::deltas`].
    deltas: Vec<String>,
}

impl Publisher<'_> {
    /// Locks all destinations and reads the manifests that are live there.
    ///
    /// # Errors
    /// Fails if no destination can be opened.
    fn open(&self) -> Result<Vec<Opening<'_>>> {
        let trusted = self.signing.ring()?;
        let mut openings: Vec<Opening<'_>> =
            self.sites.iter().map(|site| (site, site.open(self.target, &trusted))).collect();
        if openings.iter().all(|(_, opened)| opened.is_err()) {
            let (site, error) = openings.swap_remove(0);
            let failed = || format!("opening {}", site.destination.describe());
            error.map(drop).with_context(failed)?;
        }
        Ok(openings)
    }

    /// Puts a publication on every destination that was opened.
    fn put(&self, openings: &[Opening<'_>], publication: Publication<'_>) -> Result<Report> {
        let Publication { issued, files, outcome, deltas } = publication;
        let destinations = openings
            .iter()
            .map(|(site, opened)| {
                let mut report = SiteReport {
                    destination: site.destination.describe(),
                    uploaded: 0,
                    repaired: Vec::new(),
                    removed: Vec::new(),
                    error: None,
                };
                let put = match opened {
                    Ok(opened) => self.put_on(opened, &issued, &files, &mut report),
                    Err(error) => Err(anyhow::anyhow!("{error:#}")),
                };
                report.error = put.err().map(|error| format!("{error:#}"));
                report
            })
            .collect();
        Ok(Report { outcome, deltas, destinations })
    }

    fn put_on(
        &self,
        opened: &Opened<'_>,
        issued: &Issued,
        files: &Files<'_>,
        report: &mut SiteReport,
    ) -> Result<()> {
        let uploaded = opened.put(issued, files, self.progress)?;
        report.uploaded = uploaded.new;
        report.repaired = uploaded.repaired;
        let destination = &*opened.site.destination;
        let removed =
            retention::clean(destination, &issued.release, self.retention, SystemTime::now());
        report.removed = removed.context("the release was published; removing old ones failed")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
