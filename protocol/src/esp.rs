//! The layout of the EFI system partition (ESP). Paths are relative to its root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::role::Role;

/// The directory of EtchaOS.
pub const DIRECTORY: &str = "etchaos";
/// The boot script of GRUB for UEFI and BIOS. The updater never writes it.
pub const GRUB_CFG: &str = "etchaos/grub.cfg";
/// GRUB's environment block; see [`crate::grubenv`].
pub const GRUBENV: &str = "etchaos/grubenv";
/// The configuration of the updater that an operator can provide.
pub const CONFIG: &str = "etchaos/config.json";
/// The certificate and the private key of the host's listener, in PEM.
pub const TLS: &str = "etchaos/tls.pem";
/// The name of the manifest in the directory of a slot.
pub const MANIFEST: &str = "release.jwt";
/// The name of the manifest in the directory of a slot while its release is being downloaded. It
/// describes the release that the partial files belong to.
pub const PARTIAL: &str = "partial.jwt";
/// The name of a JSON file in the directory of a slot that says how the updater obtained its files. A slot that
/// the updater did not write has no such file.
pub const ORIGINS: &str = "origins.json";
/// The name of an empty file in the directory of a slot whose release was confirmed. The boot loader
/// uses it to choose a slot if there is no [`GRUBENV`].
pub const CONFIRMED: &str = "good";

/// An empty file in the directory of a slot whose release has reset the boot counter
/// ([`crate::grubenv::BOOTS`]). Older releases do not reset it, so each of their boots would look like a
/// failed one.
pub const STARTED: &str = "started";

/// The kernel argument that names the booted slot, such as `etchaos.slot=a`.
const ARG_SLOT: &str = "etchaos.slot";
/// The kernel argument that names the ESP by its volume id, such as `etchaos.esp=ABCD-1234`.
pub const ARG_ESP: &str = "etchaos.esp";
/// The kernel argument that says that the slot is on trial and how many tries are left, such as
/// `etchaos.trial=2`. A host needs it if it cannot read the ESP.
pub const ARG_TRIAL: &str = "etchaos.trial";
/// The kernel argument with the number of boots that GRUB saved for this boot, such as `etchaos.boots=1`.
/// It is absent on trial, if GRUB cannot save, and with a `grub.cfg` that does not count boots.
pub const ARG_BOOTS: &str = "etchaos.boots";
/// The kernel argument with the tag of the disk that GRUB booted from.
pub const ARG_DISK: &str = "etchaos.disk";
/// The kernel argument that contains configuration for the updater.
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
    /// Both slots.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// Returns the other slot.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Returns the path of the slot's directory.
    pub fn directory(self) -> String {
        format!("{DIRECTORY}/{self}")
    }

    /// Returns the slot that was booted, according to the kernel command line.
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

/// Returns the path of the script that the signed GRUB of a distribution, such as `debian`, reads
/// first. The path is built into that GRUB; the script sources [`GRUB_CFG`].
pub fn grub_stub(vendor: &str) -> String {
    format!("EFI/{vendor}/grub.cfg")
}

/// Returns the name of an artifact in the directory of a slot, or `None` if hosts do not install it.
pub fn slot_file(role: Role) -> Option<&'static str> {
    match role {
        Role::Kernel => Some("vmlinuz"),
        Role::Initrd => Some("initrd"),
        Role::Disk => None,
    }
}

/// Returns the value of the last `name=value` on a kernel command line.
pub fn argument<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .rev()
        .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_arguments_of_the_command_line() {
        let cmdline = "BOOT_IMAGE=/x etchaos.slot=b etchaos.esp=AB12-CD34 console=ttyS0\n";
        assert_eq!(Slot::from_cmdline(cmdline), Some(Slot::B));
        assert_eq!(argument(cmdline, ARG_ESP), Some("AB12-CD34"));
        assert_eq!(argument(cmdline, "etchaos"), None);
        assert_eq!(Slot::from_cmdline("etchaos.slot=c"), None);
    }
}
