//! The command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use protocol::{Arch, Target, Variant};

use crate::cache::Cache;
use crate::cdn::Cdn;
use crate::host::Requirement;
use crate::output::Output;
use crate::sandbox::Engine;
use crate::sandbox::namespace::Entry;
use crate::signing::{self, Signing};
use crate::stages::{self, Build, Directories};
use crate::variant::{self, VariantFile};
use crate::{host, summary};

/// Builds, tests and publishes EtchaOS.
///
/// A build has six stages. "init" starts a sandbox of the distribution. "bootstrap" installs the
/// distribution's packages into a root tree. "refine" turns the tree into EtchaOS. "package" writes
/// the kernel, the initrd, the disk image and the signed manifest. "test" boots and updates the image
/// in virtual machines. "release" publishes the files if they differ from the published release.
#[derive(Debug, Parser)]
#[command(name = "builder", version)]
#[command(after_help = "\
Exit codes:
  0    success (for \"run\": published or unchanged)
  1    failure
  2    wrong usage
  129  ended by SIGHUP
  130  ended by SIGINT (Ctrl-C)
  141  the reader closed standard output
  143  ended by SIGTERM

A first build, as root:
  builder run deb --setup")]
pub struct Cli {
    /// The directory of the variants and of the files that are copied into images [default: the
    /// directory in this workspace]
    #[arg(long, global = true, value_name = "DIR")]
    variants: Option<PathBuf>,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build, test and publish a variant
    ///
    /// Needs root. Publishes no release if a stage fails or if the published release has the same content.
    #[command(after_long_help = "\
Examples:
  builder run deb --setup
  builder run deb --signing-key @signing.key --host-config host.json --cdn /srv/cdn

Files in <OUT>, for the variant \"deb\" on amd64:
  deb_amd64/       the disk image, the kernel, the initrd and the manifest
  deb_amd64/logs/  one log for each stage, and the consoles of the virtual machines
  cdn/             the published releases, unless --cdn is given
  keys/            the development key, unless --signing-key is given")]
    Run(Box<RunArgs>),
    /// List the variants
    Variants,
    /// Print a variant as JSON, as Jsonnet evaluates it
    Render {
        /// The variant, such as "deb"
        variant: Variant,
        /// The architecture [default: that of this machine]
        #[arg(long)]
        arch: Option<Arch>,
    },
    /// List or install the packages that this machine needs
    ///
    /// Prints a table of the programs and files that builds need, their Debian packages, and the
    /// command that installs what is missing. With --install, runs that command.
    Setup {
        /// The variants to build, such as "deb" [default: all variants]
        names: Vec<Variant>,
        /// Include what the tests of this repository need
        #[arg(long)]
        tests: bool,
        /// Install the missing packages with apt-get; needs root
        #[arg(long)]
        install: bool,
        /// Print JSON instead of a table
        #[arg(long, conflicts_with = "install")]
        json: bool,
    },
    /// Create a signing key and print its public key
    ///
    /// Only its owner can read the file. If the public key cannot be printed, the file is removed.
    Keygen {
        /// The file to create for the private key
        file: PathBuf,
    },
    /// Print the public key of a private key file
    Pubkey {
        /// The file with the private key
        file: PathBuf,
    },
    /// Run a step of a namespace sandbox; the builder starts itself with this subcommand
    #[command(hide = true)]
    Sandbox(Entry),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The variant, such as "deb"; "builder variants" lists them
    variant: Variant,
    /// The architecture [default: that of this machine]
    #[arg(long)]
    arch: Option<Arch>,
    /// Install the packages that this machine lacks, like "builder setup --install"
    #[arg(long)]
    setup: bool,
    /// The kind of sandbox to build in
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    engine: Engine,
    /// The URL of the distribution's mirror [default: that of the bootstrap tool]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// The key that signs the manifest: a key string or @FILE [default: a development key, created in
    /// <OUT>/keys]
    #[arg(long, value_name = "KEY", env = "ETCHAOS_SIGNING_KEY", hide_env_values = true)]
    signing_key: Option<String>,
    /// An additional key that the image trusts, such as the next signing key: a key string or @FILE;
    /// can be repeated
    #[arg(long = "trusted-key", value_name = "KEY")]
    trusted_keys: Vec<String>,
    /// The directory to publish releases in [default: <OUT>/cdn]
    #[arg(long, value_name = "DIR")]
    cdn: Option<PathBuf>,
    /// A file with the updater's configuration in the image, such as {"cdn": "https://…"}
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
    /// The directory for artifacts, logs, keys and caches
    #[arg(long, value_name = "OUT", default_value = "out")]
    out: PathBuf,
    /// Compute everything again: use no result of an earlier build
    ///
    /// Without this option, a stage uses a result in <OUT>/cache if everything that it depends on is the
    /// same.
    #[arg(long)]
    no_cache: bool,
    /// The acceleration of the test's virtual machines
    #[arg(long, value_enum, default_value_t)]
    accel: testbed::AccelPreference,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Returns the path of this workspace, which contains the variants and the updater's source.
fn workspace() -> Result<PathBuf> {
    let builder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = builder.parent().context("the builder's package is not in a workspace")?;
    workspace.canonicalize().with_context(|| {
        format!(
            "{} does not exist; the builder needs the workspace that it was compiled in",
            workspace.display()
        )
    })
}

impl Cli {
    /// Runs the command and returns the exit code.
    pub fn run(self) -> Result<u8> {
        let variants = || match &self.variants {
            Some(directory) => Ok(directory.clone()),
            None => Ok::<_, anyhow::Error>(workspace()?.join("builder/variants")),
        };
        let mut out = Output::lock();
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
            Action::Setup { names, tests, install, json } => {
                let requirements = requirements(&variants()?, names, tests)?;
                if install {
                    host::install(&requirements)?;
                } else {
                    host::print(&requirements, json, &mut out)?;
                }
            }
            Action::Keygen { file } => signing::generate_and_print(&file, &mut out)?,
            Action::Pubkey { file } => writeln!(out, "{}", signing::public_key(&file)?)?,
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
        let requirements = host::requirements([&build.variant], false);
        if setup {
            host::install(&requirements)?;
        } else {
            host::check(&requirements)?;
        }
        let summary = stages::run(&build)?;
        summary::print(&summary, &build.directories.artifacts, json, out)
    }

    /// Validates the arguments and returns the inputs of the build, and the lock of its directories.
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
        // Without this check, an untrusted manifest would be an error only after the test stage.
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
            cache: Cache::new(directories.cache.clone(), !self.no_cache),
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

/// Returns the host's requirements for these variants, or for all that this machine can build.
fn requirements(directory: &Path, names: Vec<Variant>, tests: bool) -> Result<Vec<Requirement>> {
    let arch = native(None)?;
    let files: Vec<VariantFile> = if names.is_empty() {
        // A variant that is not built for this architecture fails to load and needs nothing here.
        let names = variant::known(directory)?;
        let names = names.iter().filter_map(|name| name.parse().ok());
        names.filter_map(|name| VariantFile::load(directory, &name, arch).ok()).collect()
    } else {
        names.iter().map(|name| VariantFile::load(directory, name, arch)).collect::<Result<_>>()?
    };
    Ok(host::requirements(&files, tests))
}

fn native(arch: Option<Arch>) -> Result<Arch> {
    arch.or_else(Arch::native).context(
        "EtchaOS does not support the architecture of this machine; choose one with --arch",
    )
}
