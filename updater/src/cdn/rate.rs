//! The rate limit that the operator sets, and the minimum rate of a server. The functions only compute
//! pauses; the caller sleeps.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The size of a burst after an idle period, as the time that it takes at the allowed rate.
const BURST: Duration = Duration::from_millis(100);
/// The minimum rate in bytes per second. Without it, a slower server would keep a host from trying the next mirror.
const MIN_RATE: u64 = 1024;

/// A token bucket. Its level is stored as the time up to which the allowed rate is used up.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: NonZeroU64,
    used_until: Option<Instant>,
}

impl Bucket {
    /// Makes a bucket for `rate` bytes per second.
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self { rate, used_until: None }
    }

    /// Returns the size of a read after which the pause is at most a tenth of a second.
    pub(super) fn chunk(&self) -> usize {
        usize::try_from(self.rate.get() / 10).unwrap_or(usize::MAX).max(1)
    }

    /// Takes `bytes` from the bucket. Returns how long to sleep before the next read.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate.get() as f64);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.used_until.map_or(now, |until| until.max(earliest));
        let until = begin + cost;
        self.used_until = Some(until);
        until.saturating_duration_since(now)
    }
}

/// Measures the rate of a server. Only the time of reads counts, not the pauses of the rate limit.
#[derive(Debug)]
pub(super) struct RateMonitor {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl RateMonitor {
    /// Makes a monitor that evaluates the rate once per `window` of time spent in reads.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    /// Adds a read. Returns whether the server was too slow in the window that this read completes.
    pub(super) fn is_too_slow(&mut self, bytes: usize, waited: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < self.window {
            return false;
        }
        let minimum = self.waited.as_secs_f64() * MIN_RATE as f64;
        let too_slow = (self.bytes as f64) < minimum;
        *self = Self::new(self.window);
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_limits_rate_and_burst() {
        let rate = NonZeroU64::new(1000).unwrap();
        let (mut bucket, start) = (Bucket::new(rate), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(bucket.take(100, start), Duration::from_millis(100));
        assert_eq!(bucket.take(100, start), Duration::from_millis(200));
        assert_eq!(bucket.take(100, after(200)), Duration::from_millis(100));
        // After ten idle seconds the burst is still only that of a tenth of a second.
        assert_eq!(bucket.take(200, after(10_000)), Duration::from_millis(100));
        assert_eq!(bucket.chunk(), 100);
        assert_eq!(Bucket::new(NonZeroU64::MIN).chunk(), 1);
        assert!(Bucket::new(NonZeroU64::MAX).take(usize::MAX, start) < Duration::from_secs(2));
    }

    #[test]
    fn detects_slow_server_but_ignores_own_pauses() {
        let mut monitor = RateMonitor::new(Duration::from_secs(60));
        let second = Duration::from_secs(1);
        assert!((0..59).all(|_| !monitor.is_too_slow(1, second)));
        assert!(monitor.is_too_slow(1, second));
        assert!((0..600).all(|_| !monitor.is_too_slow(2000, second)));
        assert!((0..600).all(|_| !monitor.is_too_slow(1, Duration::ZERO)));
    }
}
