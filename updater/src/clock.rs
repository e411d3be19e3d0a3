//! The system clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time in Unix seconds. A clock set before 1970 counts as 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
