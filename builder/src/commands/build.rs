//! The commands that run stages: `build`, `test`, `publish` and `run`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use protocol::Target;

use super::args::{FromArgs, PublisherArgs, RetentionArgs};
use super::checkout::Checkout;
use super::part::{PartArgs, list};
use crate::cache::Cache;
use crate::destination::Location;
use crate::host;
use crate::mirror::Mirror;
use crate::oci::Reference;
use crate::packaged::Packaged;
use crate::progress::{Bar, message};
use crate::proxy::Proxies;
use crate::publish::{self, Publisher, Report, Site};
use crate::published::{self, Published};
use crate::sandbox::Engine;
use crate::signing::Signing;
use crate::stages::{self, Build, Directories, Stage, Stages, Test};
use crate::summary::{self, Summary};
use crate::tested::Tested;
use crate::variant::{BaseSource, VariantFile, Variants};

/// Options of builds.
#[derive(Debug, Args)]
pub(crate) struct BuildOptions {
    /// Install the packages that this machine lacks, like "builder setup --install"
    #[arg(long)]
    pub(super) setup: bool,
    /// The kind of sandbox to build in
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    pub(super) engine: Engine,
    /// The URL of the distribution's mirror [default: that of the bootstrap tool]
    #[arg(long, value_name = "URL")]
    pub(super) mirror: Option<String>,
    /// The container image to build in, such as "registry.example/debian:trixie" or "NAME@sha256:…"
    /// [default: the bootstrap program or the image of the variant]
    ///
    /// It has to be an image of the variant's distribution for the architecture of this machine.
    #[arg(long, value_name = "REFERENCE")]
    pub(super) image: Option<Reference>,
    /// Build without security updates, because the mirror has no security archive. Otherwise, the archive
    /// at the URL of the mirror with the suffix "-security" is required
    #[arg(long, requires = "mirror")]
    pub(super) without_security: bool,
    /// Compute everything again: use no result of an earlier build
    ///
    /// Without this option, a stage uses a result in <OUT>/cache if everything that it depends on is the
    /// same.
    #[arg(long)]
    pub(super) no_cache: bool,
    /// A file with the updater's configuration in the image, such as {"cdn": "https://…"}
    #[arg(long, value_name = "FILE")]
    pub(super) host_config: Option<PathBuf>,
}

/// Options of tests.
#[derive(Debug, Args)]
pub(crate) struct TestOptions {
    /// The acceleration of the virtual machines
    #[arg(long, value_enum, default_value_t)]
    accel: testbed::AccelPreference,
}

/// Options of "build".
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    stage: PublisherArgs,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    options: BuildOptions,
    #[command(flatten)]
    part: PartArgs,
    /// Keep the tree of a build that fails, in <OUT>/<TARGET>/kept, and say so
    ///
    /// Without this option, the next build of the target removes the tree.
    #[arg(long)]
    keep: bool,
}

/// Options of "test".
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    stage: PublisherArgs,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    options: TestOptions,
}

/// Options of "publish".
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    stage: PublisherArgs,
    #[command(flatten)]
    retention: RetentionArgs,
    /// Publish a release that was not tested
    #[arg(long)]
    untested: bool,
}

/// Options of "run".
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    stage: PublisherArgs,
    #[command(flatten)]
    build: BuildOptions,
    #[command(flatten)]
    test: TestOptions,
    #[command(flatten)]
    retention: RetentionArgs,
}

impl BuildArgs {
    /// Builds a release, or runs the part of a build that was chosen.
    pub(crate) fn run(self, checkout: &Checkout, out: &mut impl Write) -> Result<()> {
        let target = self.stage.target.target()?;
        let variant = VariantFile::load(&checkout.variants, &target.variant, target.arch)?;
        if self.part.list {
            return list(&variant, out);
        }
        if let Some(id) = &self.part.only {
            stages::find(&variant, id)?;
        }
        let variant = self.options.prepare(&target, &checkout.variants)?;
        let session = Session::open(&self.stage)?.reading(&self.from)?;
        let mut stages = Stages::new(&session.directories.logs)?;
        match self.part {
            PartArgs { only: Some(id), .. } => {
                let build = session.inputs(self.options, variant, checkout, 0)?;
                write!(out, "{}", stages::only(&build, &stages, &id)?)?;
                Ok(())
            }
            PartArgs { shell: Some(until), .. } => {
                let build = session.inputs(self.options, variant, checkout, 0)?;
                stages::shell(&build, &mut stages, until)
            }
            _ => {
                let built = session.build(self.options, variant, checkout, &mut stages);
                if built.is_err() && self.keep {
                    stages::keep(&session.directories)
                        .unwrap_or_else(|error| message(&format!("warning: {error:#}")));
                }
                session.print(&stages, &built?, None, self.stage.json, out)
            }
        }
    }
}

impl TestArgs {
    /// Tests the release that was built.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        host::check_root()?;
        let session = Session::open(&self.stage)?.reading(&self.from)?;
        let packaged = session.load()?;
        let mut stages = Stages::new(&session.directories.logs)?;
        let tested = session.test(self.options, packaged, &mut stages)?;
        session.print(&stages, tested.packaged(), None, self.stage.json, out)
    }
}

