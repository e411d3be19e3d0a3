//! The time limit and the progress of one activity of a guest.

use std::cell::Cell;
use std::time::{Duration, Instant};

use protocol::pattern::Report;

/// Time between two progress reports.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The state of one activity that has a time limit.
pub(super) struct Watch {
    /// What the testbed is doing.
    pub activity: &'static str,
    /// The time limit.
    pub timeout: Duration,
    /// The start of the activity.
    pub start: Instant,
    /// The time of the last answer, or of the start.
    pub last_answer: Instant,
    /// A description of the last attempt's error or answer.
    pub last_attempt: String,
    last_progress: Cell<Instant>,
}

impl Watch {
    /// Starts the measurement of time.
    pub(super) fn new(activity: &'static str, timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            activity,
            timeout,
            start: now,
            last_answer: now,
            last_attempt: "no attempt was made".into(),
            last_progress: now.into(),
        }
    }

    /// Records an answer of the guest.
    pub(super) fn record_answer(&mut self, report: &Report) {
        self.last_answer = Instant::now();
        let outputs = report.results.iter().map(|r| format!("\n  > {}: {}", r.id, r.output.trim()));
        self.last_attempt = format!("the guest's last answer:{}", outputs.collect::<String>());
    }

    /// Describes the time limit, which was reached.
    pub(super) fn limit_reached(&self) -> String {
        format!("the time limit is {} s", self.timeout.as_secs())
    }

    /// Returns whether a progress report is due, and if so, starts the next interval.
    pub(super) fn progress_is_due(&self) -> bool {
        let due = self.last_progress.get().elapsed() > PROGRESS_INTERVAL;
        if due {
            self.last_progress.set(Instant::now());
        }
        due
    }
}
