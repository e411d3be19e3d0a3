//! What a healthy host is, to its operator.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What has to hold, besides that systemd reached boot-complete.target, before a new release is
/// confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Units that have to be active.
    pub units: Vec<String>,
    /// Commands for `/bin/sh -c` that have to end with 0.
    pub checks: Vec<String>,
    /// How long after the boot all of it may take. A host that is not healthy by then reboots.
    pub deadline: Duration,
}

impl Health {
    /// Time to boot, start containers and find out, on slow machines too.
    pub const DEADLINE: Duration = Duration::from_secs(15 * 60);
    /// What can be asked for. In less than a minute no host is healthy; after a day a host that is not
    /// has been down for a day.
    pub const DEADLINES: RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(24 * 3600);
}

impl Default for Health {
    fn default() -> Self {
        Self { units: Vec::new(), checks: Vec::new(), deadline: Self::DEADLINE }
    }
}
