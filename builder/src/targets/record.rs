//! What is known of a target: how far it came, and its result.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::Target;
use serde_json::Value;

use crate::progress::Event;

/// A stage that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StageTime {
    /// The name.
    pub name: String,
    /// The time that it took, in seconds.
    pub seconds: f64,
}

/// A target, and what its builder has reported.
#[derive(Debug)]
pub(super) struct Record {
    /// The target.
    pub target: Target,
    /// The stage that began last.
    pub stage: Option<String>,
    /// The stages that have ended.
    pub stages: Vec<StageTime>,
    /// The time that the builder ran.
    pub took: Duration,
    /// Why it failed.
    pub error: Option<String>,
    /// The log of the stage that failed.
    pub log: Option<String>,
    /// What it has printed: the result as JSON. A publication that failed at one of several destinations has one,
    /// too.
    pub output: Option<Value>,
    started: Instant,
}

impl Record {
    /// Returns the record of a target that waits.
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            stage: None,
            stages: Vec::new(),
            took: Duration::ZERO,
            error: None,
            log: None,
            output: None,
            started: Instant::now(),
        }
    }

    /// Returns whether the target failed.
    pub(super) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// Records that the builder starts now.
    pub(super) fn start(&mut self) {
        self.started = Instant::now();
    }

    /// Adds a report of the builder.
    pub(super) fn add(&mut self, event: Event) {
        match event {
            Event::Started { stage } => self.stage = Some(name(&stage).to_owned()),
            Event::Finished { stage, seconds, .. } => {
                self.stages.push(StageTime { name: name(&stage).to_owned(), seconds });
            }
            Event::Error { text, log } => {
                self.error = Some(text);
                self.log = log;
            }
            Event::Step { .. } | Event::Activity { .. } | Event::Message { .. } => {}
        }
    }

    /// Records that the builder could not run to its end.
    pub(super) fn fail(&mut self, error: &str) {
        self.error.get_or_insert_with(|| error.to_owned());
    }

    /// Records how the builder ended, and what it printed.
    pub(super) fn end(&mut self, status: Result<ExitStatus>, output: &[u8]) {
        self.took = self.started.elapsed();
        self.output = serde_json::from_slice(output).ok();
        match status {
            Err(error) => self.fail(&format!("{error:#}")),
            Ok(status) if !status.success() => self.fail(&ended(status)),
            Ok(_) if self.output.is_none() => self.fail("the builder printed no result"),
            Ok(_) => {}
        }
    }
}

fn ended(status: ExitStatus) -> String {
    // The kernel kills the largest process when the memory is used up.
    let hint = match status.signal() {
        Some(9) => "; was there too little memory? --jobs limits the number of targets at a time",
        _ => "",
    };
    format!("the builder ended with {status}{hint}")
}

/// Returns the name of a stage without its number.
fn name(stage: &str) -> &str {
    stage.split_once(' ').map_or(stage, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new("deb_amd64".parse().unwrap())
    }

    #[test]
    fn a_failure_has_its_stage_and_its_log() {
        let mut record = record();
        record.add(Event::Started { stage: "1/6 init".into() });
        record.add(Event::Finished { stage: "1/6 init".into(), seconds: 2.5, result: "x".into() });
        record.add(Event::Started { stage: "2/6 bootstrap".into() });
        record.add(Event::Error { text: "no mirror".into(), log: Some("/l".into()) });
        record.end(Ok(ExitStatus::from_raw(1 << 8)), b"");
        assert_eq!(record.stage.as_deref(), Some("bootstrap"));
        assert_eq!(record.stages, [StageTime { name: "init".into(), seconds: 2.5 }]);
        assert_eq!(record.error.as_deref(), Some("no mirror"));
        assert_eq!(record.log.as_deref(), Some("/l"));
    }

    #[test]
    fn every_end_without_a_result_is_a_failure() {
        for (status, output, expected) in [
            (9, "", "too little memory"),
            (15, "", "signal: 15"),
            (1 << 8, "{}", "exit status: 1"),
            (0, "", "no result"),
            (0, "{", "no result"),
        ] {
            let mut record = record();
            record.end(Ok(ExitStatus::from_raw(status)), output.as_bytes());
            assert!(record.error.as_ref().is_some_and(|e| e.contains(expected)), "{record:?}");
        }
        let mut record = record();
        record.end(Ok(ExitStatus::from_raw(0)), b"{\"stages\": []}");
        assert!(!record.has_failed() && record.output.is_some());
    }
}
