//! The earlier releases at a site.

use anyhow::Result;
use protocol::{KeyRing, Release, Target};

use super::layout;
use super::retention::Retention;
use super::site::Site;
use crate::published;

/// Returns the earlier releases that a rule chooses, the newest first. They boot other files than `release`, and than
/// each other. Adds a line to `lines` for each manifest that is skipped, because it cannot be read or verified: a key
/// that is retired by now may have signed it.
pub(super) fn predecessors(
    site: &Site,
    target: &Target,
    trusted: &KeyRing,
    rule: Retention,
    release: &Release,
    lines: &mut Vec<String>,
) -> Result<Vec<Release>> {
    let listed = site.destination.list(&layout::history(target))?;
    let mut builds: Vec<u64> =
        listed.iter().filter_map(|file| layout::build_of(target, &file.path)).collect();
    builds.sort_by_key(|build| std::cmp::Reverse(*build));
    // Each release with the number of its first build.
    let mut releases: Vec<(Release, u64)> = Vec::new();
    for build in builds {
        let path = layout::history_path(target, build);
        let found = match published::read(site.location(), &path, target, trusted) {
            Ok(Some(found)) => found.release().clone(),
            Ok(None) => continue,
            Err(error) => {
                lines.push(format!("files from build {build}: none: {error:#}"));
                continue;
            }
        };
        if found.id() == release.id() {
            continue;
        }
        match releases.iter_mut().find(|(known, _)| known.id() == found.id()) {
            Some((_, first)) => *first = build,
            None => releases.push((found, build)),
        }
    }
    let builds: Vec<u64> = releases.iter().map(|(_, first)| *first).collect();
    Ok(rule.chosen(&builds).into_iter().map(|index| releases[index].0.clone()).collect())
}
