//! The file of a slot that says where the files of its release came from. It outlives the reboot into that
//! release, unlike the records in `/run`.

use protocol::esp::{ORIGINS, Slot};
use protocol::{Release, Role};
use serde::{Deserialize, Serialize};

use super::job::path_of;
use super::origin::FileOrigin;
use crate::files::{FileSystem, read_limited};

/// The maximum size of the file.
pub(super) const STORED_MAX: u64 = 8192;
/// How many characters of a reason are stored. In JSON, a character has at most twelve bytes.
const REASON_MAX: usize = 300;

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// The ID of the release. Another system may replace the release and leave this file.
    release: String,
    files: Vec<FileOrigin>,
}

/// Returns the content of the file.
pub(super) fn to_text(release: &Release, origins: &[FileOrigin]) -> String {
    let shortened = |origin: &FileOrigin| {
        let reason = origin.reason.as_ref().map(|text| text.chars().take(REASON_MAX).collect());
        FileOrigin { reason, ..origin.clone() }
    };
    let files = origins.iter().map(shortened).collect();
    let stored = Stored { release: release.id().to_string(), files };
    serde_json::to_string(&stored).expect("it has only texts and numbers")
}

/// Returns where the files of the release in a slot came from, or an empty list if that is not known.
pub(crate) fn stored_origins(
    esp: &dyn FileSystem,
    slot: Slot,
    release: &Release,
) -> Vec<FileOrigin> {
    let bytes = read_limited(esp, &path_of(slot, ORIGINS), STORED_MAX).ok().flatten();
    let stored = bytes.and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
    let is_valid = |stored: &Stored| {
        let roles = stored.files.iter().map(|origin| origin.role);
        stored.release == release.id().to_string() && roles.eq(Role::BOOT)
    };
    let stored = stored.filter(is_valid);
    stored.map_or(Vec::new(), |stored| stored.files)
}
