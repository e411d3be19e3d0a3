//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use protocol::{Arch, Target, Variant};

use crate::cdn::Cdn;
use crate::sandbox::Engine;
use crate::sandbox::namespace::Entry;
use crate::signing::{self, Signing};
use crate::stages::{self, Build, Directories};
use crate::variant::{self, VariantFile};
use crate::{host, summary};

/// Builds, tests and publishes EtchaOS.
///
/// One build is six stages: a container (init), the distribution's own bootstrap, its refinement
/// into EtchaOS, packaging (vmlinuz, initrd, disk image, signed manifest), a test in virtual
/// machines, and the release, which publishes only what differs from what is published.
#[derive(Debug, Parser)]
#[command(name = "builder", version)]
#[command(after_help = "Exit codes: 0 done (published or unchanged), 1 failed, 2 wrong usage.")]
pub struct Cli {
    /// The directory with the variants and the files that go into images; the workspace's, if not given
    #[arg(long, global = true, value_name = "DIR")]
    variants: Option<PathBuf>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run all six stages for a variant
    Run(Box<RunArgs>),
    /// List the variants
    Variants,
    /// Show what a variant renders to, as JSON
    Render {
        /// The variant, such as "deb"
        variant: Variant,
        /// The architecture; the host's, if not given
        #[arg(long)]
        arch: Option<Arch>,
    },
    /// Make a signing key and print its public half
    Keygen {
        /// The file for the private key; must not exist
        file: PathBuf,
    },
    /// A step into a container; the builder starts itself with this
    #[command(hide = true)]
    Sandbox(Entry),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The variant, such as "deb"; see "builder variants"
    variant: Variant,
    /// The architecture; the host's, if not given
    #[arg(long)]
    arch: Option<Arch>,
    /// Install the host's packages that are missing, after naming them
    #[arg(long)]
    setup: bool,
    /// What the build's container runs in
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    engine: Engine,
    /// The distribution's mirror, as a URL; the bootstrap tool's own, if not given
    #[arg(long)]
    mirror: Option<String>,
    /// The key that signs the manifest: a key string, or @FILE. Without one, a development key is
    /// made in <out>/keys
    #[arg(long, env = "ETCHAOS_SIGNING_KEY", hide_env_values = true)]
    signing_key: Option<String>,
    /// A further key that the image trusts, such as the next or the last one: a key string or @FILE
    #[arg(long = "trusted-key")]
    trusted_keys: Vec<String>,
    /// The directory that releases are published in; <out>/cdn, if not given
    #[arg(long)]
    cdn: Option<PathBuf>,
    /// The updater's configuration in the image, such as {"cdn": "https://…"}
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
    /// Where artifacts, logs, keys and caches go
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// How the test's virtual machines run
    #[arg(long, value_enum, default_value_t)]
    accel: testbed::AccelPreference,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// This workspace: variants, and the updater's source.
fn workspace() -> Result<PathBuf> {
    let builder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = builder.parent().context("the builder lies in a workspace")?;
    workspace.canonicalize().with_context(|| {
        format!("{} is gone: run the builder from where it was compiled", workspace.display())
    })
}

impl Cli {
    /// Does what was asked. Returns the exit code.
    pub fn run(self) -> Result<u8> {
        let variants = || match &self.variants {
            Some(directory) => Ok(directory.clone()),
            None => Ok::<_, anyhow::Error>(workspace()?.join("builder/variants")),
        };
        let mut out = std::io::stdout().lock();
        match self.command {
            Action::Run(args) => args.run(&variants()?, &mut out)?,
            Action::Variants => {
                let directory = variants()?;
                for name in variant::known(&directory)? {
                    let file = VariantFile::load(&directory, &name.parse()?, native(None)?)?;
                    writeln!(out, "{name:<8} {}", file.distribution)?;
                }
            }
            Action::Render { variant, arch } => {
                let file = VariantFile::load(&variants()?, &variant, native(arch)?)?;
                writeln!(out, "{}", file.rendered)?;
            }
            Action::Keygen { file } => {
                writeln!(out, "{}", signing::generate(&file)?.public())?;
            }
            Action::Sandbox(entry) => return entry.run(),
        }
        Ok(0)
    }
}

impl RunArgs {
    fn run(self, variants: &Path, out: &mut impl Write) -> Result<()> {
        let target = Target { variant: self.variant.clone(), arch: native(self.arch)? };
        let variant = VariantFile::load(variants, &target.variant, target.arch)?;
        host::check_root()?;
        let (json, setup) = (self.json, self.setup);
        let (build, _lock) = self.build(target, variant, variants)?;
        let container = &build.variant.container;
        let missing = host::missing(&container.bootstrap[0], &container.host_packages);
        host::prepare(&missing, setup)?;
        let summary = stages::run(&build)?;
        summary::print(&summary, &build.directories.artifacts, json, out)
    }

    /// Everything that a build needs, checked before anything is built.
    fn build(
        self,
        target: Target,
        variant: VariantFile,
        variants: &Path,
    ) -> Result<(Build, std::fs::File)> {
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("creating {}", self.out.display()))?;
        let out = self.out.canonicalize()?;
        let directories = Directories::create(&out, &target)?;
        let lock = directories.lock()?;
        let signing =
            Signing::load(self.signing_key.as_deref(), &self.trusted_keys, &out.join("keys"))?;
        let cdn = Cdn::open(&self.cdn.unwrap_or_else(|| out.join("cdn")))?;
        // A CDN whose manifest cannot be read is better known now than after the test.
        cdn.manifest(&target, &signing.ring()?)?;
        if let Some(config) = &self.host_config {
            let text = std::fs::read_to_string(config)
                .with_context(|| format!("reading {}", config.display()))?;
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
                .with_context(|| format!("{} is not a JSON object", config.display()))?;
        }
        let build = Build {
            target,
            variant,
            variants: variants.to_owned(),
            workspace: workspace()?,
            directories,
            signing,
            engine: self.engine,
            mirror: self.mirror,
            cdn,
            host_config: self.host_config,
            accel: self.accel,
        };
        Ok((build, lock))
    }
}

fn native(arch: Option<Arch>) -> Result<Arch> {
    arch.or_else(Arch::native).context("EtchaOS is not built on this architecture; name --arch")
}
