//! The stages of a build. Each takes the result of the previous one.
//!
//! [`build`] runs stages 1 to 4 and [`test`](test()) stage 5. Stage 6 is [`crate::publish`].

mod added;
mod bootstrap;
mod build;
mod check;
mod commands;
mod compiler;
mod documents;
mod init;
mod inspect;
mod package;
mod refine;
mod test;
mod variables;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use build::Describe;
pub(crate) use build::{Build, Directories};
pub(crate) use check::Checked;
pub(crate) use inspect::{Until, commands, find, keep, only, shell};
pub(crate) use test::{Test, run as test};

use crate::log_file::{LogFile, Step};
use crate::packaged::Packaged;
use crate::progress::Bar;
use crate::proxy::Proxies;

/// The names of the stages, in their order.
const NAMES: [&str; 6] = ["init", "bootstrap", "refine", "package", "test", "release"];

/// A stage, and where its time went.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The name.
    pub name: &'static str,
    /// The duration of the stage.
    pub took: Duration,
    /// The steps that took time. Their sum is less than the duration.
    pub steps: Vec<Step>,
}

/// A stage that failed, as the context of an error.
#[derive(Debug)]
pub(crate) struct StageFailed {
    /// The name of the stage.
    name: &'static str,
    /// The path of its log.
    pub log: PathBuf,
}

impl fmt::Display for StageFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {} failed; its log is {}", self.name, self.log.display())
    }
}

/// Builds a release: stages 1 to 4.
///
/// # Errors
/// Fails if a stage fails; the error names the stage and its log.
pub(crate) fn build(build: &Build<'_>, stages: &mut Stages<'_>) -> Result<Packaged> {
    let toolbox = stages.stage("init", |log| init::run(build, log))?;
    let tree = stages.stage("bootstrap", |log| bootstrap::run(build, toolbox, log))?;
    let image = stages.stage("refine", |log| refine::run(build, tree, log))?;
    stages.stage("package", |log| package::run(build, image, log))
}

/// Starts the sandbox, which needs the image and the keys of the distribution, and resolves all packages
/// without installing them.
///
/// # Errors
/// Fails if a source does not answer or is not signed as expected, or if packages cannot be installed.
pub(crate) fn check(build: &Build<'_>, stages: &mut Stages<'_>) -> Result<Checked> {
    let commands = check::commands(build)?;
    let toolbox = stages.stage("init", |log| init::run(build, log))?;
    stages.step("check", |log| check::run(build, commands, &toolbox, log))
}

/// Runs and times stages.
pub(crate) struct Stages<'a> {
    logs: &'a Path,
    /// The proxies, whose passwords do not reach a log.
    proxies: Proxies,
    /// The stages that ended.
    pub done: Vec<Stage>,
}

impl<'a> Stages<'a> {
    /// Returns a runner that writes a log for each stage to the directory `logs`.
    pub(crate) fn new(logs: &'a Path) -> Result<Self> {
        Ok(Self { logs, proxies: Proxies::from_environment()?, done: Vec::new() })
    }

    /// Runs one stage with a log and a progress bar of its own.
    pub(crate) fn stage<T: Describe>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut LogFile) -> Result<T>,
    ) -> Result<T> {
        let number = NAMES.iter().position(|other| *other == name).map_or(0, |index| index + 1);
        let bar = Bar::start(&format!("{number}/{} {name}", NAMES.len()));
        let path = self.logs.join(format!("{number}-{name}.log"));
        let mut log = LogFile::create(&path, bar.clone())?;
        log.hide(self.proxies.secrets());
        match work(&mut log) {
            Ok(result) => {
                let took = bar.finish(&result.describe());
                self.done.push(Stage { name, took, steps: log.into_steps() });
                Ok(result)
            }
            Err(error) => {
                bar.finish("failed");
                log.line(&format!("{error:?}"));
                Err(error.context(StageFailed { name, log: path }))
            }
        }
    }

    /// Runs a step that is no stage, with a log and a progress bar of its own.
    pub(crate) fn step<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut LogFile) -> Result<T>,
    ) -> Result<T> {
        let bar = Bar::start(name);
        let path = self.logs.join(format!("{name}.log"));
        let mut log = LogFile::create(&path, bar.clone())?;
        log.hide(self.proxies.secrets());
        let result = work(&mut log);
        bar.finish(if result.is_ok() { "done" } else { "failed" });
        result.with_context(|| format!("{name} failed; its log is {}", path.display()))
    }
}
