//! Signs the manifest of a published release again, before it expires.

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::files::Files;
use super::issue::{issue, next_build};
use super::{Outcome, Publication, Publisher, Report, newest};

/// Publishes the newest release that is live with a new manifest, on all destinations.
///
/// # Errors
/// Fails if nothing is published.
pub(crate) fn renew(publisher: &Publisher<'_>, now: Timestamp) -> Result<Report> {
    let openings = publisher.open()?;
    let (site, live) = newest(&openings)
        .with_context(|| format!("nothing is published for {}", publisher.target))?;
    let files = Files::none()?.or_published_at(Some(site.location()));
    let mut release = live.release().clone();
    let deltas = files.drop_missing_deltas(&mut release);
    let build = next_build(release.build, now);
    let issued = issue(release, build, &live.manifest.claims, publisher.signing, now)?;
    let outcome = Outcome::Renewed { build };
    publisher.put(&openings, Publication { issued, files, outcome, deltas })
}
