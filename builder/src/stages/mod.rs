//! The six stages of a build. Each takes the result of the previous one.

mod bootstrap;
mod build;
mod commands;
mod init;
mod package;
mod refine;
mod release;
mod test;

use std::time::Duration;

use anyhow::Result;
use protocol::Artifact;

use build::Describe;
pub(crate) use build::{Build, Directories};
pub(crate) use release::Outcome;

use crate::log_file::{LogFile, Step};
use crate::progress::Bar;

/// The result of a build.
#[derive(Debug)]
pub(crate) struct Summary {
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// The files of the release.
    pub artifacts: Vec<Artifact>,
    /// Whether the release was published.
    pub outcome: Outcome,
}

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

/// Builds, tests and publishes one target.
///
/// # Errors
/// Fails if a stage fails; the error names the stage and its log.
pub(crate) fn run(build: &Build) -> Result<Summary> {
    let mut stages = Stages { build, done: Vec::new() };
    let toolbox = stages.stage("init", |log| init::run(build, log))?;
    let tree = stages.stage("bootstrap", |log| bootstrap::run(build, toolbox, log))?;
    let image = stages.stage("refine", |log| refine::run(build, tree, log))?;
    let packaged = stages.stage("package", |log| package::run(build, image, log))?;
    let tested = stages.stage("test", |log| test::run(build, packaged, log))?;
    let artifacts = tested.release().artifacts.clone();
    let outcome = stages.stage("release", |log| release::run(build, tested, log))?;
    Ok(Summary { stages: stages.done, artifacts, outcome })
}

struct Stages<'a> {
    build: &'a Build,
    done: Vec<Stage>,
}

impl Stages<'_> {
    /// Runs one stage with a log and a progress bar of its own.
    fn stage<T: Describe>(
        &mut self,
        name: &'static str,
        work: impl FnOnce(&mut LogFile) -> Result<T>,
    ) -> Result<T> {
        let number = self.done.len() + 1;
        let bar = Bar::start(&format!("{number}/6 {name}"));
        let path = self.build.directories.logs.join(format!("{number}-{name}.log"));
        let mut log = LogFile::create(&path, bar.clone())?;
        match work(&mut log) {
            Ok(result) => {
                let took = bar.finish(&result.describe());
                self.done.push(Stage { name, took, steps: log.into_steps() });
                Ok(result)
            }
            Err(error) => {
                bar.finish("failed");
                log.line(&format!("{error:?}"));
                Err(error.context(format!("stage {name} failed; its log is {}", path.display())))
            }
        }
    }
}
