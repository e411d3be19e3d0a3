//! The command `check`: resolves variants against their sources.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use protocol::{Arch, Package, PrivateKey, Target, Variant};
use serde::Serialize;

use super::args::{OutArgs, duration, targets};
use super::checkout::Checkout;
use crate::cache::Cache;
use crate::host;
use crate::mirror::Mirror;
use crate::progress::message;
use crate::proxy::Proxies;
use crate::sandbox::Engine;
use crate::signing::{Keys, Signing};
use crate::stages::{self, Build, Directories, Stages};
use crate::variant::{VariantFile, Variants};

/// The directory of checks in the output directory. A check must not remove the tree of the last build.
const DIRECTORY: &str = "check";

/// Options of "check".
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The variants to check, such as "deb" [default: all variants]
    names: Vec<Variant>,
    /// The architectures, separated by commas [default: that of this machine]
    #[arg(long, value_delimiter = ',')]
    arch: Vec<Arch>,
    #[command(flatten)]
    out: OutArgs,
    /// Install the packages that this machine lacks
    #[arg(long)]
    setup: bool,
    /// The kind of sandbox
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    engine: Engine,
    /// The URL of the distribution's mirror [default: the sources of the distribution]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Check without security updates, because the mirror has no security archive
    #[arg(long, requires = "mirror")]
    without_security: bool,
    /// How long the check of one target may take, such as "5m"
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    timeout: Duration,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// The result of a check.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    target: String,
    distribution: String,
    /// The official container image of the distribution.
    image: String,
    /// The keys that packages or indexes are verified with.
    keys: Vec<String>,
    /// The sandbox, which was made from the image or bootstrapped.
    sandbox: Option<String>,
    packages: Vec<Package>,
    error: Option<String>,
}

impl CheckArgs {
    /// Checks all targets, and prints the result of each.
    ///
    /// # Errors
    /// Fails after the last target if a check failed.
    pub(crate) fn run(self, checkout: &Checkout, out: &mut impl Write) -> Result<()> {
        host::check_root()?;
        let files = self.files(&checkout.variants)?;
        let requirements = host::of_sandboxes(&files);
        if self.setup {
            host::install(&requirements)?
        } else {
            host::check(&requirements)?
        }
        let mut rows = Vec::new();
        for file in files {
            let row = self.row(file, checkout)?;
            if let Some(error) = &row.error {
                message(&format!("error: {}: {error}", row.target));
            } else if !self.json {
                print(&row, out)?;
            }
            rows.push(row);
        }
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        }
        let failed: Vec<&str> =
            rows.iter().filter(|row| row.error.is_some()).map(|row| &*row.target).collect();
        ensure!(failed.is_empty(), "these targets cannot be built now: {}", failed.join(", "));
        Ok(())
    }

    /// Returns the variants for each architecture. If all variants are checked, those that are not built for an
    /// architecture are left out.
    fn files(&self, variants: &Variants) -> Result<Vec<VariantFile>> {
        let is_all = self.names.is_empty();
        let names = if is_all {
            variants.names()?.iter().map(|name| Ok(name.parse()?)).collect::<Result<_>>()?
        } else {
            self.names.clone()
        };
        let mut files = Vec::new();
        for Target { variant, arch } in targets(&names, &self.arch)? {
            let file = VariantFile::load_any(variants, &variant, arch)?;
            if !is_all || file.arches.contains(&arch) {
                files.push(VariantFile::load(variants, &variant, arch)?);
            }
        }
        Ok(files)
    }

    /// Checks one target. An error of the check is part of the result.
    fn row(&self, file: VariantFile, checkout: &Checkout) -> Result<Row> {
        let target = Target { variant: file.variant.clone(), arch: file.arch };
        let mut row = Row {
            target: target.to_string(),
            distribution: file.distribution.clone(),
            image: file.base.image.clone(),
            keys: file.check.as_ref().map(|check| check.keys.clone()).unwrap_or_default(),
            sandbox: None,
            packages: Vec::new(),
            error: None,
        };
        let watch = Watch::start(&row.target, self.timeout);
        match self.check(target, file, checkout) {
            Ok(checked) => {
                row.sandbox = Some(checked.sandbox);
                row.packages = checked.packages;
            }
            Err(error) => row.error = Some(format!("{error:#}")),
        }
        watch.end();
        Ok(row)
    }

    fn check(
        &self,
        target: Target,
        variant: VariantFile,
        checkout: &Checkout,
    ) -> Result<stages::Checked> {
        let out = self.out.create()?;
        let directories = Directories::create(&out.join(DIRECTORY), &target)?;
        let _lock = directories.lock()?;
        // A check signs nothing.
        let key = PrivateKey::generate().reveal();
        let keys = Keys { key: Some(&key), command: None, trusted: &[] };
        let signing = Signing::load(keys, &out.join("keys"))?;
        let build = Build {
            target,
            variant,
            variants: checkout.variants.built_in().to_owned(),
            workspace: checkout.workspace.clone(),
            directories: &directories,
            cache: Cache::new(out.join("cache"), true),
            signing: &signing,
            image_keys: &[],
            image_manifest: None,
            engine: self.engine,
            mirror: self.mirror.as_deref().map(str::parse::<Mirror>).transpose()?,
            without_security: self.without_security,
            proxies: Proxies::from_environment()?,
            newest: 0,
            predecessors: None,
            host_config: None,
        };
        stages::check(&build, &mut Stages::new(&directories.logs)?)
    }
}

/// Ends the program if a check takes too long. Package managers limit the time of each attempt, but not of all
/// together.
struct Watch(Sender<()>);

impl Watch {
    fn start(target: &str, limit: Duration) -> Self {
        let (sender, receiver) = mpsc::channel();
        let text = format!(
            "error: {target}: the check took longer than {} s; the last lines of its logs say which source does \
             not answer; --timeout allows more time",
            limit.as_secs()
        );
        thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                message(&text);
                // Sandboxes end together with this process.
                std::process::exit(1);
            }
        });
        Self(sender)
    }

    fn end(self) {
        // The thread also ends when the sender is dropped.
        drop(self.0);
    }
}

fn print(row: &Row, out: &mut impl Write) -> Result<()> {
    let Row { target, distribution, image, keys, sandbox, packages, .. } = row;
    let count = packages.len();
    writeln!(out, "{target}: {distribution}, {count} packages")?;
    writeln!(out, "  image    {image}")?;
    writeln!(out, "  sandbox  {}", sandbox.as_deref().unwrap_or_default())?;
    writeln!(out, "  keys     {}", keys.join(", "))?;
    for Package { name, version, arch, .. } in packages {
        writeln!(out, "  {name:<34} {version:<34} {arch}")?;
    }
    Ok(())
}
