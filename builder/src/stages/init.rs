//! Stage 1: starts a sandbox of the distribution and installs the bootstrap and disk tools in it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use protocol::digest;

use super::build::{Build, Describe};
use super::commands::{environment, run_part};
use crate::command::Tool;
use crate::log_file::LogFile;
use crate::mirror::Mirror;
use crate::sandbox::{self, Base, BaseTar, Sandbox};

/// A sandbox that has the bootstrap and disk tools.
pub(super) struct Toolbox {
    pub(super) sandbox: Box<dyn Sandbox>,
}

impl Describe for Toolbox {
    fn describe(&self) -> String {
        self.sandbox.describe()
    }
}

/// Starts the sandbox and installs the tools.
pub(super) fn run(build: &Build<'_>, log: &mut LogFile) -> Result<Toolbox> {
    let work = &build.directories.work;
    build.directories.empty_work()?;
    if build.without_security {
        log.step("WARNING: building without security updates, because of --without-security");
    }
    for directory in ["files", "out"] {
        fs::create_dir_all(work.join(directory))?;
    }
    let tar = CachedBase { build };
    let base = Base { image: &build.variant.base.image, tar: &tar };
    let sandbox = sandbox::start(build.engine, &base, work, log)?;
    run_part(build, "init", &*sandbox, &environment(build), log)?;
    Ok(Toolbox { sandbox })
}

/// The bootstrapped base of a variant, kept in the cache.
///
/// It may be old: the Commands of the part "init" upgrade it.
#[derive(Debug)]
struct CachedBase<'a> {
    build: &'a Build<'a>,
}

impl BaseTar for CachedBase<'_> {
    fn path(&self, log: &mut LogFile) -> Result<PathBuf> {
        let Build { directories, variant, mirror, target, .. } = self.build;
        let command = &variant.base.bootstrap;
        // The name depends on the command and the mirror, because both change the base.
        let mirror = mirror.as_ref().map(Mirror::as_str);
        let key = digest::of_bytes(format!("{command:?} {mirror:?}").as_bytes());
        let tar = directories.cache.join(format!("base_{target}_{}.tar", &key[..8]));
        if tar.exists() {
            log.line(&format!("using the base {}", tar.display()));
            return Ok(tar);
        }
        let (program, arguments) =
            command.split_first().context("the variant names no bootstrap program")?;
        let partial = directories.work.join("base.tar");
        Tool::new(program)
            .args(arguments)
            .arg(&partial)
            .args(mirror)
            // The files of an interrupted bootstrap are removed with the work directory.
            .env("TMPDIR", &directories.work)
            .run(log)?;
        fs::rename(&partial, &tar)
            .with_context(|| format!("moving the base to {}", tar.display()))?;
        Ok(tar)
    }
}
