//! Withdraws a release: publishes an earlier one under a newer build number.

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use protocol::compare::{differences, is_same_release};

use super::files::Files;
use super::issue::{issue, next_build};
use super::site::Site;
use super::{Outcome, Publication, Publisher, Report, layout, newest};
use crate::published::{self, Published};

/// Publishes the release that was live before the current one, or the one with the number `build`.
///
/// # Errors
/// Fails if there is no such release.
pub(crate) fn withdraw(
    publisher: &Publisher<'_>,
    build: Option<u64>,
    now: Timestamp,
) -> Result<Report> {
    let openings = publisher.open()?;
    let (site, live) = newest(&openings)
        .with_context(|| format!("nothing is published for {}", publisher.target))?;
    let earlier = match build {
        Some(build) => at(publisher, site, build)?,
        None => previous(publisher, site, live)?,
    };
    let files = Files::none()?.or_published_at(Some(site.location()));
    let mut release = earlier.release().clone();
    let deltas = files.drop_missing_deltas(&mut release);
    let next = next_build(live.release().build, now);
    let differences = Some(differences(live.release(), &release));
    let issued = issue(release, next, &earlier.manifest.claims, publisher.signing, now)?;
    let outcome = Outcome::Published { build: next, differences };
    publisher.put(&openings, Publication { issued, files, outcome, deltas })
}

fn at(publisher: &Publisher<'_>, site: &Site, build: u64) -> Result<Published> {
    let path = layout::history_path(publisher.target, build);
    let trusted = publisher.signing.ring()?;
    let found = published::read(site.location(), &path, publisher.target, &trusted)?;
    let found =
        found.with_context(|| format!("{} has no build {build}", site.destination.describe()))?;
    ensure!(
        found.release().build == build,
        "{path} in {} has build {}, expected {build}",
        site.destination.describe(),
        found.release().build
    );
    Ok(found)
}

/// Returns the newest release that is older than all publications of the content that is live.
///
/// So a second withdrawal does not publish the release that the first one withdrew.
fn previous(publisher: &Publisher<'_>, site: &Site, live: &Published) -> Result<Published> {
    let history = site.destination.list(&layout::history(publisher.target))?;
    let mut builds: Vec<u64> = history
        .iter()
        .filter_map(|file| layout::build_of(publisher.target, &file.path))
        .filter(|build| *build <= live.release().build)
        .collect();
    builds.sort_by_key(|build| std::cmp::Reverse(*build));
    // A manifest that cannot be verified is skipped: a key that is retired by now may have signed it.
    let mut earlier: Vec<Published> =
        builds.into_iter().filter_map(|build| at(publisher, site, build).ok()).collect();
    let is_live = |other: &Published| is_same_release(other.release(), live.release());
    match earlier.iter().rposition(is_live).map(|oldest| earlier.split_off(oldest + 1)) {
        Some(mut older) if !older.is_empty() => Ok(older.swap_remove(0)),
        _ => bail!(
            "{} has no release that is older than build {}; choose one with --build",
            site.destination.describe(),
            live.release().build
        ),
    }
}
