//! The firmware types of a VM.

use std::fmt;

use protocol::{Arch, Release};
use serde::Serialize;

use crate::accel::Accel;
use crate::platform::platform;
use crate::sector_size::SectorSize;

/// The firmware that boots the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Firmware {
    /// UEFI with Secure Boot enforced and Microsoft's keys enrolled
    UefiSecureboot,
    /// UEFI without Secure Boot
    Uefi,
    /// SeaBIOS, for amd64
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
    /// Returns whether a virtual machine with this firmware has a TPM. Only a machine with a BIOS has none.
    pub(crate) fn has_tpm(self) -> bool {
        self != Self::Bios
    }

    /// Returns the UEFI firmware that boots a release.
    pub(crate) fn uefi(release: &Release) -> Self {
        if release.secure_boot { Self::UefiSecureboot } else { Self::Uefi }
    }

    /// Returns the reason why no machine of `arch` boots a disk with these sectors with this firmware, or
    /// `None` if machines do.
    pub(crate) fn missing_on(self, arch: Arch, sector_size: SectorSize) -> Option<String> {
        match self {
            Self::Uefi | Self::UefiSecureboot => None,
            Self::Bios if !platform(arch).has_bios => Some(format!("{arch} has no BIOS")),
            Self::Bios if sector_size != SectorSize::B512 => {
                Some(format!("no BIOS boots a disk with sectors of {sector_size} bytes"))
            }
            Self::Bios => None,
        }
    }

    /// Returns the flash images, or `None` for the BIOS, which is built into QEMU.
    ///
    /// On amd64, system management mode (SMM) protects the variables from a guest that bypasses the
    /// firmware. It is not used under KVM, because it makes nested KVM fail with "KVM: entry failed".
    /// Secure Boot is enforced with and without SMM. On arm64, nothing protects the variables.
    pub(crate) fn flash(self, arch: Arch, accel: Accel) -> Option<Flash> {
        let (code, variables, smm) = match (arch, self, accel) {
            (Arch::Amd64, Self::UefiSecureboot, Accel::Tcg) => {
                ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd", true)
            }
            (Arch::Amd64, Self::UefiSecureboot, Accel::Kvm) => {
                ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.ms.fd", false)
            }
            (Arch::Amd64, Self::Uefi, _) => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", false),
            (Arch::Arm64, Self::UefiSecureboot, _) => {
                ("AAVMF_CODE.ms.fd", "AAVMF_VARS.ms.fd", false)
            }
            (Arch::Arm64, Self::Uefi, _) => ("AAVMF_CODE.fd", "AAVMF_VARS.fd", false),
            (_, Self::Bios, _) => return None,
        };
        let path = |name| platform(arch).firmware_file(name);
        Some(Flash { code: path(code), variables: path(variables), smm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_amd64_has_a_bios_and_only_for_small_sectors() {
        let (small, large) = (SectorSize::B512, SectorSize::B4096);
        let bios = |arch, sectors| Firmware::Bios.missing_on(arch, sectors).unwrap_or_default();
        assert_eq!(bios(Arch::Amd64, small), "");
        assert_eq!(bios(Arch::Amd64, large), "no BIOS boots a disk with sectors of 4096 bytes");
        assert_eq!(bios(Arch::Arm64, small), "arm64 has no BIOS");
        assert_eq!(Firmware::UefiSecureboot.missing_on(Arch::Arm64, small), None);
        assert_eq!(Firmware::Uefi.missing_on(Arch::Amd64, large), None);
    }
}