impl PublishArgs {
    /// Publishes the release that was built and tested.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        let session = Session::open(&self.stage)?;
        let packaged = session.load()?;
        let tested = if self.untested {
            message("warning: --untested was given; the release is published without a test");
            Tested::untested(packaged)
        } else {
            Tested::load(packaged)?
        };
        let mut stages = Stages::new(&session.directories.logs)?;
        session.release(&tested, &self.retention, &mut stages, self.stage.json, out)
    }
}

impl RunArgs {
    /// Builds, tests and publishes a release.
    pub(crate) fn run(self, checkout: &Checkout, out: &mut impl Write) -> Result<()> {
        let variant = self.build.prepare(&self.stage.target.target()?, &checkout.variants)?;
        let session = Session::open(&self.stage)?;
        let mut stages = Stages::new(&session.directories.logs)?;
        let packaged = session.build(self.build, variant, checkout, &mut stages)?;
        let tested = session.test(self.test, packaged, &mut stages)?;
        session.release(&tested, &self.retention, &mut stages, self.stage.json, out)
    }
}

impl BuildOptions {
    /// Loads the variant, and checks that this machine can build it.
    pub(super) fn prepare(&self, target: &Target, variants: &Variants) -> Result<VariantFile> {
        let mut variant = VariantFile::load(variants, &target.variant, target.arch)?;
        if let Some(image) = &self.image {
            variant.base = BaseSource::of_image(image);
        }
        for source in &variant.sources[1..] {
            message(&format!("drop-in: {}", source.display()));
        }
        host::check_root()?;
        let requirements = host::requirements([&variant], false);
        if self.setup {
            host::install(&requirements)?;
        } else {
            host::check(&requirements)?;
        }
        if let Some(config) = &self.host_config {
            check_json(config)?;
        }
        self.mirror()?;
        Ok(variant)
    }

    /// Returns the mirror. clap does not parse it, because its errors would show a password in the URL.
    pub(super) fn mirror(&self) -> Result<Option<Mirror>> {
        self.mirror.as_deref().map(str::parse).transpose()
    }
}

/// Checks that a file is a JSON object. The updater checks the content when the image is built.
fn check_json(config: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(config).with_context(|| format!("reading {}", config.display()))?;
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
        .with_context(|| format!("{} is not a JSON object", config.display()))?;
    Ok(())
}

/// The inputs that all stages of a command use.
struct Session {
    target: Target,
    signing: Signing,
    directories: Directories,
    sites: Vec<Site>,
    /// Where the published release is read, unless at the sites.
    from: Option<Box<dyn Location>>,
    _lock: File,
}

impl Session {
    fn open(args: &PublisherArgs) -> Result<Self> {
        let target = args.target.target()?;
        let out = args.out.create()?;
        let directories = Directories::create(&out, &target)?;
        let lock = directories.lock()?;
        let signing = args.signing.load(&out)?;
        let sites = args.destinations.open(&out)?;
        Ok(Self { target, signing, directories, sites, from: None, _lock: lock })
    }

    /// Reads the published release at the location that was given, if any.
    fn reading(self, args: &FromArgs) -> Result<Self> {
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

    fn load(&self) -> Result<Packaged> {
        Packaged::load(&self.directories.artifacts, &self.target, &self.signing.ring()?)
    }

    fn build(
        &self,
        options: BuildOptions,
        variant: VariantFile,
        checkout: &Checkout,
        stages: &mut Stages<'_>,
    ) -> Result<Packaged> {
        let newest = self.published()?.map_or(0, |(_, live)| live.release().build);
        let build = self.inputs(options, variant, checkout, newest)?;
        stages::build(&build, stages)
    }

    /// Returns the inputs of a build. `newest` is the newest build number that is published.
    fn inputs(
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
            host_config: options.host_config,
        })
    }

    fn test(
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
    fn release(
        &self,
        tested: &Tested,
        retention: &RetentionArgs,
        stages: &mut Stages<'_>,
        json: bool,
        out: &mut impl Write,
    ) -> Result<()> {
        let bar = Bar::start("6/6 release");
        let publisher = Publisher {
            target: &self.target,
            sites: &self.sites,
            signing: &self.signing,
            retention: retention.retention(),
            progress: &|text| bar.activity(text),
        };
        let report = publish::publish(&publisher, tested.packaged(), Timestamp::now());
        let result = report.as_ref().map_or("failed", |_| "done");
        let took = bar.finish(result);
        stages.done.push(Stage { name: "release", took, steps: Vec::new() });
        let report = report?;
        self.print(stages, tested.packaged(), Some(&report), json, out)?;
        report.check()
    }

    fn print(
        &self,
        stages: &Stages<'_>,
        packaged: &Packaged,
        report: Option<&Report>,
        json: bool,
        out: &mut impl Write,
    ) -> Result<()> {
        let summary = Summary {
            stages: &stages.done,
            release: packaged.release(),
            directory: &self.directories.artifacts,
            report,
        };
        summary::print(&summary, json, out)
    }
}
