//! The inputs that all stages of a command for one target share.

use std::fs::File;
use std::io::Write;

use anyhow::Result;
use jiff::Timestamp;
use protocol::Target;

use super::args::{FromArgs, PublisherArgs, ReleaseArgs};
use super::build::{BuildOptions, TestOptions};
use super::checkout::Checkout;
use crate::cache::Cache;
use crate::destination::Location;
use crate::figures::Figures;
use crate::packaged::Packaged;
use crate::progress::Bar;
use crate::proxy::Proxies;
use crate::publish::deltas::Predecessors;
use crate::publish::{self, Publisher, Report, Site};
use crate::published::{self, Published};
use crate::signing::Signing;
use crate::stages::{self, Build, Directories, Stage, Stages, Test};
use crate::summary::{self, Summary};
use crate::tested::Tested;
use crate::variant::VariantFile;

/// The inputs that all stages of a command use.
pub(super) struct Session {
    target: Target,
    signing: Signing,
    /// The directories of the target.
    pub(super) directories: Directories,
    sites: Vec<Site>,
    /// Where the published release is read, unless at the sites.
    from: Option<Box<dyn Location>>,
    _lock: File,
}

impl Session {
    /// Opens what the options name, and locks the directories of the target.
    pub(super) fn open(target: Target, args: &PublisherArgs) -> Result<Self> {
        let out = args.out.create()?;
        let directories = Directories::create(&out, &target)?;
        let lock = directories.lock()?;
        let signing = args.signing.load(&out)?;
        let sites = args.destinations.open(&out)?;
        Ok(Self { target, signing, directories, sites, from: None, _lock: lock })
    }

    /// Reads the published release at the location that was given, if any.
    pub(super) fn reading(self, args: &FromArgs) -> Result<Self> {
        Ok(Self { from: args.open()?, ..self })
    }

    /// Returns the newest release that is published, and its location.
    fn published(&self) -> Result<Option<(&dyn Location, Published)>> {
        let trusted = self.signing.ring()?;
        let locations: Vec<&dyn Location> = match &self.from {
            Some(from) => vec![&**from],
            None => self.sites.iter().map(Site::location).collect(),
        };
        let mut newest: Option<(&dyn Location, Published)> = None;
        for location in locations {
            let live = published::live(location, &self.target, &trusted)?;
            let build = newest.as_ref().map_or(0, |(_, newest)| newest.release().build);
            if let Some(live) = live.filter(|live| live.release().build > build) {
                newest = Some((location, live));
            }
        }
        Ok(newest)
    }

    /// Reads the release that was built.
    pub(super) fn load(&self) -> Result<Packaged> {
        Packaged::load(&self.directories.artifacts, &self.target, &self.signing.ring()?)
    }

    /// Builds a release, with the deltas from the one that is published if `with_deltas` is set.
    pub(super) fn build(
        &self,
        options: BuildOptions,
        with_deltas: bool,
        variant: VariantFile,
        checkout: &Checkout,
        stages: &mut Stages<'_>,
    ) -> Result<Packaged> {
        let published = self.published()?;
        let newest = published.as_ref().map_or(0, |(_, live)| live.release().build);
        let predecessors = published.filter(|_| with_deltas).map(|(location, live)| Predecessors {
            location,
            releases: vec![live.release().clone()],
        });
        let inputs = self.inputs(options, variant, checkout, newest)?;
        stages::build(&Build { predecessors, ..inputs }, stages)
    }

    /// Returns the inputs of a build. `newest` is the newest build number that is published.
    pub(super) fn inputs(
        &self,
        options: BuildOptions,
        variant: VariantFile,
        checkout: &Checkout,
        newest: u64,
    ) -> Result<Build<'_>> {
        self.signing.check_deterministic()?;
        Ok(Build {
            target: self.target.clone(),
            variant,
            variants: checkout.variants.built_in().to_owned(),
            workspace: checkout.workspace.clone(),
            directories: &self.directories,
            cache: Cache::new(self.directories.cache.clone(), !options.no_cache),
            signing: &self.signing,
            image_keys: &self.signing.trusted,
            image_manifest: None,
            engine: options.engine,
            mirror: options.mirror()?,
            without_security: options.without_security,
            proxies: Proxies::from_environment()?,
            newest,
            predecessors: None,
            host_config: options.host_config,
        })
    }

    /// Tests a release.
    pub(super) fn test(
        &self,
        options: TestOptions,
        packaged: Packaged,
        stages: &mut Stages<'_>,
    ) -> Result<Tested> {
        let published = self.published()?;
        let test = Test {
            directories: &self.directories,
            keys: self.signing.ring()?,
            accel: options.accel,
            previous: published,
        };
        stages.stage("test", |log| stages::test(test, packaged, log))
    }

    /// Publishes a release and prints the result.
    pub(super) fn release(
        &self,
        tested: &Tested,
        options: &ReleaseArgs,
        stages: &mut Stages<'_>,
        json: bool,
        out: &mut impl Write,
    ) -> Result<()> {
        let bar = Bar::start("6/6 release");
        let _turn = self.directories.turn_to_publish(|| {
            bar.activity("waiting for another target, which is being published");
        })?;
        let publisher = Publisher {
            target: &self.target,
            sites: &self.sites,
            signing: &self.signing,
            retention: options.retention.retention(),
            deltas: usize::from(options.deltas.count),
            work: &self.directories.work,
            progress: &|text| bar.activity(text),
        };
        let report = publish::publish(&publisher, tested, Timestamp::now());
        let result = report.as_ref().map_or("failed", |_| "done");
        let took = bar.finish(result);
        stages.done.push(Stage { name: "release", took, steps: Vec::new() });
        let report = report?;
        self.print(stages, tested.packaged(), tested.figures(), Some(&report), json, out)?;
        report.check()
    }

    /// Prints the result.
    pub(super) fn print(
        &self,
        stages: &Stages<'_>,
        packaged: &Packaged,
        figures: Option<&Figures>,
        report: Option<&Report>,
        json: bool,
        out: &mut impl Write,
    ) -> Result<()> {
        let summary = Summary {
            stages: &stages.done,
            release: packaged.release(),
            directory: &self.directories.artifacts,
            figures,
            report,
        };
        summary::print(&summary, json, out)
    }
}
