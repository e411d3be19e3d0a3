//! The commands that run stages: `build`, `test`, `publish` and `run`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use protocol::Target;

use super::args::{DeltaCount, FromArgs, ReleaseArgs, StageArgs};
use super::checkout::Checkout;
use super::part::{PartArgs, list};
use super::session::Session;
use crate::host;
use crate::mirror::Mirror;
use crate::oci::Reference;
use crate::progress::message;
use crate::sandbox::Engine;
use crate::stages::{self, Stages};
use crate::targets::{Several, Work};
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
    pub(super) accel: testbed::AccelPreference,
}

/// Options of "build".
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    options: BuildOptions,
    #[command(flatten)]
    deltas: DeltaCount,
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
    stage: StageArgs,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    options: TestOptions,
}

/// Options of "publish".
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    release: ReleaseArgs,
    /// Publish a release that was not tested
    #[arg(long)]
    untested: bool,
}

/// Options of "run".
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    stage: StageArgs,
    #[command(flatten)]
    build: BuildOptions,
    #[command(flatten)]
    test: TestOptions,
    #[command(flatten)]
    release: ReleaseArgs,
}

impl BuildArgs {
    /// Builds releases, or runs the part of a build that was chosen. With `only`, this is the builder of one of
    /// several targets.
    pub(crate) fn run(
        mut self,
        only: Option<&Target>,
        checkout: &Checkout,
        out: &mut impl Write,
    ) -> Result<()> {
        self.options.setup &= only.is_none();
        match &self.stage.choose(only)?[..] {
            [target] => self.run_one(target, checkout, out),
            targets => {
                self.part.check_absent()?;
                self.options.prepare_all(targets, &checkout.variants)?;
                self.from.open()?;
                self.stage.run_all(targets, Work::Build, out)
            }
        }
    }

    fn run_one(self, target: &Target, checkout: &Checkout, out: &mut impl Write) -> Result<()> {
        let variant = VariantFile::load(&checkout.variants, &target.variant, target.arch)?;
        if self.part.list {
            return list(&variant, out);
        }
        if let Some(id) = &self.part.only {
            stages::find(&variant, id)?;
        }
        let variant = self.options.prepare(target, &checkout.variants)?;
        let publisher = &self.stage.publisher;
        let session = Session::open(target.clone(), publisher)?.reading(&self.from)?;
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
                let with_deltas = self.deltas.count > 0;
                let built =
                    session.build(self.options, with_deltas, variant, checkout, &mut stages);
                if built.is_err() && self.keep {
                    stages::keep(&session.directories)
                        .unwrap_or_else(|error| message(&format!("warning: {error:#}")));
                }
                session.print(&stages, &built?, None, None, publisher.json, out)
            }
        }
    }
}

impl TestArgs {
    /// Tests the releases that were built.
    pub(crate) fn run(mut self, only: Option<&Target>, out: &mut impl Write) -> Result<()> {
        host::check_root()?;
        match &self.stage.choose(only)?[..] {
            [target] => self.run_one(target, out),
            targets => {
                self.options.check(targets)?;
                self.from.open()?;
                self.stage.run_all(targets, Work::Test, out)
            }
        }
    }

    fn run_one(self, target: &Target, out: &mut impl Write) -> Result<()> {
        let publisher = &self.stage.publisher;
        let session = Session::open(target.clone(), publisher)?.reading(&self.from)?;
        let packaged = session.load()?;
        let mut stages = Stages::new(&session.directories.logs)?;
        let tested = session.test(self.options, packaged, &mut stages)?;
        session.print(&stages, tested.packaged(), tested.figures(), None, publisher.json, out)
    }
}

impl PublishArgs {
    /// Publishes the releases that were built and tested.
    pub(crate) fn run(mut self, only: Option<&Target>, out: &mut impl Write) -> Result<()> {
        match &self.stage.choose(only)?[..] {
            [target] => self.run_one(target, out),
            targets => self.stage.run_all(targets, Work::Publish, out),
        }
    }

