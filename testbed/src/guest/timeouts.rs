//! How long a guest is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::accel::Accel;

/// How long things may take, by accelerator.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From power to the first answer.
    pub boot: Duration,
    /// Without a word on the console and without an answer.
    pub silence: Duration,
    /// For the answer to a push.
    pub push: Duration,
    /// From the start of an update to the first answer after the reboot.
    pub update: Duration,
    /// From the order to power off to the end of QEMU.
    pub power_off: Duration,
}

impl Timeouts {
    /// Boots take 60 to 90 s under TCG on two free cores, and 10 s under KVM; a host that builds
    /// something else meanwhile takes several times that.
    pub fn with(accel: Accel) -> Self {
        let seconds = Duration::from_secs;
        match accel {
            Accel::Kvm => Self {
                boot: seconds(240),
                silence: seconds(120),
                push: seconds(300),
                update: seconds(480),
                power_off: seconds(90),
            },
            Accel::Tcg => Self {
                boot: seconds(600),
                silence: seconds(240),
                push: seconds(600),
                update: seconds(1200),
                power_off: seconds(180),
            },
        }
    }
}

/// A wish to stop, from another thread: a handler of Ctrl-C, say.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks what is running to stop soon.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
