//! Decides when a failed request is repeated: exponential backoff with full jitter, and `Retry-After`.
//! The functions only compute pauses; the caller sleeps.

use std::time::{Duration, Instant, SystemTime};

use httpdate::parse_http_date;

/// The maximum `Retry-After`. A longer one is shortened to this, so that a server cannot delay updates of
/// a host indefinitely.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// The limits of retries. A download that makes progress resets all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// The maximum number of requests.
    pub attempts: u32,
    /// The maximum length of the first pause. It doubles with each further pause, up to `max_pause`.
    pub first_pause: Duration,
    /// The maximum length of any pause, unless the server requests a longer one.
    pub max_pause: Duration,
    /// The maximum time of all requests and pauses together.
    pub timeout: Duration,
}

/// Counts failed attempts since the last progress.
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

    /// Resets the count and the time after progress.
    pub(super) fn reset(&mut self, now: Instant) {
        *self = Self::new(self.retries, now);
    }

    /// Counts a failure. Returns how long to sleep before the next attempt, or `None` if no attempt is
    /// left. `retry_after` is the pause that the server requests, `jitter` is between 0 and 1.
    pub(super) fn next(
        &mut self,
        retry_after: Option<Duration>,
        now: Instant,
        jitter: f64,
    ) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.retries.attempts {
            return None;
        }
        let requested = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let pause = backoff(&self.retries, self.failed, jitter).max(requested);
        let spent = now.saturating_duration_since(self.since);
        (spent + pause <= self.retries.timeout).then_some(pause)
    }
}

/// Returns the pause after a number of failures. It is evenly distributed up to the limit, so that hosts
/// that failed at the same time do not retry at the same time.
fn backoff(retries: &Retries, failures: u32, jitter: f64) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let limit = retries.first_pause.saturating_mul(doubled).min(retries.max_pause);
    limit.mul_f64(jitter.clamp(0.0, 1.0))
}

/// Parses `Retry-After` (RFC 9110 section 10.2.3), which is a number of seconds or a date. A date is
/// compared with `date`, the `Date` of the same response, or with `now` if there is none: the clocks of
/// host and server may differ.
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
        first_pause: Duration::from_secs(1),
        max_pause: Duration::from_secs(6),
        timeout: Duration::from_secs(100),
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn pauses_double_up_to_maximum_until_attempts_run_out() {
        let start = Instant::now();
        let mut attempts = Attempts::new(RETRIES, start);
        let pauses = [(); 5].map(|()| attempts.next(None, start, 1.0).map(|p| p.as_secs()));
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(6), None]);
        attempts.reset(start);
        assert_eq!(attempts.next(None, start, 0.5), Some(Duration::from_millis(500)));
    }

    #[test]
    fn honours_retry_after_within_limits() {
        let start = Instant::now();
        let next = |requested, timeout| {
            let timeout = Duration::from_secs(timeout);
            let mut attempts = Attempts::new(Retries { timeout, ..RETRIES }, start);
            attempts.next(Some(Duration::from_secs(requested)), start, 0.0).map(|p| p.as_secs())
        };
        assert_eq!(next(90, 100), Some(90));
        assert_eq!(next(101, 100), None);
        assert_eq!(next(u64::MAX, 10_000), Some(600));
    }

    #[test]
    fn timeout_includes_time_of_requests() {
        let start = Instant::now();
        let mut attempts = Attempts::new(RETRIES, start);
        assert_eq!(attempts.next(None, start + Duration::from_secs(100), 1.0), None);
    }

    #[test]
    fn parses_retry_after_seconds_and_dates() {
        let now = at(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        let parse = |text: &str, date| retry_after(text, date, now).map(|d| d.as_secs());
        assert_eq!(parse("120", None), Some(120));
        assert_eq!(parse(" 0 ", None), Some(0));
        assert_eq!(parse("99999999999999999999999", None), Some(u64::MAX));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", None), Some(60));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", Some("garbage")), Some(60));
        let date = Some("Sun, 06 Nov 1994 08:50:30 GMT");
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(7));
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT", None), Some(0));
        for bad in ["", "soon", "-1", "1.5", "1 2", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(parse(bad, None), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn pause_never_exceeds_limit(failures in 0u32.., jitter in -1.0..2.0f64) {
            let pause = backoff(&RETRIES, failures, jitter);
            let doubled = 1u64 << failures.saturating_sub(1).min(40);
            prop_assert!(pause <= Duration::from_secs(doubled.min(6)));
        }

        #[test]
        fn parsing_retry_after_never_panics(text in ".*", date in ".*") {
            let _ = retry_after(&text, Some(&date), at(0));
        }

        #[test]
        fn date_is_parsed_as_formatted(ahead in 0u64..1_000_000) {
            let text = httpdate::fmt_http_date(at(1_700_000_000 + ahead));
            let parsed = retry_after(&text, None, at(1_700_000_000));
            prop_assert_eq!(parsed, Some(Duration::from_secs(ahead)));
        }
    }
}
