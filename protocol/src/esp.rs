//! The layout of the EFI system partition. Paths are relative to its root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::release::Role;

/// The file system label of the partition: 11 characters at most, upper case (FAT).
pub const LABEL: &str = "ETCHAOS";
/// The directory that is ours.
pub const DIRECTORY: &str = "etchaos";
/// The boot script for UEFI and BIOS. The updater never writes it.
pub const GRUB_CFG: &str = "etchaos/grub.cfg";
/// GRUB's environment block; see [`crate::grubenv`].
pub const GRUBENV: &str = "etchaos/grubenv";
/// The operator's configuration of the updater, if any.
pub const CONFIG: &str = "etchaos/config.json";
/// The name of the manifest in a slot's directory.
pub const MANIFEST: &str = "release.jwt";
/// The name of the manifest in a slot's directory while its release is being downloaded: it says what the
/// other files there are the beginnings of.
pub const PARTIAL: &str = "partial.jwt";
/// The name of an empty file in a slot's directory: what is there was confirmed once. By it the boot loader
/// chooses where it has no [`GRUBENV`].
pub const CONFIRMED: &str = "good";

/// The kernel's argument that says which slot was booted: `etchaos.slot=a`.
pub const ARG_SLOT: &str = "etchaos.slot";
/// The kernel's argument that says from which file system: `etchaos.esp=ABCD-1234`.
pub const ARG_ESP: &str = "etchaos.esp";
/// The kernel's argument that says that the slot is on trial: `etchaos.trial=2`, with the tries that are
/// left. A host that cannot read its ESP must know it, too.
pub const ARG_TRIAL: &str = "etchaos.trial";
/// The kernel's argument that carries configuration for the updater.
pub const ARG_CONFIG: &str = "etchaos.config";

/// One of the two directories on the ESP that hold a bootable release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// `etchaos/a`
    A,
    /// `etchaos/b`
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its directory.
    pub fn directory(self) -> String {
        format!("{DIRECTORY}/{self}")
    }

    /// The slot that the kernel's command line says was booted.
    pub fn from_cmdline(cmdline: &str) -> Option<Self> {
        argument(cmdline, ARG_SLOT)?.parse().ok()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

impl FromStr for Slot {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|slot| slot.to_string() == name).ok_or(())
    }
}

/// The script at the prefix that is built into a distribution's signed GRUB (`debian`, say); it
/// sources [`GRUB_CFG`].
pub fn grub_stub(vendor: &str) -> String {
    format!("EFI/{vendor}/grub.cfg")
}

/// The name of an artifact in a slot's directory; none, if it is not installed there.
pub fn slot_file(role: Role) -> Option<&'static str> {
    match role {
        Role::Kernel => Some("vmlinuz"),
        Role::Initrd => Some("initrd"),
        Role::Disk => None,
    }
}

/// The value of the last `name=value` on a kernel command line.
pub fn argument<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_the_slot() {
        let cmdline = "BOOT_IMAGE=/x etchaos.slot=b etchaos.esp=AB12-CD34 console=ttyS0\n";
        assert_eq!(Slot::from_cmdline(cmdline), Some(Slot::B));
        assert_eq!(argument(cmdline, ARG_ESP), Some("AB12-CD34"));
        assert_eq!(argument(cmdline, "etchaos"), None);
        assert_eq!(Slot::from_cmdline("etchaos.slot=c"), None);
    }
}
