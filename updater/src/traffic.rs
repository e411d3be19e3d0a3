//! Counts the bytes that updates fetched and saved since the boot, for the metrics.

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::record::{self, Record};

/// Bytes since the boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Bytes of kernels, initrds and deltas that were fetched, also by updates that failed.
    pub fetched: u64,
    /// Bytes that were not fetched, because the other slot had the file.
    pub saved_by_copy: u64,
    /// Bytes that were not fetched, because a delta was fetched instead of the file.
    pub saved_by_delta: u64,
}

impl Record for Traffic {
    const FILE: &'static str = "traffic.json";
}

impl Traffic {
    /// Adds these bytes to the record of a host.
    pub(crate) fn record(self, host: &Host) {
        if self == Self::default() {
            return;
        }
        let before: Self = record::read(host).unwrap_or_default();
        let sum = Self {
            fetched: before.fetched.saturating_add(self.fetched),
            saved_by_copy: before.saved_by_copy.saturating_add(self.saved_by_copy),
            saved_by_delta: before.saved_by_delta.saturating_add(self.saved_by_delta),
        };
        record::write(host, &sum);
    }
}
