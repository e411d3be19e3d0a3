//! The timeouts for a guest.

use std::time::Duration;

use crate::accel::Accel;

/// The timeouts for a guest under one accelerator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Time from power-on to the first answer.
    pub boot: Duration,
    /// Time with neither console output nor an answer from the listener.
    pub inactivity: Duration,
    /// Time until a push is answered.
    pub push: Duration,
    /// Time from the start of an update to the first answer after the reboot.
    pub update: Duration,
    /// Time from the request to power off until QEMU exits.
    pub power_off: Duration,
}

impl Timeouts {
    /// Returns the timeouts for `accel`.
    ///
    /// Boots take 60 to 90 s under TCG on two free cores, and 10 s under KVM; a busy host takes
    /// several times as long.
    pub(super) fn new(accel: Accel) -> Self {
        let seconds = Duration::from_secs;
        match accel {
            Accel::Kvm => Self {
                boot: seconds(240),
                inactivity: seconds(120),
                push: seconds(300),
                update: seconds(480),
                power_off: seconds(90),
            },
            Accel::Tcg => Self {
                boot: seconds(600),
                inactivity: seconds(240),
                push: seconds(600),
                update: seconds(1200),
                power_off: seconds(180),
            },
        }
    }
}
