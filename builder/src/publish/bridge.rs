//! Publishes a release for hosts that trust only an older key.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use super::files::Files;
use super::issue::issue;
use super::{Outcome, Publication, Publisher, Report, layout};
use crate::destination::Location;
use crate::published;

/// Publishes a release that is published elsewhere: the live one, or the one with the number `build`.
/// Its manifest is signed with the publisher's key, and keeps its build number: a host that has installed
/// it must not take the live release, which was published earlier, for an older one.
///
/// # Errors
/// Fails if there is no such release, or if it does not have the layout of this program.
pub(crate) fn bridge(
    publisher: &Publisher<'_>,
    from: &dyn Location,
    build: Option<u64>,
    now: Timestamp,
) -> Result<Report> {
    let target = publisher.target;
    let path = match build {
        Some(build) => layout::history_path(target, build),
        None => target.manifest_name(),
    };
    let source = published::read(from, &path, target, &publisher.signing.ring()?)?;
    let source = source.with_context(|| format!("{} has no {path}", from.describe()))?;
    let mut release = source.release().clone();
    ensure!(
        layout::has_urls(&release),
        "the files of {path} in {} are not in the directory that builder publishes to; publish the \
         release again first",
        from.describe()
    );
    let openings = publisher.open()?;
    let build = release.build;
    let files = Files::none()?.or_published_at(Some(from));
    let deltas = files.drop_missing_deltas(&mut release);
    let issued = issue(release, build, &source.manifest.claims, publisher.signing, now)?;
    let outcome = Outcome::Published { build, differences: None };
    publisher.put(&openings, Publication { issued, files, outcome, deltas })
}
