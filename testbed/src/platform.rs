//! The differences between the machines of the architectures.

use protocol::Arch;

/// The properties of the machines of one architecture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    /// The QEMU program.
    pub qemu: &'static str,
    /// The Debian package of the QEMU program.
    pub qemu_package: &'static str,
    /// The directory of the UEFI firmware in the packages of Debian and Ubuntu.
    pub firmware: &'static str,
    /// The Debian package of the UEFI firmware.
    pub firmware_package: &'static str,
    /// The kernel's name for the first serial port.
    pub serial: &'static str,
    /// QEMU's name for the TPM device.
    pub tpm: &'static str,
    /// The abbreviation of the architecture in the names of UEFI boot loaders, such as `bootx64.efi`
    /// (UEFI specification, section 3.5.1.1).
    pub efi: &'static str,
    /// Whether machines can boot by BIOS.
    pub has_bios: bool,
}

const AMD64: Platform = Platform {
    qemu: "qemu-system-x86_64",
    qemu_package: "qemu-system-x86",
    firmware: "/usr/share/OVMF",
    firmware_package: "ovmf",
    serial: "ttyS0",
    tpm: "tpm-crb",
    efi: "x64",
    has_bios: true,
};

const ARM64: Platform = Platform {
    qemu: "qemu-system-aarch64",
    qemu_package: "qemu-system-arm",
    firmware: "/usr/share/AAVMF",
    firmware_package: "qemu-efi-aarch64",
    serial: "ttyAMA0",
    // The machine has no tpm-crb.
    tpm: "tpm-tis-device",
    efi: "aa64",
    has_bios: false,
};

/// Returns the properties of the machines of `arch`.
pub(crate) const fn platform(arch: Arch) -> &'static Platform {
    match arch {
        Arch::Amd64 => &AMD64,
        Arch::Arm64 => &ARM64,
    }
}

impl Platform {
    /// Returns the absolute path of a firmware file.
    pub(crate) fn firmware_file(&self, name: &str) -> String {
        format!("{}/{name}", self.firmware)
    }
}
