//! The firmware of a VM.

use std::fmt;

use serde::Serialize;

use crate::accel::Accel;
use crate::host::ovmf;

/// What boots the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Firmware {
    /// OVMF with Secure Boot enforced and Microsoft's keys enrolled
    UefiSecureboot,
    /// OVMF without Secure Boot
    Uefi,
    /// SeaBIOS
    Bios,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UefiSecureboot => "UEFI with Secure Boot",
            Self::Uefi => "UEFI without Secure Boot",
            Self::Bios => "BIOS",
        })
    }
}

/// The flash images of a UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flash {
    /// The code, never written.
    pub code: String,
    /// The variables; a VM gets a copy.
    pub variables: String,
    /// Whether the variables are writable from system management mode (SMM) alone.
    pub smm: bool,
}

impl Firmware {
    /// The flash images; none for a BIOS, which QEMU has built in.
    ///
    /// SMM protects the variables from a guest that would write them past the firmware. Under KVM it
    /// is left out: nested KVM dies with "KVM: entry failed". Secure Boot is enforced either way.
    pub fn flash(self, accel: Accel) -> Option<Flash> {
        let flash = |code: &str, variables: &str, smm| {
            Some(Flash { code: ovmf(code), variables: ovmf(variables), smm })
        };
        match (self, accel) {
            (Self::UefiSecureboot, Accel::Tcg) => {
                flash("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd", true)
            }
            (Self::UefiSecureboot, Accel::Kvm) => {
                flash("OVMF_CODE_4M.fd", "OVMF_VARS_4M.ms.fd", false)
            }
            (Self::Uefi, _) => flash("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", false),
            (Self::Bios, _) => None,
        }
    }
}
