//! Runs a command for several targets side by side: each in a builder process of its own.
//!
//! A process of its own gives each target its signals, its mounts and its progress. The processes share the output
//! directory and the checkout; locks keep them from using the same file at the same time.
//!
//! - [`schedule`] decides which targets run at the same time, and [`memory`] how much each needs
//! - [`child`] starts the builder of a target and reads what it reports
//! - [`record`] is what is known of a target, [`display`] shows it while it runs and [`summary`] at the end

mod child;
mod display;
mod memory;
mod record;
mod schedule;
mod summary;

use std::ffi::OsString;
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use protocol::Target;

use crate::memory::available;
use crate::progress::message;
use child::{Child, Report};
use display::Display;
use record::Record;
use schedule::{Limits, Schedule};

pub(crate) use child::ChildArgs;
pub(crate) use memory::Work;

/// A command for several targets.
#[derive(Debug)]
pub(crate) struct Several<'a> {
    /// The targets.
    pub targets: &'a [Target],
    /// What the command does for each.
    pub work: Work,
    /// The maximum number of targets at a time; the number of processors if absent.
    pub jobs: Option<NonZeroUsize>,
    /// Whether to print the result as JSON.
    pub json: bool,
}

impl Several<'_> {
    /// Runs the command of this process for each target, and prints one summary.
    ///
    /// # Errors
    /// Fails after all targets have ended if one of them failed.
    pub(crate) fn run(&self, out: &mut impl Write) -> Result<()> {
        let processors = available_parallelism().context("counting the processors")?.get();
        let jobs = self.jobs.map_or(processors, NonZeroUsize::get);
        let limits = Limits { jobs, memory: available()? };
        let need = self.work.memory(processors);
        message(&plan(self.targets.len(), limits, need));
        let (sender, reports) = channel();
        let mut running = Running {
            arguments: std::env::args_os().skip(1).collect(),
            schedule: Schedule::new(limits, &vec![need; self.targets.len()]),
            children: self.targets.iter().map(|_| None).collect(),
            records: self.targets.iter().cloned().map(Record::new).collect(),
            display: Display::new(self.targets),
            sender,
            reports,
        };
        running.run();
        let Running { records, display, .. } = running;
        display.clear();
        summary::print(&records, self.json, out)?;
        let failed: Vec<String> =
            records.iter().filter(|r| r.has_failed()).map(|r| r.target.to_string()).collect();
        ensure!(
            failed.is_empty(),
            "{} of {} targets failed: {}",
            failed.len(),
            records.len(),
            failed.join(", ")
        );
        Ok(())
    }
}

/// Returns what is about to happen, in one line.
fn plan(targets: usize, Limits { jobs, memory }: Limits, need: u64) -> String {
    let fit = usize::try_from(memory / need).unwrap_or(usize::MAX);
    let count = targets.min(jobs).min(fit).max(1);
    let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "{targets} targets, {count} at a time: at most {jobs} jobs, and {fit} targets that need {:.1} GiB fit into {:.1} \
         GiB of memory",
        gibibytes(need),
        gibibytes(memory)
    )
}

/// A report, and the position of its target.
type Indexed = (usize, Report);

/// The state of a command for several targets. The vectors have an element for each target.
struct Running {
    /// The arguments of this process.
    arguments: Vec<OsString>,
    schedule: Schedule,
    children: Vec<Option<Child>>,
    records: Vec<Record>,
    display: Display,
    sender: Sender<Indexed>,
    reports: Receiver<Indexed>,
}

impl Running {
    fn run(&mut self) {
        loop {
            while let Some(index) = self.schedule.start() {
                self.start(index);
            }
            if !self.schedule.is_running() {
                return;
            }
            // This struct has a sender itself, so the channel stays open.
            let Ok((index, report)) = self.reports.recv() else { return };
            match report {
                Report::Event(event) => {
                    self.display.event(index, &event);
                    self.records[index].add(event);
                }
                Report::Closed(output) => self.end(index, &output),
            }
        }
    }

    fn start(&mut self, index: usize) {
        let record = &mut self.records[index];
        self.display.start(index);
        record.start();
        let sender = self.sender.clone();
        let send = move |report| {
            // The receiver lives as long as this command.
            let _ = sender.send((index, report));
        };
        match Child::start(&record.target, &self.arguments, send) {
            Ok(child) => self.children[index] = Some(child),
            Err(error) => {
                record.fail(&format!("{error:#}"));
                self.leave(index);
            }
        }
    }

    fn end(&mut self, index: usize, output: &[u8]) {
        let Some(child) = self.children[index].take() else { return };
        self.records[index].end(child.wait(), output);
        self.leave(index);
    }

    fn leave(&mut self, index: usize) {
        self.display.end(index, &self.records[index]);
        self.schedule.end(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_many_targets_run_at_a_time_and_why() {
        let limits = |jobs, gibibytes: u64| Limits { jobs, memory: gibibytes << 30 };
        for (limits, count, fit) in [
            (limits(2, 100), 2, 50),
            (limits(8, 100), 3, 50),
            (limits(8, 5), 2, 2),
            (limits(8, 1), 1, 0),
        ] {
            let text = plan(3, limits, 2 << 30);
            let expected = format!("3 targets, {count} at a time: at most {} jobs, ", limits.jobs);
            assert!(text.starts_with(&expected), "{text}");
            assert!(text.contains(&format!("{fit} targets that need 2.0 GiB fit")), "{text}");
        }
    }
}
