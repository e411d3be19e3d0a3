//! Stage 2: bootstraps a root tree with the distribution's own tool, which checks signatures.

use anyhow::{Context, Result, ensure};
use protocol::Package;

use super::build::{Build, Describe};
use super::commands::{environment, run_part, run_var};
use super::init::Toolbox;
use crate::log_file::LogFile;

/// A root tree in the work directory, with its properties.
pub(super) struct RootTree {
    pub(super) toolbox: Toolbox,
    pub(super) packages: Vec<Package>,
    /// The kernel release, as `uname -r` reports it.
    pub(super) kernel: String,
    /// The date of the newest package, in Unix seconds.
    pub(super) epoch: u32,
    /// The first part of `IMAGE_VERSION`.
    pub(super) version: String,
}

impl Describe for RootTree {
    fn describe(&self) -> String {
        format!("{} packages, Linux {}", self.packages.len(), self.kernel)
    }
}

/// Bootstraps the distribution.
pub(super) fn run(build: &Build<'_>, toolbox: Toolbox, log: &mut LogFile) -> Result<RootTree> {
    let report = run_part(build, "bootstrap", &*toolbox.sandbox, &environment(build), log)?;
    let packages = Package::parse_list(&report.build_manifest)?;
    ensure!(!packages.is_empty(), "the bootstrap reported no packages to etcha:buildManifest");
    let epoch = run_var(&report, "epoch")?;
    let epoch = epoch.parse().with_context(|| {
        format!("the run variable \"epoch\" is {epoch:?}, expected Unix seconds")
    })?;
    let kernel = run_var(&report, "kernel")?;
    let version = run_var(&report, "version")?;
    Ok(RootTree { toolbox, packages, kernel, epoch, version })
}
