//! How fast: not faster than the operator allows, and not slower than is of any use. Decisions only;
//! nothing here sleeps.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What may come at once after a pause: a tenth of a second's worth.
const BURST: Duration = Duration::from_millis(100);
/// A server that sends fewer bytes in a second keeps a host from asking another one.
const SLOWEST: u64 = 1024;

/// A token bucket, kept as the time at which it is empty again.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: NonZeroU64,
    paid_until: Option<Instant>,
}

impl Bucket {
    /// `rate` is in bytes per second.
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self { rate, paid_until: None }
    }

    /// As much as should be read at once, so that the pauses are short.
    pub(super) fn chunk(&self) -> usize {
        usize::try_from(self.rate.get() / 10).unwrap_or(usize::MAX).max(1)
    }

    /// How long to wait after this many bytes.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Duration {
        let price = Duration::from_secs_f64(bytes as f64 / self.rate.get() as f64);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = self.paid_until.map_or(now, |until| until.max(earliest));
        let until = begin + price;
        self.paid_until = Some(until);
        until.saturating_duration_since(now)
    }
}

/// How fast a server is, while we wait for it: our own pauses do not count.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Looked at once in each `window` of waiting.
    pub(super) fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, bytes: 0 }
    }

    /// Whether the server is too slow, after one more read.
    pub(super) fn is_too_slow(&mut self, bytes: usize, waited: Duration) -> bool {
        self.bytes += bytes as u64;
        self.waited += waited;
        if self.waited < self.window {
            return false;
        }
        let slowest = self.waited.as_secs_f64() * SLOWEST as f64;
        let too_slow = (self.bytes as f64) < slowest;
        *self = Self::new(self.window);
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_cost_time_and_a_pause_earns_little() {
        let rate = NonZeroU64::new(1000).unwrap();
        let (mut bucket, start) = (Bucket::new(rate), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(bucket.take(100, start), Duration::from_millis(100));
        assert_eq!(bucket.take(100, start), Duration::from_millis(200));
        assert_eq!(bucket.take(100, after(200)), Duration::from_millis(100));
        // Ten idle seconds earn a tenth of one.
        assert_eq!(bucket.take(200, after(10_000)), Duration::from_millis(100));
        assert_eq!(bucket.chunk(), 100);
        assert_eq!(Bucket::new(NonZeroU64::MIN).chunk(), 1);
        assert!(Bucket::new(NonZeroU64::MAX).take(usize::MAX, start) < Duration::from_secs(2));
    }

    #[test]
    fn a_drip_is_too_slow_and_waiting_for_nobody_is_not() {
        let mut pace = Pace::new(Duration::from_secs(60));
        let second = Duration::from_secs(1);
        assert!((0..59).all(|_| !pace.is_too_slow(1, second)));
        assert!(pace.is_too_slow(1, second));
        assert!((0..600).all(|_| !pace.is_too_slow(2000, second)));
        assert!((0..600).all(|_| !pace.is_too_slow(1, Duration::ZERO)));
    }
}
