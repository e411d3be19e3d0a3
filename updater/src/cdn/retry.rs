//! When to ask again: exponential backoff with full jitter, and what the server asks for. Decisions
//! only; nothing here sleeps.

use std::time::{Duration, Instant, SystemTime};

use httpdate::parse_http_date;

/// The longest `Retry-After` that is honoured. A server must not be able to keep a host from updates.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// How often to ask, and how long to wait in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Requests at most without getting any further.
    pub attempts: u32,
    /// The first pause is at most this long, and each one after it at most twice the one before,
    pub first: Duration,
    /// up to this.
    pub longest: Duration,
    /// Everything at most, requests and pauses, without getting any further.
    pub patience: Duration,
}

/// How often was asked since we got further.
#[derive(Debug)]
pub(super) struct Attempts {
    retries: Retries,
    failed: u32,
    since: Instant,
}

impl Attempts {
    pub(super) fn new(retries: Retries, now: Instant) -> Self {
        Self { retries, failed: 0, since: now }
    }

    /// We got further: everything is counted anew.
    pub(super) fn advanced(&mut self, now: Instant) {
        *self = Self::new(self.retries, now);
    }

    /// After a failure: how long to wait, or `None` to give up. `asked` is what the server asked for,
    /// `jitter` is between 0 and 1.
    pub(super) fn next(
        &mut self,
        asked: Option<Duration>,
        now: Instant,
        jitter: f64,
    ) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.retries.attempts {
            return None;
        }
        let asked = asked.unwrap_or_default().min(RETRY_AFTER_MAX);
        let pause = backoff(&self.retries, self.failed, jitter).max(asked);
        let spent = now.saturating_duration_since(self.since);
        (spent + pause <= self.retries.patience).then_some(pause)
    }
}

/// The pause after so many failures: any length up to the limit is as likely as any other, so that
/// hosts that failed together do not come back together.
fn backoff(retries: &Retries, failures: u32, jitter: f64) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let limit = retries.first.saturating_mul(doubled).min(retries.longest);
    limit.mul_f64(jitter.clamp(0.0, 1.0))
}

/// What `Retry-After` asks for (RFC 9110 section 10.2.3): seconds, or a date. `date` is the answer's
/// own `Date`, which is better than our clock for the difference of the two.
pub(super) fn retry_after(value: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let then = parse_http_date(value).ok()?;
    let now = date.and_then(|date| parse_http_date(date).ok()).unwrap_or(now);
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRIES: Retries = Retries {
        attempts: 5,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(6),
        patience: Duration::from_secs(100),
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_then_it_is_given_up() {
        let start = Instant::now();
        let mut attempts = Attempts::new(RETRIES, start);
        let pauses = [(); 5].map(|()| attempts.next(None, start, 1.0).map(|p| p.as_secs()));
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(6), None]);
        attempts.advanced(start);
        assert_eq!(attempts.next(None, start, 0.5), Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_server_may_ask_for_longer_within_bounds() {
        let start = Instant::now();
        let next = |asked, patience| {
            let patience = Duration::from_secs(patience);
            let mut attempts = Attempts::new(Retries { patience, ..RETRIES }, start);
            attempts.next(Some(Duration::from_secs(asked)), start, 0.0).map(|p| p.as_secs())
        };
        assert_eq!(next(90, 100), Some(90));
        assert_eq!(next(101, 100), None);
        assert_eq!(next(u64::MAX, 10_000), Some(600));
    }

    #[test]
    fn patience_counts_the_requests_too() {
        let start = Instant::now();
        let mut attempts = Attempts::new(RETRIES, start);
        assert_eq!(attempts.next(None, start + Duration::from_secs(100), 1.0), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = at(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let asked = |text: &str, date| retry_after(text, date, now).map(|d| d.as_secs());
        assert_eq!(asked("120", None), Some(120));
        assert_eq!(asked(" 0 ", None), Some(0));
        assert_eq!(asked("99999999999999999999999", None), Some(u64::MAX));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT", None), Some(60));
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT", Some("garbage")), Some(60));
        let served = Some("Sun, 06 Nov 1994 08:50:30 GMT");
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:37 GMT", served), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", None), Some(0));
        for bad in ["", "soon", "-1", "1.5", "1 2", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(asked(bad, None), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_its_limit(failures in 0u32.., jitter in -1.0..2.0f64) {
            let pause = backoff(&RETRIES, failures, jitter);
            let doubled = 1u64 << failures.saturating_sub(1).min(40);
            prop_assert!(pause <= Duration::from_secs(doubled.min(6)));
        }

        #[test]
        fn any_retry_after_is_read_without_a_panic(text in ".*", date in ".*") {
            let _ = retry_after(&text, Some(&date), at(0));
        }

        #[test]
        fn a_date_is_what_it_was_written_as(ahead in 0u64..1_000_000) {
            let text = httpdate::fmt_http_date(at(1_700_000_000 + ahead));
            let asked = retry_after(&text, None, at(1_700_000_000));
            prop_assert_eq!(asked, Some(Duration::from_secs(ahead)));
        }
    }
}
