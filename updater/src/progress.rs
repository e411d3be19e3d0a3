//! Progress of downloads and hashing: a line that is updated on a terminal, occasional log lines, or JSON
//! events.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use protocol::Role;
use serde_json::json;

use crate::clock::now;
use crate::host::Host;
use crate::record::{self, Download};

/// The interval of updates on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
/// The interval of JSON events.
const JSON_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum interval of log lines. The journal keeps them, so there is only one per tenth of the work.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// The interval of log lines if a tenth of the work takes longer than this.
const LINE_MAX_INTERVAL: Duration = Duration::from_secs(300);
/// The interval of records, which `status` reads from another process.
const RECORD_INTERVAL: Duration = Duration::from_secs(2);

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Nowhere.
    Nothing,
    /// On a terminal, standard error.
    Terminal,
    /// In the log.
    Lines,
    /// As JSON lines on standard output.
    Json,
}

/// Shows the progress of an operation.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    /// The host whose download record is written for `status`, if any.
    records: Option<Host>,
    part: RefCell<Option<Part>>,
}

impl Progress {
    /// Creates a progress that is shown as given and not recorded.
    pub fn new(show: Show) -> Self {
        Self { show, records: None, part: RefCell::new(None) }
    }

    /// Creates a progress that is recorded. It is shown as JSON if requested, otherwise on the terminal if
    /// there is one, otherwise in the log.
    pub fn for_update(json: bool, host: &Host) -> Self {
        let show = match json {
            true => Show::Json,
            false if io::stderr().is_terminal() => Show::Terminal,
            false => Show::Lines,
        };
        Self { show, records: Some(host.clone()), part: RefCell::new(None) }
    }

    /// Creates a progress that is shown on the terminal, if there is one and JSON is not requested.
    pub fn for_terminal(json: bool) -> Self {
        Self::new(if !json && io::stderr().is_terminal() { Show::Terminal } else { Show::Nothing })
    }

    /// Reports that `done` of `total` bytes of an artifact are complete. The first call sets the starting
    /// point, which is not 0 if a download is resumed. This is cheap enough to be called for each chunk.
    pub fn bytes(&self, role: Role, done: u64, total: u64) {
        let mut part = self.part.borrow_mut();
        let name = role.to_string();
        let part = match &mut *part {
            Some(part) if part.name == name && part.done <= done => part,
            other => other.insert(Part::new(name, done)),
        };
        part.total = total;
        part.done = done;
        let elapsed = part.since.elapsed();
        if part.is_due(self.show, elapsed) {
            self.show(part, elapsed);
            part.shown = Some((elapsed, done));
        }
        if let Some(host) = &self.records
            && part.recorded.is_none_or(|at| elapsed >= at + RECORD_INTERVAL)
        {
            part.recorded = Some(elapsed);
            let role = part.name.clone();
            record::write(host, &Download { time: now(), role, done, total });
        }
    }

    fn show(&self, part: &Part, elapsed: Duration) {
        match self.show {
            Show::Nothing => {}
            Show::Terminal => {
                print(&mut io::stderr().lock(), &format!("\r{}\x1b[K", part.line(elapsed)))
            }
            Show::Lines => log::info!(
                role = part.name.as_str(), done = part.done, total = part.total;
                "{}", part.line(elapsed)
            ),
            Show::Json => print(&mut io::stdout().lock(), &format!("{}\n", part.event(elapsed))),
        }
    }
}

/// Removes the line on the terminal and the record, so that the command can print its result.
impl Drop for Progress {
    fn drop(&mut self) {
        let part = self.part.borrow();
        if self.show == Show::Terminal && part.is_some() {
            print(&mut io::stderr().lock(), "\r\x1b[K");
        }
        if let (Some(host), Some(_)) = (&self.records, &*part) {
            record::remove::<Download>(host);
        }
    }
}

