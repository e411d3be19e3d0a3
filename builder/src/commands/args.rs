//! The options that several commands share.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use protocol::{Arch, Target, Variant};

use crate::destination::{self, Http, Location};
use crate::publish::{Retention, Site};
use crate::signing::{DEVELOPMENT_KEY, Keys, Signing};

/// The target of a command.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The variant, such as "deb"; "builder variants" lists them
    pub variant: Variant,
    /// The architecture [default: that of this machine]
    #[arg(long)]
    pub arch: Option<Arch>,
}

impl TargetArgs {
    /// Returns the target.
    pub(crate) fn target(&self) -> Result<Target> {
        Ok(Target { variant: self.variant.clone(), arch: native(self.arch)? })
    }
}

/// The targets of a command that can run for several.
#[derive(Debug, Args)]
pub(crate) struct TargetsArgs {
    /// The variants, such as "deb"; "builder variants" lists them
    #[arg(required = true, value_name = "VARIANT")]
    names: Vec<Variant>,
    /// The architectures, separated by commas [default: that of this machine]
    #[arg(long, value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Run at most N targets at a time, as far as memory allows [default: the number of processors]
    #[arg(long, value_name = "N")]
    pub jobs: Option<NonZeroUsize>,
}

impl TargetsArgs {
    /// Returns the targets: every variant for every architecture, each of them once.
    fn targets(&self) -> Result<Vec<Target>> {
        targets(&self.names, &self.arch)
    }
}

/// Returns every variant for every architecture, each target once. Without an architecture, that of this machine
/// counts.
pub(crate) fn targets(variants: &[Variant], arches: &[Arch]) -> Result<Vec<Target>> {
    let arches = if arches.is_empty() { vec![native(None)?] } else { arches.to_vec() };
    let mut targets = Vec::new();
    for variant in variants {
        for arch in &arches {
            let target = Target { variant: variant.clone(), arch: *arch };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
    }
    Ok(targets)
}

/// Returns the given architecture, or that of this machine.
pub(crate) fn native(arch: Option<Arch>) -> Result<Arch> {
    arch.or_else(Arch::native).context(
        "EtchaOS does not support the architecture of this machine; choose one with --arch",
    )
}

/// The output directory.
#[derive(Debug, Args)]
pub(crate) struct OutArgs {
    /// The directory for artifacts, logs, keys and caches
    #[arg(long, value_name = "OUT", default_value = "out")]
    pub out: PathBuf,
}

impl OutArgs {
    /// Returns the absolute path of the directory, which is created if it does not exist.
    pub(crate) fn create(&self) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("creating {}", self.out.display()))?;
        self.out.canonicalize().with_context(|| format!("opening {}", self.out.display()))
    }
}

/// The keys of the publisher.
#[derive(Debug, Args)]
pub(crate) struct SigningArgs {
    /// The key that signs manifests: a key string or @FILE; with --sign-command, its public key
    /// [default: a development key, created in <OUT>/keys]
    #[arg(long, value_name = "KEY", env = "ETCHAOS_SIGNING_KEY", hide_env_values = true)]
    signing_key: Option<String>,
    /// A shell command that signs in place of a private key: it reads the signing input from standard
    /// input and prints the signature as bytes or in base64
    #[arg(
        long,
        value_name = "COMMAND",
        env = "ETCHAOS_SIGN_COMMAND",
        hide_env_values = true,
        requires = "signing_key"
    )]
    sign_command: Option<String>,
    /// An additional key to trust, such as the previous and the next signing key: a key string or
    /// @FILE; can be repeated. A build adds it to the image
    #[arg(long = "trusted-key", value_name = "KEY")]
    trusted_keys: Vec<String>,
}

impl SigningArgs {
    /// Loads the keys.
    pub(crate) fn load(&self, out: &Path) -> Result<Signing> {
        let keys = Keys {
            key: self.signing_key.as_deref(),
            command: self.sign_command.as_deref(),
            trusted: &self.trusted_keys,
        };
        Signing::load(keys, &out.join("keys"))
    }

    /// Names the development key as the signing key if no other one was given.
    fn use_development_key(&mut self, out: &Path) {
        let path = out.join("keys").join(DEVELOPMENT_KEY);
        self.signing_key.get_or_insert_with(|| format!("@{}", path.display()));
    }
}

/// The destinations of a release.
#[derive(Debug, Args)]
pub(crate) struct DestinationArgs {
    /// Where to publish: a directory, or s3://BUCKET[/PREFIX]; can be repeated [default: <OUT>/cdn]
    #[arg(long = "to", alias = "cdn", value_name = "DESTINATION")]
    to: Vec<String>,
    /// The URL at which hosts find the files of a destination, in the order of --to; every upload is
    /// read back from it
    #[arg(long = "public-url", value_name = "URL")]
    public_urls: Vec<String>,
}

