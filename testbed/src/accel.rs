//! What runs the guest's instructions: KVM, where it works, or emulation.
//!
//! That `/dev/kvm` is there proves nothing: there are machines where it can be opened and a stock
//! kernel hangs at its first steps. So a kernel, or at least the firmware, is run under KVM and has
//! to say something.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::firmware::Firmware;
use crate::machine::{Boot, Machine};
use crate::vm::Vm;

/// Where KVM works, a kernel panics within 2 s, and OVMF speaks within 3 s.
const PROBE_PATIENCE: Duration = Duration::from_secs(20);
/// How often the probe looks.
const POLL: Duration = Duration::from_millis(100);
/// What a kernel says that came all the way to where it needs a root.
const KERNEL_RAN: &str = "the kernel panicked";

/// An accelerator of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// The processor's own virtualization.
    Kvm,
    /// Emulation. It works everywhere, and takes about ten times longer.
    Tcg,
}

impl Accel {
    /// How many virtual processors a guest gets, unless told otherwise.
    ///
    /// Emulated, one. Before QEMU 8.1 a kernel that patches its own code while another processor runs
    /// it (static keys, in the first seconds of a boot) now and then dies of a breakpoint that was
    /// already taken away: "Oops: int3". With one processor there is no other.
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

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Request {
    /// KVM if a probe shows that it works, else TCG
    #[default]
    Auto,
    /// KVM, without a probe
    Kvm,
    /// TCG, without a probe
    Tcg,
}

/// An accelerator, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The accelerator.
    pub accel: Accel,
    /// Why.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.accel, self.why)
    }
}

/// Chooses the accelerator. With [`Request::Auto`], the first call of a process probes, in a new
/// directory `probe` within `dir`; later calls repeat what it found.
///
/// `kernel` is run, if there is one; else the firmware.
pub fn choose(request: Request, kernel: Option<&Path>, dir: &Path) -> Choice {
    static FOUND: Mutex<Option<Choice>> = Mutex::new(None);
    let because = |accel, why: &str| Choice { accel, why: why.to_owned() };
    match request {
        Request::Kvm => because(Accel::Kvm, "asked for"),
        Request::Tcg => because(Accel::Tcg, "asked for"),
        Request::Auto => {
            let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
            found.get_or_insert_with(|| probe(kernel, dir)).clone()
        }
    }
}

fn probe(kernel: Option<&Path>, dir: &Path) -> Choice {
    let choice = match try_kvm(kernel, dir) {
        Ok(why) => Choice { accel: Accel::Kvm, why },
        Err(why) => Choice { accel: Accel::Tcg, why },
    };
    log::info!("accelerator: {choice}");
    choice
}

/// Why KVM works, or why not.
fn try_kvm(kernel: Option<&Path>, dir: &Path) -> Result<String, String> {
    if !Path::new("/dev/kvm").exists() {
        return Err("there is no /dev/kvm".into());
    }
    let boot = kernel.map_or(Boot::Nothing, |kernel| Boot::Kernel(kernel.into()));
    let guest = if kernel.is_some() { "a kernel" } else { "the firmware" };
    let machine = Machine {
        name: "probe".into(),
        firmware: if kernel.is_some() { Firmware::Bios } else { Firmware::Uefi },
        boot,
        accel: Accel::Kvm,
        memory: 512,
        cpus: 2,
        tpm: false,
        config: None,
        forward: None,
    };
    let cannot = |why: &dyn fmt::Display| {
        let why = why.to_string().replace('\n', "; ");
        format!("/dev/kvm is there, but not usable: {why}")
    };
    std::fs::create_dir_all(dir).map_err(|error| cannot(&error))?;
    let vm = Vm::start(&machine, &dir.join("probe"), dir, None).map_err(|error| cannot(&error))?;
    let start = Instant::now();
    while start.elapsed() < PROBE_PATIENCE {
        let took = start.elapsed().as_secs_f32();
        let trouble = vm.trouble();
        if trouble.as_ref().is_some_and(|trouble| trouble.starts_with(KERNEL_RAN)) {
            return Ok(format!("a kernel ran under it in {took:.1} s"));
        }
        if kernel.is_none() && vm.console().last_line().is_some() {
            return Ok(format!("the firmware spoke under it in {took:.1} s"));
        }
        if let Some(trouble) = trouble {
            // QEMU ends with the kernel's reboot, perhaps before its last words were seen.
            if !vm.console_tail(50).contains("Kernel panic") {
                return Err(cannot(&trouble));
            }
        }
        thread::sleep(POLL);
    }
    let last = vm.console().last_line();
    let said = last.map_or("said nothing".into(), |line| format!("came no further than {line:?}"));
    let timeout = PROBE_PATIENCE.as_secs();
    Err(format!("/dev/kvm is there, but {guest} {said} under KVM in {timeout} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_not_probed() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(choose(Request::Kvm, None, nowhere).accel, Accel::Kvm);
        assert_eq!(choose(Request::Tcg, None, nowhere).to_string(), "TCG (emulation): asked for");
    }
}
