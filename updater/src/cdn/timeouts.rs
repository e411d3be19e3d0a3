//! Timeouts and retry limits of a client.

use std::time::Duration;

use super::retries::Retries;

/// Timeouts and retry limits. The defaults are those of a host; tests use shorter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The time in which name servers must answer, and then a server must accept a connection.
    pub connect: Duration,
    /// The longest time without any data before a download counts as stalled.
    pub stall: Duration,
    /// The time for a complete manifest request. A manifest usually has 60 kB and at most 1 MiB, which
    /// is 9 kB/s. A slower server would keep a host from trying the next mirror.
    pub manifest: Duration,
    /// Retries of a manifest request. There are few, because there may be other mirrors, and the timer
    /// starts the next poll in any case.
    pub manifest_retries: Retries,
    /// Retries of an artifact download that make no progress.
    pub download_retries: Retries,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let first_pause = seconds(1);
        Self {
            connect: seconds(30),
            stall: seconds(60),
            manifest: seconds(120),
            manifest_retries: Retries {
                attempts: 4,
                first_pause,
                max_pause: seconds(8),
                timeout: seconds(120),
            },
            download_retries: Retries {
                attempts: 9,
                first_pause,
                max_pause: seconds(60),
                timeout: seconds(1800),
            },
        }
    }
}

impl Timeouts {
    /// Limits the pause between two attempts. A longer pause that a server requests is still honoured.
    pub fn with_max_pause(mut self, max_pause: Duration) -> Self {
        for retries in [&mut self.manifest_retries, &mut self.download_retries] {
            retries.max_pause = retries.max_pause.min(max_pause);
        }
        self
    }
}
