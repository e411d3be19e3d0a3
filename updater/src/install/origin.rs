//! How an artifact is obtained: where its bytes come from.

use protocol::delta::{DELTA_MAX, FORMAT};
use protocol::esp::{Slot, slot_file};
use protocol::release::DeltaFile;
use protocol::{Artifact, Role};
use serde::{Deserialize, Serialize};

use super::job::{Source, path_of};
use crate::failed_deltas::FailedDeltas;
use crate::slot_content::{Content, Slots};

/// A delta may take the available memory divided by this number. The rest is left for other programs.
pub(super) const MEMORY_DIVISOR: u64 = 3;

/// Where the bytes of an artifact come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin<'a> {
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
    /// The CDN has the artifact, and no delta can be used.
    Download(NoDelta),
}

/// Why no delta is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoDelta {
    /// The other slot has no verified file to apply a delta to.
    #[error("slot {0} holds no complete release")]
    NoSource(Slot),
    /// The manifest has no delta for the file in the other slot.
    #[error("the release has no delta from the file in slot {0}")]
    NotOffered(Slot),
    /// This updater does not know the format.
    #[error("the delta has the format {0:?}, which this updater does not know")]
    Format(String),
    /// The delta is not smaller than the rest of the artifact, or too large for any host.
    #[error(
        "the delta has {size} bytes, expected at most {} and fewer than the {rest} that are missing",
        DELTA_MAX
    )]
    Size {
        /// The size of the delta.
        size: u64,
        /// The number of bytes that are missing.
        rest: u64,
    },
    /// Applying the delta takes too much memory.
    #[error(
        "the delta takes {needed} bytes of memory, expected at most a third of the {available} available bytes"
    )]
    Memory {
        /// The memory that the delta takes.
        needed: u64,
        /// The available memory of the host.
        available: u64,
    },
    /// The delta failed on this host.
    #[error("the delta failed before: {0}")]
    Failed(String),
}

/// A way to obtain a file of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Copied from the other slot.
    Copy,
    /// Made from a delta and a file of the other slot.
    Delta,
    /// Downloaded.
    Download,
    /// An earlier run has completed the file.
    Kept,
}

impl Way {
    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Delta => "delta",
            Self::Download => "download",
            Self::Kept => "kept",
        }
    }
}

/// Where a file of a slot comes from, or came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOrigin {
    /// The role of the file.
    pub role: Role,
    /// The way to obtain it.
    #[serde(rename = "from")]
    pub way: Way,
    /// The number of bytes that are fetched from the CDN.
    pub bytes: u64,
    /// Why the whole file is downloaded; `None` if it is not.
    pub reason: Option<String>,
}

impl FileOrigin {
    fn planned(artifact: &Artifact, origin: &Origin<'_>) -> Self {
        let (way, bytes, reason) = match origin {
            Origin::Copy { .. } => (Way::Copy, 0, None),
            Origin::Delta { delta, .. } => (Way::Delta, delta.size, None),
            Origin::Download(reason) => (Way::Download, artifact.size, Some(reason.to_string())),
        };
        Self { role: artifact.role, way, bytes, reason }
    }
}

/// Returns how each boot artifact of a release is obtained when the release is installed in a slot.
pub fn origins(source: Source<'_>, slots: &Slots, slot: Slot) -> Vec<FileOrigin> {
    let artifacts = source.candidate.release().boot_artifacts();
    artifacts
        .map(|artifact| FileOrigin::planned(artifact, &origin(artifact, source, slots, slot, 0)))
        .collect()
}

/// Returns how the rest of an artifact is obtained, of which `have` bytes are in the slot that is written.
pub(super) fn origin<'a>(
    artifact: &'a Artifact,
    source: Source<'_>,
    slots: &Slots,
    slot: Slot,
    have: u64,
) -> Origin<'a> {
    let other = slot.other();
    // Only the files of a complete slot were verified.
    let held = match slots.get(other) {
        Content::Complete(manifest) => manifest.release.artifact(artifact.role),
        _ => None,
    };
    let (Some(held), Some(name)) = (held, slot_file(artifact.role)) else {
        return Origin::Download(NoDelta::NoSource(other));
    };
    let path = path_of(other, name);
    if held.sha256 == artifact.sha256 && held.size == artifact.size {
        return Origin::Copy { path };
    }
    let mut deltas: Vec<_> = artifact.deltas.iter().filter(|it| it.from == held.sha256).collect();
    deltas.sort_by_key(|delta| delta.size);
    let failed = match source.retry_failed {
        true => FailedDeltas::default(),
        false => FailedDeltas::read(source.host),
    };
    let rest = artifact.size.saturating_sub(have);
    let mut reason = NoDelta::NotOffered(other);
    for delta in deltas {
        match usable(delta, rest, source.host.available_memory(), &failed) {
            Ok(()) => return Origin::Delta { delta, path, size: held.size },
            Err(problem) => reason = problem,
        }
    }
    Origin::Download(reason)
}

/// Checks whether a delta can be used for the last `rest` bytes of an artifact.
fn usable(
    delta: &DeltaFile,
    rest: u64,
    available: u64,
    failed: &FailedDeltas,
) -> Result<(), NoDelta> {
    let DeltaFile { format, size, memory, sha256, .. } = delta;
    let (size, needed) = (*size, *memory);
    match failed.reason(sha256) {
        _ if format != FORMAT => Err(NoDelta::Format(format.clone())),
        _ if size >= rest || size > DELTA_MAX => Err(NoDelta::Size { size, rest }),
        _ if needed > available / MEMORY_DIVISOR => Err(NoDelta::Memory { needed, available }),
        Some(reason) => Err(NoDelta::Failed(reason)),
        None => Ok(()),
    }
}
