//! Checks that the ESP has space for a release, including the space that the installation frees.

use protocol::esp::Slot;

use super::stored::STORED_MAX;
use crate::candidate::Candidate;
use crate::files::{Capacity, Entry, FileError, FileSystem, files_in};

/// A reserve for the directory of a new slot.
const SPARE_CLUSTERS: u64 = 4;

/// Proof that the release fits.
#[derive(Debug)]
pub struct Space(());

/// A failed check of the space.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// There is too little space.
    #[error(
        "the release needs {needed} bytes on the ESP, and {free} are free ({freed} of them in slot {slot}, whose files are replaced or resumed{}): remove files that are not needed, or enlarge the ESP",
        left_by_fsck(*fsck)
    )]
    TooLittle {
        /// The space for the release in bytes, rounded up to clusters.
        needed: u64,
        /// The free space in bytes, including `freed` and `fsck`.
        free: u64,
        /// The part of `free` that the slot's files occupy.
        freed: u64,
        /// The part of `free` that files left by fsck occupy.
        fsck: u64,
        /// The slot to be written.
        slot: Slot,
    },
    /// The file system could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Space {
    /// Checks the space before anything is changed. The slot's files count as free, because they are
    /// removed or belong to this release. Files left by fsck count as free, because they are removed.
    pub fn check(
        esp: &dyn FileSystem,
        slot: Slot,
        candidate: &Candidate,
    ) -> Result<Self, SpaceError> {
        let Capacity { cluster, free } = esp.capacity()?;
        let artifacts = candidate.release().boot_artifacts().map(|artifact| artifact.size);
        // The manifest is stored under two names for a moment.
        let manifest = candidate.token().len() as u64;
        let needed = clusters(artifacts.chain([manifest, manifest, STORED_MAX]), cluster)
            .saturating_add(SPARE_CLUSTERS * cluster);
        let freed = occupied(esp, files_in(esp, &slot.directory())?, cluster)?;
        let fsck = occupied(esp, fsck_files(esp)?, cluster)?;
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

/// Returns the space that the files occupy.
fn occupied(esp: &dyn FileSystem, paths: Vec<String>, cluster: u64) -> Result<u64, FileError> {
    let mut sizes = Vec::new();
    for path in paths {
        if let Some(Entry::File { size }) = esp.metadata(&path)? {
            sizes.push(size);
        }
    }
    Ok(clusters(sizes.into_iter(), cluster))
}

/// Adds up sizes, each rounded up to clusters.
fn clusters(sizes: impl Iterator<Item = u64>, cluster: u64) -> u64 {
    sizes.fold(0, |sum, size| sum.saturating_add(size.div_ceil(cluster).saturating_mul(cluster)))
}

/// Returns the files that fsck.fat leaves in the root: `FSCK0000.REC` and so on.
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
    fn rounds_sizes_up_to_clusters() {
        assert_eq!(clusters([1, 4096, 4097].into_iter(), 4096), 4 * 4096);
        assert_eq!(clusters([u64::MAX, u64::MAX].into_iter(), 4096), u64::MAX);
    }
}
