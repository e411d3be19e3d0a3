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
    let mut manifests: Vec<(Release, u64)> = Vec::new();
    for build in builds {
        let path = layout::history_path(target, build);
        let found = match published::read(site.location(), &path, target, trusted) {
            Ok(Some(found)) => found.release().clone(),
            Ok(None) => continue,
            Err(error) => {
                lines.push(format!("no deltas from build {build}: {error:#}"));
                continue;
            }
        };
        if found.id() != release.id() {
            manifests.push((found, build));
        }
    }
    Ok(rule.kept(manifests, |one, other| one.id() == other.id()))
}
