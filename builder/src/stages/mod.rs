//! The stages of a build. Each takes the result of the previous one.
//!
//! [`build`] runs stages 1 to 4 and [`test`](test()) stage 5. Stage 6 is [`crate::publish`].

mod added;
mod bootstrap;
mod build;
mod check;
mod commands;
mod compiler;
mod deltas;
mod documents;
mod init;
mod inspect;
mod package;
mod refine;
mod runner;
mod test;
mod variables;

use anyhow::Result;

pub(crate) use build::{Build, Directories};
pub(crate) use check::Checked;
pub(crate) use inspect::{Until, commands, find, keep, only, shell};
pub(crate) use runner::{Stage, StageFailed, Stages};
pub(crate) use test::{Test, run as test};

use crate::figures;
use crate::packaged::Packaged;

/// Builds a release: stages 1 to 4.
///
/// # Errors
/// Fails if a stage fails; the error names the stage and its log.
pub(crate) fn build(build: &Build<'_>, stages: &mut Stages<'_>) -> Result<Packaged> {
    let toolbox = stages.stage("init", |log| init::run(build, log))?;
    let tree = stages.stage("bootstrap", |log| bootstrap::run(build, toolbox, log))?;
    let image = stages.stage("refine", |log| refine::run(build, tree, log))?;
    let packaged = stages.stage("package", |log| package::run(build, image, log))?;
    figures::keep(&packaged, stages.done.iter().map(Stage::time).collect())?;
    Ok(packaged)
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
