//! What is installed, and where.

use protocol::KeyRing;
use protocol::esp::Slot;

use crate::candidate::Candidate;
use crate::cdn::Cdn;
use crate::files::FileSystem;
use crate::host::Host;
use crate::progress::Progress;
use crate::slot_content::Slots;

/// A release that a CDN offers, and what is needed to download and verify it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The release.
    pub candidate: &'a Candidate,
    /// The client for the CDN.
    pub cdn: &'a Cdn,
    /// Origins, `https://host[:port]`, to which artifact URLs may lead in addition to the origin of the CDN.
    pub allowed_origins: &'a [String],
    /// The trusted keys, which verify what the slots hold.
    pub keys: &'a KeyRing,
    /// The host. Its available memory limits the use of deltas, and its records have those that failed.
    pub host: &'a Host,
    /// Whether deltas that failed may be tried again.
    pub retry_failed: bool,
}

/// One installation: the slot to write to, and the source of the release.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The ESP.
    pub esp: &'a dyn FileSystem,
    /// The slot to write to, chosen by [`crate::plan::next`].
    pub slot: Slot,
    /// The release and its source.
    pub source: Source<'a>,
    /// The contents of the slots. A file that the other slot holds is not downloaded.
    pub slots: &'a Slots,
    /// Receives the progress of the downloads.
    pub progress: &'a Progress,
}

/// Returns the path of a file of a slot.
pub(super) fn path_of(slot: Slot, name: &str) -> String {
    format!("{}/{name}", slot.directory())
}
