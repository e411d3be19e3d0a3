//! The commands that publish a published release again: `renew`, `withdraw` and `bridge`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use protocol::Target;

use super::args::{PublisherArgs, RetentionArgs, TargetArgs};
use crate::destination::locate;
use crate::progress::message;
use crate::publish::bridge::bridge;
use crate::publish::renew::renew;
use crate::publish::withdraw::withdraw;
use crate::publish::{Publisher, Report, Retention, Site};
use crate::signing::Signing;
use crate::summary;

/// Options of all these commands.
#[derive(Debug, Args)]
pub(crate) struct ReissueArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    publisher: PublisherArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

/// Options of "renew".
#[derive(Debug, Args)]
pub(crate) struct RenewArgs {
    #[command(flatten)]
    common: ReissueArgs,
}

/// Options of "withdraw".
#[derive(Debug, Args)]
pub(crate) struct WithdrawArgs {
    #[command(flatten)]
    common: ReissueArgs,
    /// The build number of the release to publish again [default: the one before the live release]
    #[arg(long, value_name = "N")]
    build: Option<u64>,
}

/// Options of "bridge".
#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    #[command(flatten)]
    common: ReissueArgs,
    /// Where the release is published now: a URL, a directory, or s3://BUCKET[/PREFIX]
    #[arg(long, value_name = "LOCATION")]
    from: String,
    /// The build number of the release [default: that of the live release]
    #[arg(long, value_name = "N")]
    build: Option<u64>,
}

impl RenewArgs {
    /// Signs the manifest of the live release again.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        self.common.run(out, |publisher| renew(publisher, Timestamp::now()))
    }
}

impl WithdrawArgs {
    /// Publishes an earlier release again.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        let build = self.build;
        self.common.run(out, |publisher| withdraw(publisher, build, Timestamp::now()))
    }
}

impl BridgeArgs {
    /// Publishes a release elsewhere, signed with another key.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        let Self { from, build, common } = self;
        let from = locate(&from)?;
        common.run(out, |publisher| bridge(publisher, &*from, build, Timestamp::now()))
    }
}

impl ReissueArgs {
    fn run(
        self,
        out: &mut impl Write,
        action: impl FnOnce(&Publisher<'_>) -> Result<Report>,
    ) -> Result<()> {
        let Opened { work, target, signing, sites, retention } = self.open()?;
        let publisher = Publisher {
            target: &target,
            sites: &sites,
            signing: &signing,
            retention,
            deltas: 0,
            work: &work,
            progress: &message,
        };
        let report = action(&publisher)?;
        summary::print_report(&report, self.publisher.json, out)?;
        report.check()
    }

    fn open(&self) -> Result<Opened> {
        let out: PathBuf = self.publisher.out.create()?;
        Ok(Opened {
            target: self.target.target()?,
            signing: self.publisher.signing.load(&out)?,
            sites: self.publisher.destinations.open(&out)?,
            retention: self.retention.retention(),
            work: out,
        })
    }
}

/// What the options name.
struct Opened {
    work: PathBuf,
    target: Target,
    signing: Signing,
    sites: Vec<Site>,
    retention: Retention,
}