/// Writes text. Ignores errors, because an update must not fail if its progress cannot be shown.
fn print(output: &mut impl Write, text: &str) {
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// The progress of one artifact.
#[derive(Debug)]
struct Part {
    name: String,
    start: u64,
    done: u64,
    total: u64,
    since: Instant,
    /// The time of the last display since `since`, and `done` at that time.
    shown: Option<(Duration, u64)>,
    recorded: Option<Duration>,
}

impl Part {
    fn new(name: String, start: u64) -> Self {
        let (since, shown, recorded) = (Instant::now(), None, None);
        Self { name, start, done: start, total: 0, since, shown, recorded }
    }

    fn is_due(&self, show: Show, elapsed: Duration) -> bool {
        let (at, done) = match (self.shown, show) {
            (Some(shown), _) => shown,
            (None, Show::Lines | Show::Nothing) => (Duration::ZERO, self.start),
            (None, Show::Terminal | Show::Json) => return true,
        };
        let waited = elapsed.saturating_sub(at);
        let is_end = self.done >= self.total && done < self.total;
        match show {
            Show::Nothing => false,
            Show::Terminal => is_end || waited >= TERMINAL_INTERVAL,
            Show::Json => is_end || waited >= JSON_INTERVAL,
            Show::Lines => {
                let tenth = self.done.saturating_sub(done) >= self.total / 10;
                (tenth && waited >= LINE_INTERVAL) || waited >= LINE_MAX_INTERVAL
            }
        }
    }

    fn percent(&self) -> u64 {
        match self.total {
            0 => 100,
            total => (u128::from(self.done.min(total)) * 100 / u128::from(total)) as u64,
        }
    }

    /// Returns the bytes per second, or `None` in the first second and before any data.
    fn rate(&self, elapsed: Duration) -> Option<u64> {
        let received = self.done.saturating_sub(self.start);
        (received > 0 && elapsed >= JSON_INTERVAL)
            .then(|| (received as f64 / elapsed.as_secs_f64()) as u64)
    }

    fn line(&self, elapsed: Duration) -> String {
        let Self { name, done, total, .. } = self;
        let (done, all) = (mebibytes(*done), mebibytes(*total));
        let mut line = format!("{name}  {done} of {all} MiB  {}%", self.percent());
        if let Some(rate) = self.rate(elapsed) {
            let left = total.saturating_sub(self.done) / rate.max(1);
            line.push_str(&format!("  {} MiB/s  {} left", mebibytes(rate), duration(left)));
        }
        line
    }

    fn event(&self, elapsed: Duration) -> serde_json::Value {
        json!({
            "event": "progress",
            "role": self.name,
            "done": self.done,
            "total": self.total,
            "bytesPerSecond": self.rate(elapsed),
        })
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn duration(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds % 3600 / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(start: u64, done: u64, total: u64) -> Part {
        Part { done, total, ..Part::new("initrd".into(), start) }
    }

    #[test]
    fn formats_line_with_bytes_percent_rate_and_time() {
        let seconds = Duration::from_secs;
        assert_eq!(part(0, 0, 250 * MIB).line(seconds(0)), "initrd  0.0 of 250.0 MiB  0%");
        assert_eq!(
            part(0, 120 * MIB, 250 * MIB).line(seconds(10)),
            "initrd  120.0 of 250.0 MiB  48%  12.0 MiB/s  0:10 left"
        );
        // The bytes of an earlier run do not count towards the rate.
        assert_eq!(
            part(100 * MIB, 101 * MIB, 7301 * MIB).line(seconds(1)),
            "initrd  101.0 of 7301.0 MiB  1%  1.0 MiB/s  2:00:00 left"
        );
        assert_eq!(part(0, 7, 0).percent(), 100);
        assert_eq!(part(0, u64::MAX, 10).percent(), 100);
    }

    #[test]
    fn formats_json_events() {
        let event = part(0, 2048, 4096).event(Duration::from_secs(2));
        assert_eq!(
            event,
            json!({"event": "progress", "role": "initrd", "done": 2048, "total": 4096, "bytesPerSecond": 1024})
        );
        assert_eq!(part(0, 0, 1).event(Duration::ZERO)["bytesPerSecond"], json!(null));
    }

    #[test]
    fn limits_how_often_progress_is_shown() {
        let count_shown = |show: Show, step: Duration, count: u64| {
            let mut part = part(0, 0, 1000);
            let mut times = 0;
            for i in 0..=count {
                part.done = 1000 * i / count;
                let elapsed = step * i as u32;
                if part.is_due(show, elapsed) {
                    part.shown = Some((elapsed, part.done));
                    times += 1;
                }
            }
            times
        };
        let ms = Duration::from_millis;
        assert_eq!(count_shown(Show::Nothing, ms(10), 1000), 0);
        // In one second: at the beginning and five more times.
        assert_eq!(count_shown(Show::Terminal, ms(10), 100), 6);
        assert_eq!(count_shown(Show::Json, ms(10), 150), 3);
        assert_eq!(count_shown(Show::Lines, ms(10), 500), 0);
        assert_eq!(count_shown(Show::Lines, Duration::from_secs(1), 1000), 10);
        // A tenth takes an hour: one line every five minutes.
        assert_eq!(count_shown(Show::Lines, Duration::from_secs(36), 1000), 1000 * 36 / 324);
    }

    #[test]
    fn records_download_until_dropped() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let host = Host::new(directory.path());
        let progress =
            Progress { show: Show::Nothing, records: Some(host.clone()), part: RefCell::new(None) };
        progress.bytes(Role::Initrd, 1, 9);
        let found: Download = record::read(&host).unwrap();
        assert_eq!((found.role.as_str(), found.done, found.total), ("initrd", 1, 9));
        drop(progress);
        assert_eq!(record::read::<Download>(&host), None);
    }
}
