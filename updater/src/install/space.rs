//! Is there enough space for a release, counting what will be freed?

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use protocol::esp::Slot;

use crate::candidate::Candidate;
use crate::esp::Esp;
use crate::files::{FileError, at};

/// Clusters for the folder of a slot that is new, and to be on the safe side.
const SPARE_CLUSTERS: u64 = 4;

/// Proof that the release fits.
#[derive(Debug)]
pub struct Space(());

/// Space that is not there, or not known.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Too little.
    #[error(
        "the release needs {needed} bytes on the ESP, and {free} are free ({freed} of them in slot {slot}, which will be cleared): remove what is not needed there, or make it larger"
    )]
    TooLittle {
        /// What the release takes, in whole clusters.
        needed: u64,
        /// What is free, with what will be.
        free: u64,
        /// What will be.
        freed: u64,
        /// The slot.
        slot: Slot,
    },
    /// The file system does not say.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Space {
    /// Checks before anything is touched.
    pub fn check(esp: &Esp, slot: Slot, candidate: &Candidate) -> Result<Self, SpaceError> {
        let root = esp.path("");
        let stat =
            statvfs(&root).map_err(|error| at("ask for the space of", &root)(error.into()))?;
        let cluster = stat.fragment_size().max(1);
        let free_now = stat.blocks_available().saturating_mul(cluster);
        let sizes = candidate.release().boot_artifacts().map(|artifact| artifact.size);
        let needed = clusters(sizes.chain([candidate.token().len() as u64]), cluster)
            .saturating_add(SPARE_CLUSTERS * cluster);
        let freed = freed(esp, slot, cluster)?;
        let free = free_now.saturating_add(freed);
        match needed <= free {
            true => Ok(Self(())),
            false => Err(SpaceError::TooLittle { needed, free, freed, slot }),
        }
    }
}

fn freed(esp: &Esp, slot: Slot, cluster: u64) -> Result<u64, FileError> {
    let mut sizes = Vec::new();
    let folder = esp.path(&slot.folder());
    let ours = if is_folder(&folder) { files(&folder)? } else { Vec::new() };
    for path in ours.into_iter().chain(fsck_files(esp)?) {
        sizes.push(std::fs::symlink_metadata(&path).map_err(at("look at", &path))?.len());
    }
    Ok(clusters(sizes.into_iter(), cluster))
}

/// Sizes in whole clusters.
fn clusters(sizes: impl Iterator<Item = u64>, cluster: u64) -> u64 {
    sizes.fold(0, |sum, size| sum.saturating_add(size.div_ceil(cluster).saturating_mul(cluster)))
}

/// What fsck.fat leaves in the root: `FSCK0000.REC` and so on.
pub(super) fn fsck_files(esp: &Esp) -> Result<Vec<PathBuf>, FileError> {
    let is_fsck = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.to_ascii_uppercase();
        let digits = name.strip_prefix("FSCK").and_then(|name| name.strip_suffix(".REC"));
        digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    Ok(files(&esp.path(""))?.into_iter().filter(is_fsck).collect())
}

/// Whether this is a folder, and not a link to one.
pub(super) fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// The files in a folder; none if there is no such folder. Folders in it are not ours.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    // The root may be anything that --esp names.
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at("list", folder))? {
        let entry = entry.map_err(at("list", folder))?;
        if !entry.file_type().map_err(at("look at", &entry.path()))?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_in_clusters() {
        assert_eq!(clusters([1, 4096, 4097].into_iter(), 4096), 4 * 4096);
        assert_eq!(clusters([u64::MAX, u64::MAX].into_iter(), 4096), u64::MAX);
    }
}
