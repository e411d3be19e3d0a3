//! The command line.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use protocol::{Arch, Variant};

use crate::commands::{
    BridgeArgs, BuildArgs, CheckArgs, Checkout, Delta, InspectArgs, PublishArgs, RenewArgs,
    ReproduceArgs, RunArgs, TestArgs, VariantsArgs, VerifyArgs, WithdrawArgs, native, targets,
    workspace,
};
use crate::diff::command as diff;
use crate::host::{self, Requirement};
use crate::output::Output;
use crate::progress;
use crate::sandbox::namespace::Entry;
use crate::signing;
use crate::stages::StageFailed;
use crate::targets::ChildArgs;
use crate::variant::{VariantFile, Variants};

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
    /// A directory with variants and drop-ins of your own, in addition to those of the checkout
    #[arg(long, global = true, value_name = "DIR")]
    variants: Option<PathBuf>,
    /// The checkout with the source of the updater and the variants [default: the one that this program
    /// was compiled in]
    #[arg(long, global = true, value_name = "DIR")]
    workspace: Option<PathBuf>,
    #[command(flatten)]
    child: ChildArgs,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build, test and publish variants
    ///
    /// Runs "build", "test" and "publish". Needs root. Publishes no release if a stage fails or if the
    /// published release has the same content.
    ///
    /// Several targets run side by side: each variant for each architecture. A target that fails does not stop
    /// the others. The command prints one summary, and fails if a target failed.
    #[command(after_long_help = "\
Examples:
  builder run deb --setup
  builder run deb ubu --arch amd64,arm64
  builder run deb --signing-key @signing.key --host-config host.json --to /srv/cdn

Files in <OUT>, for the variant \"deb\" on amd64:
  deb_amd64/       the disk image, the kernel, the initrd and the manifest
  deb_amd64/logs/  one log for each stage, and the consoles of the virtual machines
  cdn/             the published releases, unless --to is given
  keys/            the development key, unless --signing-key is given")]
    Run(Box<RunArgs>),
    /// Build variants: stages 1 to 4
    ///
    /// Needs root. Writes the artifacts and a signed manifest to <OUT>. Its build number is higher than
    /// that of the release that is published at the destinations.
    Build(Box<BuildArgs>),
    /// Test the releases that were built: stage 5
    ///
    /// Needs root. Updates the release that is published at the destinations to the new one, then boots
    /// the new disk image and lets it repair itself. Records in <OUT> that the release was tested.
    Test(Box<TestArgs>),
    /// Publish the releases that were built and tested: stage 6
    ///
    /// Uploads the files of each release and then its manifest, unless the published release has the
    /// same content. In that case, repairs files that are missing or damaged, and signs the manifest
    /// again if more than half of its validity has passed or another key signed it. Removes old releases.
    #[command(after_long_help = "\
A release whose upload was interrupted is invisible to hosts; the next one completes it. With several
destinations, each gets the release completely or not at all, and an error of one does not stop the
others. Hosts that read the previous manifest can finish their download, because a file of a release is
never overwritten and is removed only after the times of --keep and --keep-for.")]
    Publish(Box<PublishArgs>),
    /// Sign the manifest of the published release again
    ///
    /// Gives it a new validity period and build number. Its files do not change.
    Renew(Box<RenewArgs>),
    /// Replace the published release by an earlier one
    ///
    /// Publishes the earlier release under a higher build number, so that hosts install it.
    Withdraw(Box<WithdrawArgs>),
    /// Publish a release for hosts that trust only an older key
    ///
    /// Copies a published release to another destination and signs its manifest with the older key. The
    /// build number stays the same, so that hosts accept the live release afterwards. Run this command
    /// again before the manifest expires.
    #[command(after_long_help = "\
Example:
  builder bridge deb --from https://os.example.org --to /srv/cdn/bridge/1 \\
    --signing-key @old.key --trusted-key @current.pub")]
    Bridge(Box<BridgeArgs>),
    /// Check a published release from end to end, as a host would
    ///
    /// Reads the manifest, checks its signature, validity and target, and reads every file that it
    /// names.
    Verify(VerifyArgs),
    /// Show a manifest, or any token that Etcha has made
    Inspect(InspectArgs),
    /// Make or apply a delta between two files, such as the initrds of two releases
    ///
    /// "build" and "publish" make the deltas that hosts use. These commands show how large a delta is.
    #[command(subcommand)]
    Delta(Delta),
    /// Check that the sources of variants have what a build needs
    ///
    /// Needs root. Starts the sandbox, and lets the package manager of the distribution resolve all packages
    /// without installing them. Prints the packages with their versions. Fails if a source does not answer or
    /// is not signed with the expected key, or if a package does not exist.
    Check(CheckArgs),
    /// List the targets: variants and their architectures
    ///
    /// Says for each how far it was proven. A variant of your own, or one with drop-ins, counts as not
    /// proven.
    Variants(VariantsArgs),
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
        /// The architectures to build for, separated by commas [default: that of this machine]
        #[arg(long, value_delimiter = ',')]
        arch: Vec<Arch>,
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
    /// Build a published release again and compare the result
    ///
    /// Needs root. Takes the trusted keys and the updater's configuration from the published image, and
    /// runs stages 1 to 4 with this checkout. Names each file that differs and, inside of the initrd and
    /// the disk image, the files that differ. The manifest inside of the disk image keeps its signature
    /// if its claims are the same.
    #[command(after_long_help = "\
