//! Stage 5: boots the disk image in virtual machines and updates it.

use std::cell::RefCell;

use anyhow::Result;
use protocol::Release;
use testbed::Options;
use testbed::cancel::Cancel;
use testbed::report::Event;

use super::build::{Build, Describe};
use super::package::Packaged;
use crate::log_file::LogFile;

/// A release that has passed the testbed. Only [`run`] creates one.
pub(super) struct Tested {
    packaged: Packaged,
    steps: usize,
}

impl Tested {
    pub(super) fn release(&self) -> &Release {
        &self.packaged.release
    }

    pub(super) fn packaged(&self) -> &Packaged {
        &self.packaged
    }
}

impl Describe for Tested {
    fn describe(&self) -> String {
        format!("{} steps passed", self.steps)
    }
}

/// Runs the full update cycle.
pub(super) fn run(build: &Build, packaged: Packaged, log: &mut LogFile) -> Result<Tested> {
    let options = Options {
        artifacts: build.directories.artifacts.clone(),
        target: build.target.clone(),
        keys: build.signing.ring()?,
        logs: build.directories.logs.clone(),
        work: build.directories.work.clone(),
        accel: build.accel,
        memory: Options::MEMORY,
        cpus: None,
        updater_version: Options::UPDATER_VERSION.to_owned(),
        cancel: Cancel::default(),
    };
    let log = RefCell::new(log);
    let report = testbed::run_cycle(&options, &|event| match event {
        Event::Started(step) => log.borrow_mut().step(&step.to_string()),
        Event::Progress(_, line) => log.borrow_mut().line(line),
        Event::Finished(..) => {}
    })?;
    log.borrow_mut().line(&report.to_string());
    Ok(Tested { packaged, steps: report.steps.len() })
}
