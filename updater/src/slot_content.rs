//! The contents of the two slots, which [`crate::slots`] determines and on which [`crate::plan`] and
//! [`crate::trial`] base their decisions.

use protocol::esp::Slot;
use protocol::release::ReleaseId;
use protocol::{Manifest, Release};

/// The content of one slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The slot is empty.
    Empty,
    /// A release whose manifest, which is given, verifies and whose files match the manifest.
    Complete(Manifest),
    /// An unfinished download. The next installation of the same release resumes it.
    Partial {
        /// The release that is being downloaded.
        release: Release,
        /// The number of bytes that are on the disk.
        bytes: u64,
    },
    /// Anything else.
    Damaged {
        /// The manifest of the release that the slot should hold, if it still verifies.
        manifest: Option<Manifest>,
        /// What is wrong.
        problem: String,
    },
}

impl Content {
    /// Returns the manifest of the release that the slot holds or should hold. A partial download is not
    /// a release.
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Empty | Self::Partial { .. } => None,
            Self::Complete(manifest) => Some(manifest),
            Self::Damaged { manifest, .. } => manifest.as_ref(),
        }
    }

    /// Returns the release of [`Content::manifest`].
    pub fn release(&self) -> Option<&Release> {
        self.manifest().map(|manifest| &manifest.release)
    }

    /// Returns whether the slot holds a complete release.
    pub fn is_complete(&self) -> bool {
        matches!(self, Self::Complete(_))
    }

    /// Returns whether the slot holds the complete release with this id.
    pub(crate) fn holds(&self, id: ReleaseId) -> bool {
        matches!(self, Self::Complete(manifest) if manifest.release.id() == id)
    }
}

/// The contents of both slots.
#[derive(Debug, Clone, PartialEq)]
pub struct Slots {
    /// The content of `etchaos/a`.
    pub a: Content,
    /// The content of `etchaos/b`.
    pub b: Content,
}

impl Slots {
    /// Returns the content of a slot.
    pub fn get(&self, slot: Slot) -> &Content {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}
