//! The record of the disk that was booted. It is valid until the next boot. With it, a copy that is attached
//! later is not examined, and the proof need not be repeated after grubenv has changed.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::candidates::Candidate;
use crate::host::read_limited;
use crate::record::replace;

/// The file in the run directory.
const FILE: &str = "disk.json";
/// A link to the device in the run directory, for operators.
const LINK: &str = "boot-disk";
const FILE_MAX: u64 = 4096;

/// The disk that was booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name of the device in sysfs.
    pub(super) name: String,
    pub(super) number: String,
    pub(super) sequence: Option<String>,
    pub(super) serial: Option<String>,
    /// The tag of the disk, to find it if its device gets another name.
    pub(super) tag: Option<String>,
    /// Whether the disk needs a new tag: it has none, or another disk has the same.
    pub(super) needs_tag: bool,
}

impl Record {
    /// Returns the record of a disk that has a tag of its own.
    pub(super) fn of(candidate: &Candidate) -> Self {
        let Candidate { name, number, sequence, serial, .. } = candidate.clone();
        Self { name, number, sequence, serial, tag: None, needs_tag: false }
    }

    /// Returns whether this is the device that was recorded, and not another one with its name.
    pub(super) fn is_of(&self, candidate: &Candidate) -> bool {
        (&self.number, &self.sequence) == (&candidate.number, &candidate.sequence)
    }

    /// Reads the record in the run directory. A record that cannot be read counts as missing.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let bytes = read_limited(&directory.join(FILE), FILE_MAX).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes the record, and the link to the device.
    pub(super) fn write(&self, directory: &Path, node: &Path) -> io::Result<()> {
        replace(&directory.join(FILE), &serde_json::to_vec(self)?)?;
        // Another command may do the same now.
        let link = directory.join(format!("{LINK}.{}", std::process::id()));
        let _ = std::fs::remove_file(&link);
        symlink(node, &link)?;
        std::fs::rename(link, directory.join(LINK))
    }
}
