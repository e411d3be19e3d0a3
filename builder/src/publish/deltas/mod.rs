//! Makes the deltas of a release: patches from the releases that were published before it, which most hosts
//! have.

mod earlier;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::delta::FORMAT;
use protocol::release::{DeltaFile, PublishedFile};
use protocol::{Artifact, KeyRing, Release, Role, Target, digest};

use self::earlier::Earlier;
use super::files::Files;
use super::layout;
use super::site::Site;
use crate::delta;
use crate::published;

/// A delta must be smaller than this part of its artifact.
const PART: u64 = 2;
/// The number of digits of a digest in the name of a delta: 64 bits.
const DIGITS: usize = 16;

/// From which releases deltas are made.
pub(super) struct Predecessors<'a> {
    /// Where they are published.
    pub site: &'a Site,
    /// Their target.
    pub target: &'a Target,
    /// The keys that may have signed them.
    pub trusted: &'a KeyRing,
    /// The number of releases.
    pub count: usize,
    /// Shows what is being done.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// Adds deltas from the newest releases at a site, and returns a line about each for the summary. A delta that
/// cannot be made is only a line, because hosts can download the whole file.
pub(super) fn add(
    predecessors: &Predecessors<'_>,
    release: &mut Release,
    files: &mut Files<'_>,
    directory: &Path,
) -> Vec<String> {
    let mut lines = Vec::new();
    for earlier in earlier(predecessors, release) {
        let build = earlier.build;
        let earlier = match Earlier::new(predecessors.site, earlier, directory) {
            Ok(earlier) => earlier,
            Err(error) => {
                lines.push(format!("files from build {build}: none: {error:#}"));
                continue;
            }
        };
        for new in &mut release.artifacts {
            let Some(old) = earlier.release.artifact(new.role).filter(|old| is_useful(old, new))
            else {
                continue;
            };
            let role = new.role;
            (predecessors.progress)(&format!("making the delta of the {role} from build {build}"));
            let made = make(&earlier, old, new, files, directory);
            lines.push(match &made {
                Ok(DeltaFile { size, .. }) => {
                    let percent = *size as f64 * 100.0 / new.size as f64;
                    format!("{role} from build {build}: {size} bytes, {percent:.1}%")
                }
                Err(error) => format!("{role} from build {build}: none: {error:#}"),
            });
            new.deltas.extend(made);
        }
    }
    lines
}

/// Returns whether hosts need a delta: they do not download the disk image, and copy a file that is the same.
fn is_useful(old: &Artifact, new: &Artifact) -> bool {
    let is_known = new.deltas.iter().any(|delta| delta.from == old.sha256);
    Role::BOOT.contains(&new.role) && !is_known && old.sha256 != new.sha256
}

/// Returns the newest releases in the history of a site that boot other files than `release`, and than each
/// other.
fn earlier(predecessors: &Predecessors<'_>, release: &Release) -> Vec<Release> {
    let Predecessors { site, target, trusted, count, .. } = predecessors;
    let listed = site.destination.list(&layout::history(target)).unwrap_or_default();
    let mut builds: Vec<u64> =
        listed.iter().filter_map(|file| layout::build_of(target, &file.path)).collect();
    builds.sort_by_key(|build| std::cmp::Reverse(*build));
    let read = |build: u64| {
        let path = layout::history_path(target, build);
        // A manifest that cannot be verified is skipped: a key that is retired by now may have signed it.
        published::read(site.location(), &path, target, trusted).ok().flatten()
    };
    let mut known = BTreeSet::from([release.id()]);
    let releases = builds.into_iter().filter_map(read).map(|found| found.release().clone());
    releases.filter(|release| known.insert(release.id())).take(*count).collect()
}

/// Makes a delta between two artifacts, and applies it with the updater of the earlier release.
fn make(
    earlier: &Earlier<'_>,
    old: &Artifact,
    new: &Artifact,
    files: &mut Files<'_>,
    directory: &Path,
) -> Result<DeltaFile> {
    let from = fs::read(earlier.file(old)?).context("reading the old file")?;
    let Artifact { name, size, sha256, url, .. } = new;
    let upload = files.upload(PublishedFile { name, size: *size, sha256, url })?;
    let made = delta::make(&from, &fs::read(upload.from).context("reading the new file")?)?;
    let size = made.bytes.len() as u64;
    ensure!(size < new.size / PART, "it has {size} bytes, which is too much of {}", new.size);
    let sha256 = digest::of_bytes(&made.bytes);
    let name = format!("{name}.{}.delta", &sha256[..DIGITS]);
    let path = directory.join(&name);
    fs::write(&path, made.bytes).with_context(|| format!("writing {}", path.display()))?;
    let delta = DeltaFile {
        from: old.sha256.clone(),
        format: FORMAT.to_owned(),
        url: name.clone(),
        name,
        size,
        sha256: sha256.clone(),
        memory: made.memory,
    };
    earlier.check(&delta, &path, old, new)?;
    files.add(sha256, path);
    Ok(delta)
}