impl DestinationArgs {
    /// Opens the destinations.
    pub(crate) fn open(&self, out: &Path) -> Result<Vec<Site>> {
        let default = [out.join("cdn").to_string_lossy().into_owned()];
        let to = if self.to.is_empty() { &default[..] } else { &self.to };
        ensure!(
            self.public_urls.len() <= to.len(),
            "there are {} --public-url for {} destinations",
            self.public_urls.len(),
            to.len()
        );
        let mut urls = self.public_urls.iter();
        to.iter()
            .map(|to| {
                let destination = destination::open(to)?;
                let public = urls.next().map(|url| Http::open(url)).transpose()?;
                Ok(Site { destination, public })
            })
            .collect()
    }
}

/// The options of all commands that build or publish a release.
#[derive(Debug, Args)]
pub(crate) struct PublisherArgs {
    #[command(flatten)]
    pub out: OutArgs,
    #[command(flatten)]
    pub signing: SigningArgs,
    #[command(flatten)]
    pub destinations: DestinationArgs,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of all commands that run stages.
#[derive(Debug, Args)]
pub(crate) struct StageArgs {
    #[command(flatten)]
    pub targets: TargetsArgs,
    #[command(flatten)]
    pub publisher: PublisherArgs,
}

impl StageArgs {
    /// Returns the targets; only one if this is the builder of one of several targets.
    ///
    /// That builder prints JSON. The one that started it has created the development key, and has warned that it is
    /// used.
    pub(crate) fn choose(&mut self, only: Option<&Target>) -> Result<Vec<Target>> {
        let Some(target) = only else { return self.targets.targets() };
        let PublisherArgs { out, signing, json, .. } = &mut self.publisher;
        signing.use_development_key(&out.out);
        *json = true;
        Ok(vec![target.clone()])
    }
}

/// Where the published release is read.
#[derive(Debug, Args)]
pub(crate) struct FromArgs {
    /// Where the release is published now: the URL that hosts use, or a directory [default: the
    /// destinations]. Reading it there needs no credentials
    #[arg(long, value_name = "LOCATION", conflicts_with = "to")]
    from: Option<String>,
}

impl FromArgs {
    /// Opens the location, if one was given.
    pub(crate) fn open(&self) -> Result<Option<Box<dyn Location>>> {
        self.from.as_deref().map(destination::locate).transpose()
    }
}

/// Which old releases stay at the destinations.
#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// The number of releases to keep at each destination
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    /// The number of months whose first release is kept as well, for images that stay in use
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep_months: u8,
    /// How long to keep a release after a newer one has replaced it, such as "36h" or "7d"
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    keep_for: Duration,
}

impl RetentionArgs {
    /// Returns the rule.
    pub(crate) fn retention(&self) -> Retention {
        let (releases, months) = (usize::from(self.keep), usize::from(self.keep_months));
        Retention { releases, months, after: self.keep_for }
    }
}

/// How a release is published.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) retention: RetentionArgs,
    #[command(flatten)]
    pub(crate) deltas: DeltaCount,
}

/// From which releases hosts can update by deltas.
#[derive(Debug, Args)]
pub(crate) struct DeltaCount {
    /// The number of newest releases to make deltas from; 0 for no deltas
    ///
    /// "build" makes the deltas from the release that is published now, which "test" uses. "publish" makes the
    /// others, also those from the first release of each month that --keep-months keeps.
    #[arg(long = "deltas", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(..=16))]
    pub(crate) count: u16,
}

/// Parses a duration such as "36h" or "7d", with days of 24 hours.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let span: jiff::Span = text.parse()?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours())?;
    Ok(Duration::try_from(duration)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_all_combinations_once() {
        let variants = ["deb", "ubu", "deb"].map(|name| name.parse().unwrap());
        let names = |arches: &[Arch]| -> Vec<String> {
            targets(&variants, arches).unwrap().iter().map(ToString::to_string).collect()
        };
        let both = ["deb_amd64", "deb_arm64", "ubu_amd64", "ubu_arm64"];
        assert_eq!(names(&[Arch::Amd64, Arch::Arm64, Arch::Amd64]), both);
        assert_eq!(names(&[Arch::Arm64]), ["deb_arm64", "ubu_arm64"]);
        if let Some(native) = Arch::native() {
            assert_eq!(names(&[]), names(&[native]));
        }
    }

    #[test]
    fn parses_durations() {
        assert_eq!(duration("36h").unwrap(), Duration::from_secs(36 * 3600));
        assert_eq!(duration("7d").unwrap(), Duration::from_secs(7 * 24 * 3600));
        assert_eq!(duration("0s").unwrap(), Duration::ZERO);
        for invalid in ["", "7", "-1h", "soon"] {
            assert!(duration(invalid).is_err(), "{invalid:?}");
        }
    }
}
