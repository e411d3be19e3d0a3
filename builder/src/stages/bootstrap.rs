//! Stage 2: the distribution's own bootstrap fills a root tree, signature-checked.

use anyhow::{Context, Result, ensure};
use protocol::Package;

use super::commands::{environment, run_part, run_var};
use super::init::Container;
use super::{Build, Describe};
use crate::log_file::LogFile;

/// A distribution in a directory, and what it is.
pub struct RootTree {
    pub(super) container: Container,
    pub(super) packages: Vec<Package>,
    /// What `uname -r` will say.
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

/// Bootstraps.
pub fn run(build: &Build, container: Container, log: &mut LogFile) -> Result<RootTree> {
    let report = run_part(build, "bootstrap", &*container.sandbox, &environment(build), log)?;
    let packages = Package::parse_list(&report.build_manifest)?;
    ensure!(!packages.is_empty(), "the bootstrap reported no packages to etcha:buildManifest");
    let epoch = run_var(&report, "epoch")?;
    let epoch = epoch.parse().with_context(|| format!("{epoch:?} is no epoch in Unix seconds"))?;
    let kernel = run_var(&report, "kernel")?;
    let version = run_var(&report, "version")?;
    Ok(RootTree { container, packages, kernel, epoch, version })
}