    fn run_one(self, target: &Target, out: &mut impl Write) -> Result<()> {
        let publisher = &self.stage.publisher;
        let session = Session::open(target.clone(), publisher)?;
        let packaged = session.load()?;
        let tested = if self.untested {
            message("warning: --untested was given; the release is published without a test");
            Tested::untested(packaged)
        } else {
            Tested::load(packaged)?
        };
        let mut stages = Stages::new(&session.directories.logs)?;
        session.release(&tested, &self.release, &mut stages, publisher.json, out)
    }
}

impl RunArgs {
    /// Builds, tests and publishes releases.
    pub(crate) fn run(
        mut self,
        only: Option<&Target>,
        checkout: &Checkout,
        out: &mut impl Write,
    ) -> Result<()> {
        // The builder that started this one has installed the packages.
        self.build.setup &= only.is_none();
        let targets = self.stage.choose(only)?;
        self.test.check(&targets)?;
        match &targets[..] {
            [target] => self.run_one(target, checkout, out),
            targets => {
                self.build.prepare_all(targets, &checkout.variants)?;
                self.stage.run_all(targets, Work::Run, out)
            }
        }
    }

    fn run_one(self, target: &Target, checkout: &Checkout, out: &mut impl Write) -> Result<()> {
        let variant = self.build.prepare(target, &checkout.variants)?;
        let publisher = &self.stage.publisher;
        let session = Session::open(target.clone(), publisher)?;
        let mut stages = Stages::new(&session.directories.logs)?;
        let with_deltas = self.release.deltas.count > 0;
        let packaged = session.build(self.build, with_deltas, variant, checkout, &mut stages)?;
        let tested = session.test(self.test, packaged, &mut stages)?;
        session.release(&tested, &self.release, &mut stages, publisher.json, out)
    }
}

impl StageArgs {
    /// Runs the command for several targets. What would fail for all of them fails before any starts.
    fn run_all(&self, targets: &[Target], work: Work, out: &mut impl Write) -> Result<()> {
        let directory = self.publisher.out.create()?;
        // This creates the development key, unless there is one.
        self.publisher.signing.load(&directory)?;
        self.publisher.destinations.open(&directory)?;
        let (jobs, json) = (self.targets.jobs, self.publisher.json);
        Several { targets, work, jobs, json }.run(out)
    }
}

impl TestOptions {
    /// Checks that the accelerator can run the targets.
    fn check(&self, targets: &[Target]) -> Result<()> {
        targets.iter().try_for_each(|target| Ok(self.accel.check(target.arch)?))
    }
}

impl BuildOptions {
    /// Loads the variant, and checks that this machine can build it.
    pub(super) fn prepare(&self, target: &Target, variants: &Variants) -> Result<VariantFile> {
        let mut variant = VariantFile::load(variants, &target.variant, target.arch)?;
        self.choose_image(&mut variant);
        for source in &variant.sources[1..] {
            message(&format!("drop-in: {}", source.display()));
        }
        self.check(std::slice::from_ref(&variant))?;
        Ok(variant)
    }

    /// Checks that this machine can build all targets. With `--setup`, installs what they need.
    fn prepare_all(&self, targets: &[Target], variants: &Variants) -> Result<()> {
        let mut all = VariantFile::load_all(variants, targets)?;
        all.iter_mut().for_each(|variant| self.choose_image(variant));
        self.check(&all)
    }

    /// Replaces the source of the sandbox by the image, if one was given.
    fn choose_image(&self, variant: &mut VariantFile) {
        if let Some(image) = &self.image {
            variant.base = BaseSource::of_image(image);
        }
    }

    /// Checks the options, and that this machine has what the variants need.
    fn check(&self, variants: &[VariantFile]) -> Result<()> {
        host::check_root()?;
        let requirements = host::requirements(variants, false);
        if self.setup {
            host::install(&requirements)?;
        } else {
            host::check(&requirements)?;
        }
        if let Some(config) = &self.host_config {
            check_json(config)?;
        }
        self.mirror()?;
        Ok(())
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
