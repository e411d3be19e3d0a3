//! Where the bytes of an artifact come from.

use protocol::delta::{DELTA_MAX, FORMAT};
use protocol::esp::{Slot, slot_file};
use protocol::release::DeltaFile;
use protocol::{Artifact, Role};

use super::job::path_of;
use crate::candidate::Candidate;
use crate::slot_content::{Content, Slots};

/// A delta may take this part of the free memory, because other programs need memory meanwhile.
const MEMORY_PART: u64 = 3;

/// Where the bytes of an artifact come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The other slot holds the artifact.
    Copy {
        /// The path of the file.
        path: String,
    },
    /// The other slot holds the artifact of an earlier release, and the CDN has a delta.
    Delta {
        /// The delta.
        delta: &'a DeltaFile,
        /// The path of the file in the other slot.
        path: String,
        /// The size of that file.
        size: u64,
    },
    /// The CDN.
    Download,
}

impl Origin<'_> {
    /// Returns the name, for messages and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Copy { .. } => "copy",
            Self::Delta { .. } => "delta",
            Self::Download => "download",
        }
    }

    /// Returns the number of bytes that are fetched from the CDN for an artifact.
    pub fn fetched(&self, artifact: &Artifact) -> u64 {
        match self {
            Self::Copy { .. } => 0,
            Self::Delta { delta, .. } => delta.size,
            Self::Download => artifact.size,
        }
    }
}

/// Returns the origins of the boot artifacts of a release for the installation in a slot.
pub fn origins<'a>(
    candidate: &'a Candidate,
    slots: &Slots,
    slot: Slot,
    memory: u64,
) -> Vec<(Role, Origin<'a>, u64)> {
    let artifacts = candidate.release().boot_artifacts();
    artifacts
        .map(|artifact| {
            let origin = origin(artifact, slots, slot, memory, 0);
            let fetched = origin.fetched(artifact);
            (artifact.role, origin, fetched)
        })
        .collect()
}

/// Returns the origin of the rest of an artifact, of which `have` bytes are in the slot that is written. `memory`
/// is the free memory in bytes.
pub(super) fn origin<'a>(
    artifact: &'a Artifact,
    slots: &Slots,
    slot: Slot,
    memory: u64,
    have: u64,
) -> Origin<'a> {
    let other = slot.other();
    // Only the files of a complete slot were verified.
    let held = match slots.get(other) {
        Content::Complete(manifest) => manifest.release.artifact(artifact.role),
        _ => None,
    };
    let (Some(held), Some(name)) = (held, slot_file(artifact.role)) else {
        return Origin::Download;
    };
    let path = path_of(other, name);
    if held.sha256 == artifact.sha256 && held.size == artifact.size {
        return Origin::Copy { path };
    }
    let rest = artifact.size.saturating_sub(have);
    let is_usable = |delta: &&DeltaFile| {
        delta.format == FORMAT
            && delta.from == held.sha256
            && delta.size <= DELTA_MAX
            && delta.size < rest
            && delta.memory <= memory / MEMORY_PART
    };
    match artifact.deltas.iter().filter(is_usable).min_by_key(|delta| delta.size) {
        Some(delta) => Origin::Delta { delta, path, size: held.size },
        None => Origin::Download,
    }
}
