//! The firmware types of a VM.

use std::fmt;

use serde::Serialize;

use crate::accel::Accel;
use crate::host::ovmf;

/// The firmware that boots the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Firmware {
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
pub(crate) struct Flash {
    /// The path of the code, which is read-only.
    pub code: String,
    /// The path of the initial variables, which are copied for each VM.
    pub variables: String,
    /// Whether the variables can be written from system management mode (SMM) only.
    pub smm: bool,
}

impl Firmware {
    /// Returns the flash images, or `None` for the BIOS, which is built into QEMU.
    ///
    /// SMM protects the variables from a guest that bypasses the firmware. It is not used under KVM,
    /// because it makes nested KVM fail with "KVM: entry failed". Secure Boot is enforced with and
    /// without SMM.
    pub(crate) fn flash(self, accel: Accel) -> Option<Flash> {
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
