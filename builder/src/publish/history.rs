//! The earlier releases at a site.

use std::collections::BTreeSet;

use anyhow::Result;
use protocol::Release;

use super::{Publisher, Site, layout};
use crate::published;

/// Returns the releases that deltas are made from, the newest first: the newest ones that boot other files than
/// `release`, and than each other.
pub(super) fn predecessors(
    publisher: &Publisher<'_>,
    site: &Site,
    release: &Release,
) -> Result<Vec<Release>> {
    let (target, trusted) = (publisher.target, publisher.signing.ring()?);
    let listed = site.destination.list(&layout::history(target))?;
    let mut builds: Vec<u64> =
        listed.iter().filter_map(|file| layout::build_of(target, &file.path)).collect();
    builds.sort_by_key(|build| std::cmp::Reverse(*build));
    let read = |build: u64| {
        let path = layout::history_path(target, build);
        // A manifest that cannot be verified is skipped: a key that is retired by now may have signed it.
        published::read(site.location(), &path, target, &trusted).ok().flatten()
    };
    let mut known = BTreeSet::from([release.id()]);
    let releases = builds.into_iter().filter_map(read).map(|found| found.release().clone());
    Ok(releases.filter(|release| known.insert(release.id())).take(publisher.deltas).collect())
}
