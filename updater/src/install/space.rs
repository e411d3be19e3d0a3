//! Is there enough space for a release, counting what will be freed?

use protocol::esp::Slot;

use crate::candidate::Candidate;
use crate::files::{Capacity, Entry, FileError, FileSystem, files_in};

/// Clusters for the directory of a slot that is new, and to be on the safe side.
const SPARE_CLUSTERS: u64 = 4;

/// Proof that the release fits.
#[derive(Debug)]
pub struct Space(());

/// Space that is not there, or not known.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// Too little.
    #[error(
        "the release needs {needed} bytes on the ESP, and {free} are free ({freed} of them in slot {slot}, which is cleared or gone on with{}): remove what is not needed there, or make it larger",
        left_by_fsck(*fsck)
    )]
    TooLittle {
        /// What the release takes, in whole clusters.
        needed: u64,
        /// What is free, with what will be.
        free: u64,
        /// What the slot holds of it.
        freed: u64,
        /// What a repair has left of it.
        fsck: u64,
        /// The slot.
        slot: Slot,
    },
    /// The file system does not say.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Space {
    /// Checks before anything is touched. What the slot holds counts as free: it goes, or it is the
    /// beginning of this release. So does what fsck left: it goes.
    pub fn check(
        esp: &dyn FileSystem,
        slot: Slot,
        candidate: &Candidate,
    ) -> Result<Self, SpaceError> {
        let Capacity { cluster, free } = esp.capacity()?;
        let artifacts = candidate.release().boot_artifacts().map(|artifact| artifact.size);
        // It is there twice for a moment.
        let manifest = candidate.token().len() as u64;
        let needed = clusters(artifacts.chain([manifest, manifest]), cluster)
            .saturating_add(SPARE_CLUSTERS * cluster);
        let freed = taken(esp, files_in(esp, &slot.directory())?, cluster)?;
        let fsck = taken(esp, fsck_files(esp)?, cluster)?;
        let free = free.saturating_add(freed).saturating_add(fsck);
        match needed <= free {
            true => Ok(Self(())),
            false => Err(SpaceError::TooLittle { needed, free, freed, fsck, slot }),
        }
    }
}

fn left_by_fsck(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        _ => format!(", and {bytes} in FSCK*.REC files, which are removed"),
    }
}

/// What these files take.
fn taken(esp: &dyn FileSystem, paths: Vec<String>, cluster: u64) -> Result<u64, FileError> {
    let mut sizes = Vec::new();
    for path in paths {
        if let Some(Entry::File { size }) = esp.metadata(&path)? {
            sizes.push(size);
        }
    }
    Ok(clusters(sizes.into_iter(), cluster))
}

/// Sizes in whole clusters.
fn clusters(sizes: impl Iterator<Item = u64>, cluster: u64) -> u64 {
    sizes.fold(0, |sum, size| sum.saturating_add(size.div_ceil(cluster).saturating_mul(cluster)))
}

/// What fsck.fat leaves in the root: `FSCK0000.REC` and so on.
pub(super) fn fsck_files(esp: &dyn FileSystem) -> Result<Vec<String>, FileError> {
    let is_fsck = |name: &String| {
        let name = name.to_ascii_uppercase();
        let digits = name.strip_prefix("FSCK").and_then(|name| name.strip_suffix(".REC"));
        digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    Ok(files_in(esp, "")?.into_iter().filter(is_fsck).collect())
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
