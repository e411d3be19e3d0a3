//! How far a long piece of work is: one line that is rewritten on a terminal, a line now and then in a
//! journal, events in JSON.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use protocol::Role;
use serde_json::json;

use crate::clock::now;
use crate::host::Host;
use crate::record::{self, Download};

/// A terminal is read by eyes.
const TERMINAL_EVERY: Duration = Duration::from_millis(200);
/// A program can take more.
const JSON_EVERY: Duration = Duration::from_secs(1);
/// Lines stay in the journal: one for each tenth, not faster than this,
const LINE_EVERY: Duration = Duration::from_secs(10);
/// and one where a tenth takes longer than this.
const LINE_AT_LEAST: Duration = Duration::from_secs(300);
/// For `status` in another process.
const RECORD_EVERY: Duration = Duration::from_secs(2);

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

/// Shows how far a piece of work is. Cheap to call for every piece of a file.
#[derive(Debug)]
pub struct Progress {
    show: Show,
    /// Where a download is recorded for `status`, if it is.
    records: Option<Host>,
    part: RefCell<Option<Part>>,
}

impl Progress {
    /// Shows it there.
    pub fn new(show: Show) -> Self {
        Self { show, records: None, part: RefCell::new(None) }
    }

    /// As JSON if that was asked for, else on the terminal if there is one, else in the log.
    pub fn for_update(json: bool, host: &Host) -> Self {
        let show = match json {
            true => Show::Json,
            false if io::stderr().is_terminal() => Show::Terminal,
            false => Show::Lines,
        };
        Self { show, records: Some(host.clone()), part: RefCell::new(None) }
    }

    /// On the terminal, if there is one and nobody asked for JSON.
    pub fn for_terminal(json: bool) -> Self {
        Self::new(if !json && io::stderr().is_terminal() { Show::Terminal } else { Show::Nothing })
    }

    /// `done` of `total` bytes of an artifact are there. The first call says where it begins, which is
    /// not 0 where a download is resumed.
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
            && part.recorded.is_none_or(|at| elapsed >= at + RECORD_EVERY)
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
                to(&mut io::stderr().lock(), &format!("\r{}\x1b[K", part.line(elapsed)))
            }
            Show::Lines => log::info!(
                role = part.name.as_str(), done = part.done, total = part.total;
                "{}", part.line(elapsed)
            ),
            Show::Json => to(&mut io::stdout().lock(), &format!("{}\n", part.event(elapsed))),
        }
    }
}

/// The line on the terminal is removed, and so is the record: what follows is an answer or an error.
impl Drop for Progress {
    fn drop(&mut self) {
        let part = self.part.borrow();
        if self.show == Show::Terminal && part.is_some() {
            to(&mut io::stderr().lock(), "\r\x1b[K");
        }
        if let (Some(host), Some(_)) = (&self.records, &*part) {
            record::remove::<Download>(host);
        }
    }
}

/// Nobody waits for progress: where it cannot be shown, it is not.
fn to(output: &mut impl Write, text: &str) {
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

#[derive(Debug)]
struct Part {
    name: String,
    begun_with: u64,
    done: u64,
    total: u64,
    since: Instant,
    /// When it was shown last, and what was done then.
    shown: Option<(Duration, u64)>,
    recorded: Option<Duration>,
}

impl Part {
    fn new(name: String, begun_with: u64) -> Self {
        let (since, shown, recorded) = (Instant::now(), None, None);
        Self { name, begun_with, done: begun_with, total: 0, since, shown, recorded }
    }

    fn is_due(&self, show: Show, elapsed: Duration) -> bool {
        let (at, done) = match (self.shown, show) {
            (Some(shown), _) => shown,
            (None, Show::Lines | Show::Nothing) => (Duration::ZERO, self.begun_with),
            (None, Show::Terminal | Show::Json) => return true,
        };
        let waited = elapsed.saturating_sub(at);
        let is_end = self.done >= self.total && done < self.total;
        match show {
            Show::Nothing => false,
            Show::Terminal => is_end || waited >= TERMINAL_EVERY,
            Show::Json => is_end || waited >= JSON_EVERY,
            Show::Lines => {
                let tenth = self.done.saturating_sub(done) >= self.total / 10;
                (tenth && waited >= LINE_EVERY) || waited >= LINE_AT_LEAST
            }
        }
    }

    fn percent(&self) -> u64 {
        match self.total {
            0 => 100,
            total => (u128::from(self.done.min(total)) * 100 / u128::from(total)) as u64,
        }
    }

    /// Bytes per second, as soon as that can be known.
    fn rate(&self, elapsed: Duration) -> Option<u64> {
        let come = self.done.saturating_sub(self.begun_with);
        (come > 0 && elapsed >= JSON_EVERY).then(|| (come as f64 / elapsed.as_secs_f64()) as u64)
    }

    fn line(&self, elapsed: Duration) -> String {
        let Self { name, done, total, .. } = self;
        let (done, all) = (mebibytes(*done), mebibytes(*total));
        let mut line = format!("{name}  {done} of {all} MiB  {}%", self.percent());
        if let Some(rate) = self.rate(elapsed) {
            let left = total.saturating_sub(self.done) / rate.max(1);
            line.push_str(&format!("  {} MiB/s  {} left", mebibytes(rate), clock(left)));
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

fn clock(seconds: u64) -> String {
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds % 3600 / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(begun_with: u64, done: u64, total: u64) -> Part {
        Part { done, total, ..Part::new("initrd".into(), begun_with) }
    }

    #[test]
    fn a_line_has_bytes_percent_rate_and_time() {
        let seconds = Duration::from_secs;
        assert_eq!(part(0, 0, 250 * MIB).line(seconds(0)), "initrd  0.0 of 250.0 MiB  0%");
        assert_eq!(
            part(0, 120 * MIB, 250 * MIB).line(seconds(10)),
            "initrd  120.0 of 250.0 MiB  48%  12.0 MiB/s  0:10 left"
        );
        // What was there before does not count as fast.
        assert_eq!(
            part(100 * MIB, 101 * MIB, 7301 * MIB).line(seconds(1)),
            "initrd  101.0 of 7301.0 MiB  1%  1.0 MiB/s  2:00:00 left"
        );
        assert_eq!(part(0, 7, 0).percent(), 100);
        assert_eq!(part(0, u64::MAX, 10).percent(), 100);
    }

    #[test]
    fn events_are_json() {
        let event = part(0, 2048, 4096).event(Duration::from_secs(2));
        assert_eq!(
            event,
            json!({"event": "progress", "role": "initrd", "done": 2048, "total": 4096, "bytesPerSecond": 1024})
        );
        assert_eq!(part(0, 0, 1).event(Duration::ZERO)["bytesPerSecond"], json!(null));
    }

    #[test]
    fn it_is_shown_now_and_then() {
        let shown = |show: Show, step: Duration, count: u64| {
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
        assert_eq!(shown(Show::Nothing, ms(10), 1000), 0);
        // A second: at the beginning, five times, and at the end.
        assert_eq!(shown(Show::Terminal, ms(10), 100), 6);
        assert_eq!(shown(Show::Json, ms(10), 150), 3);
        assert_eq!(shown(Show::Lines, ms(10), 500), 0);
        assert_eq!(shown(Show::Lines, Duration::from_secs(1), 1000), 10);
        // A tenth takes an hour: every five minutes.
        assert_eq!(shown(Show::Lines, Duration::from_secs(36), 1000), 1000 * 36 / 324);
    }

    #[test]
    fn a_download_is_recorded_while_it_goes_on() {
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
