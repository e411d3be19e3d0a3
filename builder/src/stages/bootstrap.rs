//! Stage 2: bootstraps a root tree with the distribution's own tool, which checks signatures.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use protocol::Package;
use protocol::date::format_utc;
use protocol::pattern::Report;

use super::build::{Build, Describe};
use super::commands::{cache_key, environment, run_part, run_var};
use super::init::{State, Toolbox};
use crate::cache::{Found, archive};
use crate::log_file::{LogFile, Origin};

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

/// Bootstraps the distribution, or restores the tree of an earlier build with the same inputs.
pub(super) fn run(build: &Build<'_>, toolbox: Toolbox, log: &mut LogFile) -> Result<RootTree> {
    let env = environment(build);
    let root = build.directories.work.join("root");
    let State { tools, indexes, .. } = &toolbox.state;
    let key = cache_key(build, "bootstrap", &env, &[tools, indexes]);
    let report = match build.cache.find(&key, log) {
        Some(Found { data, value }) => {
            log.timed("restore the root tree", Origin::Cached, |log| {
                archive::unpack(&data, &root, log)
            })?;
            value
        }
        None => {
            let report = run_part(build, "bootstrap", &*toolbox.sandbox, &env, log)?;
            log.timed("store the root tree", Origin::Built, |log| {
                build.cache.store(&key, &report, |to| archive::write(&root, to, log))
            })?;
            report
        }
    };
    tree(toolbox, &report)
}

/// Returns the tree with the properties that the Commands reported.
fn tree(toolbox: Toolbox, report: &Report) -> Result<RootTree> {
    let packages = Package::parse_list(&report.build_manifest)?;
    ensure!(!packages.is_empty(), "the bootstrap reported no packages to etcha:buildManifest");
    let epoch = run_var(report, "epoch")?;
    let epoch = epoch.parse().with_context(|| {
        format!("the run variable \"epoch\" is {epoch:?}, expected Unix seconds")
    })?;
    check_epoch(epoch, Timestamp::now().as_second())?;
    let kernel = run_var(report, "kernel")?;
    let version = run_var(report, "version")?;
    Ok(RootTree { toolbox, packages, kernel, epoch, version })
}

/// Checks that the newest package is not dated in the future.
///
/// A host that was installed from the image refuses every manifest that was signed before the epoch, so
/// it would refuse all updates until that date. All times are Unix seconds.
fn check_epoch(epoch: u32, now: i64) -> Result<()> {
    ensure!(
        i64::from(epoch) <= now,
        "the newest package in the image is dated {}, but it is now {}: hosts installed from this image would refuse every release that is published before that date; if the clock of this machine is right, remove that package from the variant, or build it again with a date in the past",
        format_utc(epoch.into()),
        format_utc(u64::try_from(now).unwrap_or(0)),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_a_package_from_the_future() {
        let now = 1_790_000_100;
        for epoch in [0, 1_790_000_099, 1_790_000_100] {
            check_epoch(epoch, now).unwrap();
        }
        let error = check_epoch(1_790_000_101, now).unwrap_err().to_string();
        for part in ["2026-09-21 14:15:01 UTC", "2026-09-21 14:15:00 UTC", "remove that package"] {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
        assert!(
            check_epoch(1, -1).unwrap_err().to_string().contains("now 1970-01-01 00:00:00 UTC")
        );
    }
}