Check out the commit that the release was built from. The packages of the mirror must still be those of
the release; name a mirror that has them with --mirror.")]
    Reproduce(Box<ReproduceArgs>),
    /// List the differences between two releases
    ///
    /// Compares the packages, files, sizes, units, settings and trusted keys. Files are compared by the
    /// lists that are published with the releases; without one, only the manifests are compared.
    Diff {
        /// The manifest of the old release, or a directory with one manifest: a path or a URL
        old: String,
        /// The manifest of the new release, or a directory with one manifest: a path or a URL
        new: String,
        /// A file with public keys that may have signed the manifests, one per line; can be repeated
        #[arg(long, value_name = "FILE", default_value = "out/keys/signing.pub")]
        keys: Vec<PathBuf>,
        /// The form of the output
        #[arg(long, value_enum, default_value_t)]
        format: diff::Format,
    },
    /// Run a step of a namespace sandbox; the builder starts itself with this subcommand
    #[command(hide = true)]
    Sandbox(Entry),
}

impl Cli {
    /// Runs the command and returns the exit code.
    pub fn run(self) -> Result<u8> {
        let only = self.child.enter()?;
        let workspace = || workspace(self.workspace.as_deref());
        let variants =
            || Variants::new(workspace()?.join("builder/variants"), self.variants.as_deref());
        let checkout =
            || Ok::<_, anyhow::Error>(Checkout { workspace: workspace()?, variants: variants()? });
        let mut out = Output::lock();
        match self.command {
            Action::Run(args) => args.run(only, &checkout()?, &mut out)?,
            Action::Build(args) => args.run(only, &checkout()?, &mut out)?,
            Action::Test(args) => args.run(only, &mut out)?,
            Action::Publish(args) => args.run(only, &mut out)?,
            Action::Renew(args) => args.run(&mut out)?,
            Action::Withdraw(args) => args.run(&mut out)?,
            Action::Bridge(args) => args.run(&mut out)?,
            Action::Verify(args) => args.run(&mut out)?,
            Action::Inspect(args) => args.run(&mut out)?,
            Action::Delta(delta) => delta.run(&mut out)?,
            Action::Reproduce(args) => args.run(&checkout()?, &mut out)?,
            Action::Check(args) => args.run(&checkout()?, &mut out)?,
            Action::Variants(args) => args.run(&variants()?, &mut out)?,
            Action::Render { variant, arch } => {
                let file = VariantFile::load(&variants()?, &variant, native(arch)?)?;
                writeln!(out, "{}", file.rendered)?;
            }
            Action::Setup { names, arch, tests, install, json } => {
                let requirements = requirements(&variants()?, &names, &arch, tests)?;
                if install {
                    host::install(&requirements)?;
                } else {
                    host::print(&requirements, json, &mut out)?;
                }
            }
            Action::Keygen { file } => signing::generate_and_print(&file, &mut out)?,
            Action::Pubkey { file } => writeln!(out, "{}", signing::public_key(&file)?)?,
            Action::Diff { old, new, keys, format } => {
                diff::diff(&old, &new, &signing::key_files(&keys)?, format, &mut out)?;
            }
            Action::Sandbox(entry) => return entry.run(),
        }
        Ok(0)
    }
}

/// Prints the error that ends the builder.
pub fn report(error: &anyhow::Error) {
    let log = error.downcast_ref::<StageFailed>().map(|failed| &*failed.log);
    progress::error(&format!("{error:#}"), log);
}

/// Returns the host's requirements for these variants and architectures. Without a variant, all that exist for an
/// architecture count.
fn requirements(
    variants: &Variants,
    names: &[Variant],
    arches: &[Arch],
    tests: bool,
) -> Result<Vec<Requirement>> {
    let files = if names.is_empty() {
        let names = variants.names()?;
        let names: Vec<Variant> = names.iter().filter_map(|name| name.parse().ok()).collect();
        let targets = targets(&names, arches)?.into_iter();
        // A variant that is not built for an architecture fails to load and needs nothing there.
        targets.filter_map(|t| VariantFile::load(variants, &t.variant, t.arch).ok()).collect()
    } else {
        VariantFile::load_all(variants, &targets(names, arches)?)?
    };
    Ok(host::requirements(&files, tests))
}
