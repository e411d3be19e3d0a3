//! The six stages. Each takes what the one before returned.

mod bootstrap;
mod commands;
mod init;
mod package;
mod refine;
mod release;
mod test;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::{Artifact, Target};

pub use release::Outcome;

use crate::cdn::Cdn;
use crate::log_file::LogFile;
use crate::progress::Bar;
use crate::sandbox::Engine;
use crate::signing::Signing;
use crate::variant::VariantFile;

/// What a build is asked to do.
#[derive(Debug)]
pub struct Build {
    /// What is built.
    pub target: Target,
    /// How.
    pub variant: VariantFile,
    /// The directory with the variants and the files that go into images.
    pub variants: PathBuf,
    /// The updater's source: this workspace.
    pub workspace: PathBuf,
    /// Where everything goes.
    pub directories: Directories,
    /// Who signs, and whom the image trusts.
    pub signing: Signing,
    /// The backend of the container.
    pub engine: Engine,
    /// The distribution's mirror, if not the bootstrap tool's own.
    pub mirror: Option<String>,
    /// Where releases are published.
    pub cdn: Cdn,
    /// The updater's configuration in the image, if any.
    pub host_config: Option<PathBuf>,
    /// How the testbed's machines are emulated.
    pub accel: testbed::AccelPreference,
}

/// The directories of a build, below `out`.
#[derive(Debug)]
pub struct Directories {
    /// Downloads and bases, kept between builds.
    pub cache: PathBuf,
    /// The artifacts and the manifest.
    pub artifacts: PathBuf,
    /// A log for each stage.
    pub logs: PathBuf,
    /// Shared with the container; emptied by each build.
    pub work: PathBuf,
}

impl Directories {
    /// The directories of a target below `out`, made where they are missing.
    pub fn create(out: &Path, target: &Target) -> Result<Self> {
        let artifacts = out.join(target.to_string());
        let directories = Self {
            cache: out.join("cache"),
            logs: artifacts.join("logs"),
            work: artifacts.join("work"),
            artifacts,
        };
        for directory in [&directories.cache, &directories.logs, &directories.work] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        Ok(directories)
    }

    /// Holds the directories for one build at a time.
    pub fn lock(&self) -> Result<File> {
        let path = self.artifacts.join("lock");
        let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        lock.try_lock().with_context(|| {
            format!(
                "another build works in {}; wait for it or name another --out",
                self.artifacts.display()
            )
        })?;
        Ok(lock)
    }
}

/// What a build did.
#[derive(Debug)]
pub struct Summary {
    /// Each stage's name and time.
    pub stages: Vec<(&'static str, Duration)>,
    /// The files that were made.
    pub artifacts: Vec<Artifact>,
    /// Whether they were published.
    pub outcome: Outcome,
}

/// Builds, tests and publishes one target.
pub fn run(build: &Build) -> Result<Summary> {
    let mut stages = Stages { build, done: Vec::new() };
    let container = stages.stage("init", |log| init::run(build, log))?;
    let tree = stages.stage("bootstrap", |log| bootstrap::run(build, container, log))?;
    let image = stages.stage("refine", |log| refine::run(build, tree, log))?;
    let packaged = stages.stage("package", |log| package::run(build, image, log))?;
    let tested = stages.stage("test", |log| test::run(build, packaged, log))?;
    let artifacts = tested.release().artifacts.clone();
    let outcome = stages.stage("release", |log| release::run(build, tested, log))?;
    Ok(Summary { stages: stages.done, artifacts, outcome })
}

/// What a stage says of itself in one line, for people.
trait Describe {
    fn describe(&self) -> String;
}

struct Stages<'a> {
    build: &'a Build,
    done: Vec<(&'static str, Duration)>,
}

impl Stages<'_> {
    /// Runs one stage with its log and its progress bar.
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
                self.done.push((name, bar.finish(&result.describe())));
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
