//! Stage 1: a container from the distribution's official image, with bootstrap and disk tools added.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::commands::{environment, run_part};
use super::{Build, Describe};
use crate::command::Tool;
use crate::image::digest;
use crate::log_file::LogFile;
use crate::sandbox::{self, Base, BaseTar, Sandbox};

/// A container that has the tools.
pub struct Container {
    pub(super) sandbox: Box<dyn Sandbox>,
}

impl Describe for Container {
    fn describe(&self) -> String {
        self.sandbox.describe()
    }
}

/// Starts the container and installs the tools.
pub fn run(build: &Build, log: &mut LogFile) -> Result<Container> {
    let work = &build.directories.work;
    // What a build left behind. Nothing is mounted in there: mounts go with their namespace.
    fs::remove_dir_all(work).with_context(|| format!("emptying {}", work.display()))?;
    for directory in ["files", "out"] {
        fs::create_dir_all(work.join(directory))?;
    }
    let tar = CachedBase { build };
    let base = Base { image: &build.variant.container.image, tar: &tar };
    let sandbox = sandbox::start(build.engine, &base, work, log)?;
    run_part(build, "init", &*sandbox, &environment(build), log)?;
    Ok(Container { sandbox })
}

/// The bootstrapped base of a variant, kept in the cache. It only has to be good enough to upgrade
/// itself, which the part "init" does.
#[derive(Debug)]
struct CachedBase<'a> {
    build: &'a Build,
}

impl BaseTar for CachedBase<'_> {
    fn path(&self, log: &mut LogFile) -> Result<PathBuf> {
        let Build { directories, variant, mirror, target, .. } = self.build;
        let command = &variant.container.bootstrap;
        // Another command or mirror makes another base.
        let key = digest::of_bytes(format!("{command:?} {mirror:?}").as_bytes());
        let tar = directories.cache.join(format!("base_{target}_{}.tar", &key[..8]));
        if tar.exists() {
            log.line(&format!("using the base {}", tar.display()));
            return Ok(tar);
        }
        let (program, arguments) = command.split_first().context("no program to bootstrap with")?;
        let partial = directories.work.join("base.tar");
        Tool::new(program)
            .args(arguments)
            .arg(&partial)
            .args(mirror)
            // What an interrupted bootstrap leaves is removed with the work directory.
            .env("TMPDIR", &directories.work)
            .run(log)?;
        fs::rename(&partial, &tar).with_context(|| format!("keeping {}", tar.display()))?;
        Ok(tar)
    }
}
