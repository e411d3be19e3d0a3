//! The roles of a release's artifacts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an artifact is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The kernel, signed by its distribution.
    Kernel,
    /// The initrd: early init, root skeleton and `/usr`.
    Initrd,
    /// The raw disk image for a first installation, compressed with zstd, for disks with sectors of 512
    /// bytes. Hosts do not download it.
    Disk,
}

impl Role {
    /// The roles that a host needs to boot, in the order in which it installs them.
    pub const BOOT: [Self; 2] = [Self::Kernel, Self::Initrd];

    /// Returns the extension of the artifact's file on the CDN.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Kernel => "vmlinuz",
            Self::Initrd => "initrd",
            Self::Disk => "raw.zst",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Disk => "disk",
        })
    }
}
