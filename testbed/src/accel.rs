//! The accelerators of QEMU: KVM or emulation.

use std::fmt;

use protocol::Arch;
use serde::Serialize;

/// An accelerator of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Hardware virtualization.
    Kvm,
    /// Emulation. It works on every host, and takes about ten times longer.
    Tcg,
}

impl Accel {
    /// Returns the default number of virtual processors.
    ///
    /// An emulated guest gets one. Before QEMU 8.1, a kernel that patches its own code (static keys,
    /// early during boot) while another processor runs it sometimes fails with "Oops: int3", because
    /// that processor hits a breakpoint that was already removed.
    pub fn cpus(self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Tcg => 1,
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG (emulation)",
        })
    }
}

/// The accelerator that the user wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Preference {
    /// KVM if a probe shows that it works, else TCG. A foreign architecture needs no probe
    #[default]
    Auto,
    /// KVM, without a probe. It runs only the architecture of the host
    Kvm,
    /// TCG, without a probe
    Tcg,
}

/// An accelerator, and the reason for its selection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// The accelerator.
    pub accel: Accel,
    /// The reason.
    pub why: String,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.accel, self.why)
    }
}

/// KVM was requested for an architecture that it cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("KVM was requested, but {}; use --accel auto or --accel tcg", foreign(*.0))]
pub struct ForeignKvm(pub(crate) Arch);

/// Returns why KVM cannot run guests of `arch`, which is not the host's.
pub(crate) fn foreign(arch: Arch) -> String {
    let host = Arch::native().map_or(std::env::consts::ARCH.to_owned(), |host| host.to_string());
    format!("KVM runs only guests of the host's architecture: the host is {host}, the guest {arch}")
}

impl Preference {
    /// Checks that this accelerator can run guests of `arch`.
    ///
    /// # Errors
    /// Fails for KVM if `arch` is not the host's architecture.
    pub fn check(self, arch: Arch) -> Result<(), ForeignKvm> {
        match self {
            Self::Kvm if Arch::native() != Some(arch) => Err(ForeignKvm(arch)),
            _ => Ok(()),
        }
    }
}
