//! Selects the accelerator, by a probe if the user has no preference.
//!
//! The existence of `/dev/kvm` is not enough: on some hosts it can be opened, but a stock kernel
//! hangs in its first instructions. The probe therefore runs a kernel, or at least the firmware,
//! under KVM and waits for console output.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::Arch;

use crate::accel::{Accel, ForeignKvm, Preference, Selection, foreign};
use crate::firmware::Firmware;
use crate::machine::{Boot, Machine};
use crate::platform::platform;
use crate::sector_size::SectorSize;
use crate::vm::Vm;

/// Where KVM works, a kernel panics within 2 s, and OVMF prints within 3 s.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Time between two looks at the VM.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The problem on the console of a kernel that boots and finds no root file system.
const KERNEL_BOOTED: &str = "the kernel panicked";

/// Selects the accelerator for guests of `arch`.
///
/// With [`Preference::Auto`], the first call in a process probes KVM, in a new directory `probe`
/// within `dir`; later calls return the same result. The probe runs `kernel` or, without one, the
/// firmware. Guests of a foreign architecture are emulated, without a probe.
///
/// # Errors
/// Fails with [`Preference::Kvm`] if `arch` is not the host's architecture.
pub(crate) fn select(
    preference: Preference,
    arch: Arch,
    kernel: Option<&Path>,
    dir: &Path,
) -> Result<Selection, ForeignKvm> {
    static FOUND: Mutex<Option<Selection>> = Mutex::new(None);
    preference.check(arch)?;
    let because = |accel, why: &str| Selection { accel, why: why.to_owned() };
    Ok(match preference {
        Preference::Kvm => because(Accel::Kvm, "requested"),
        Preference::Tcg => because(Accel::Tcg, "requested"),
        Preference::Auto if Arch::native() != Some(arch) => because(Accel::Tcg, &foreign(arch)),
        Preference::Auto => {
            let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
            found.get_or_insert_with(|| probe(arch, kernel, dir)).clone()
        }
    })
}

fn probe(arch: Arch, kernel: Option<&Path>, dir: &Path) -> Selection {
    let selection = match try_kvm(arch, kernel, dir) {
        Ok(why) => Selection { accel: Accel::Kvm, why },
        Err(why) => Selection { accel: Accel::Tcg, why },
    };
    log::info!("accelerator: {selection}");
    selection
}

/// Returns how KVM was found to work, or the reason why it does not.
fn try_kvm(arch: Arch, kernel: Option<&Path>, dir: &Path) -> Result<String, String> {
    if !Path::new("/dev/kvm").exists() {
        return Err("/dev/kvm does not exist".into());
    }
    let boot = kernel.map_or(Boot::Nothing, |kernel| Boot::Kernel(kernel.into()));
    let guest = if kernel.is_some() { "a kernel" } else { "the firmware" };
    let bios = kernel.is_some() && platform(arch).has_bios;
    let machine = Machine {
        name: "probe".into(),
        arch,
        // With a UEFI firmware, QEMU passes the kernel to the firmware, which starts it.
        firmware: if bios { Firmware::Bios } else { Firmware::Uefi },
        boot,
        sector_size: SectorSize::B512,
        accel: Accel::Kvm,
        memory: 512,
        cpus: 2,
        tpm: false,
        config: None,
        forward: None,
    };
    let cannot = |why: &dyn fmt::Display| {
        let why = why.to_string().replace('\n', "; ");
        format!("/dev/kvm exists but is not usable: {why}")
    };
    std::fs::create_dir_all(dir).map_err(|error| cannot(&error))?;
    let vm = Vm::start(&machine, &dir.join("probe"), dir, None).map_err(|error| cannot(&error))?;
    let start = Instant::now();
    while start.elapsed() < PROBE_TIMEOUT {
        let took = start.elapsed().as_secs_f32();
        let problem = vm.problem();
        if problem.as_ref().is_some_and(|problem| problem.starts_with(KERNEL_BOOTED)) {
            return Ok(format!("a kernel booted under KVM in {took:.1} s"));
        }
        if kernel.is_none() && vm.console().last_line().is_some() {
            return Ok(format!("the firmware wrote to the console under KVM in {took:.1} s"));
        }
        if let Some(problem) = problem {
            // QEMU ends when the kernel reboots, perhaps before the console was read to its end.
            if !vm.console_tail(50).contains("Kernel panic") {
                return Err(cannot(&problem));
            }
        }
        thread::sleep(POLL_INTERVAL);
    }
    let last = vm.console().last_line();
    let output = last.map_or("printed nothing".into(), |line| format!("stopped after {line:?}"));
    let timeout = PROBE_TIMEOUT.as_secs();
    Err(format!("/dev/kvm exists, but under KVM {guest} {output} within {timeout} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the architecture of this host and one that is foreign to it.
    fn arches() -> (Arch, Arch) {
        match Arch::native() {
            Some(Arch::Arm64) => (Arch::Arm64, Arch::Amd64),
            _ => (Arch::Amd64, Arch::Arm64),
        }
    }

    #[test]
    fn does_not_probe_an_explicit_preference() {
        let nowhere = Path::new("/nonexistent");
        let select = |preference, arch| select(preference, arch, None, nowhere);
        let (native, foreign) = arches();
        assert_eq!(select(Preference::Kvm, native).unwrap().accel, Accel::Kvm);
        for arch in [native, foreign] {
            let selection = select(Preference::Tcg, arch).unwrap();
            assert_eq!(selection.to_string(), "TCG (emulation): requested");
        }
    }

    #[test]
    fn never_uses_kvm_for_a_foreign_architecture() {
        let nowhere = Path::new("/nonexistent");
        let (native, foreign) = arches();
        let selection = select(Preference::Auto, foreign, None, nowhere).unwrap();
        assert_eq!(selection.accel, Accel::Tcg);
        let why = format!("the host is {native}, the guest {foreign}");
        assert!(selection.why.ends_with(&why), "{selection}");
        let error = select(Preference::Kvm, foreign, None, nowhere).unwrap_err().to_string();
        assert!(error.contains(&why) && error.contains("--accel tcg"), "{error}");
    }
}
