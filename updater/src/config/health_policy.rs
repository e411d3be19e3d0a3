//! The operator's definition of a healthy host.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The conditions, in addition to `boot-complete.target`, for confirming a new release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    /// Units that must be active.
    pub units: Vec<String>,
    /// Commands for `/bin/sh -c` that must exit with 0.
    pub checks: Vec<String>,
    /// The sources whose Commands must not fail.
    pub sources: Vec<String>,
    /// The time after boot within which the conditions must be met. A host on trial that misses the
    /// deadline reboots.
    pub deadline: Duration,
}

impl HealthPolicy {
    /// The default deadline. Even a slow machine can boot, start containers and run the checks in time.
    pub(crate) const DEADLINE: Duration = Duration::from_secs(15 * 60);
    /// The range of valid deadlines. No host becomes healthy in less than a minute, and with a deadline
    /// of more than a day, an unhealthy host would be down for more than a day.
    pub(super) const DEADLINES: RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(24 * 3600);
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            checks: Vec::new(),
            sources: Vec::new(),
            deadline: Self::DEADLINE,
        }
    }
}
