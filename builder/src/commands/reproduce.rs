//! The command `reproduce`: builds a published release again and compares the result.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use protocol::compare::{Difference, differences};
use protocol::{PrivateKey, Release};
use serde_json::json;

use super::args::OutArgs;
use super::build::BuildOptions;
use super::checkout::Checkout;
use crate::cache::Cache;
use crate::diff::explain::{Finding, ReleaseFiles, Verdict, explain};
use crate::log_file::LogFile;
use crate::packaged::Packaged;
use crate::progress::{Bar, message};
use crate::proxy::Proxies;
use crate::published_image::{PublishedImage, is_built};
use crate::signing::{self, Keys, Signing};
use crate::stages::{self, Build, Directories, Stages};

/// Options of "reproduce".
#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// The manifest of the release, or a directory with one manifest: a path or a URL
    manifest: String,
    /// A file with public keys that may have signed the manifest, one per line; can be repeated
    #[arg(long, value_name = "FILE", default_value = "out/keys/signing.pub")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
    #[command(flatten)]
    options: BuildOptions,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl ReproduceArgs {
    /// Builds the release again and compares all files.
    ///
    /// # Errors
    /// Fails if a file differs.
    pub(crate) fn run(self, checkout: &Checkout, out: &mut impl Write) -> Result<()> {
        ensure!(
            self.options.host_config.is_none(),
            "--host-config was given, but the configuration is that of the published image"
        );
        let directory = self.out.create()?.join("reproduce");
        if directory.exists() {
            std::fs::remove_dir_all(&directory)
                .with_context(|| format!("emptying {}", directory.display()))?;
        }
        let files = directory.join("published");
        std::fs::create_dir_all(&files).with_context(|| format!("creating {}", files.display()))?;
        message("fetching the published release");
        let image =
            PublishedImage::fetch(&self.manifest, &signing::key_files(&self.keys)?, &files)?;
        let directories = Directories::create(&directory, &image.manifest.release.target())?;
        let packaged = self.build(checkout, &image, &directories)?;
        let bar = Bar::start("compare");
        let mut log = LogFile::create(&directories.logs.join("compare.log"), bar.clone())?;
        let mut old: Release = image.manifest.release.clone();
        old.documents.retain(|document| is_built(&document.kind));
        let findings = explain(
            ReleaseFiles { release: &old, directory: &image.directory },
            ReleaseFiles { release: packaged.release(), directory: &packaged.directory },
            &mut log,
        )?;
        bar.finish("done");
        print(&old, packaged.release(), &findings, self.json, out)?;
        let different = findings.iter().filter(|finding| finding.verdict != Verdict::Equal).count();
        ensure!(
            different == 0,
            "{different} of {} files differ; the new ones are in {}",
            findings.len(),
            packaged.directory.display()
        );
        Ok(())
    }

    /// Runs stages 1 to 4 with the inputs that the published release contains.
    fn build(
        &self,
        checkout: &Checkout,
        image: &PublishedImage,
        directories: &Directories,
    ) -> Result<Packaged> {
        let release = &image.manifest.release;
        let variant = self.options.prepare(&release.target(), &checkout.variants)?;
        // The manifest of the new build is for the comparison alone, so any key can sign it.
        let key = PrivateKey::generate().reveal();
        let keys = Keys { key: Some(&key), ..Keys::default() };
        let signing = Signing::load(keys, &directories.work)?;
        let host_config = match image.host_config() {
            Some(text) => {
                let path = directories.artifacts.join("updater.json");
                std::fs::write(&path, text)
                    .with_context(|| format!("writing {}", path.display()))?;
                Some(path)
            }
            None => None,
        };
        let build = Build {
            target: release.target(),
            variant,
            variants: checkout.variants.built_in().to_owned(),
            workspace: checkout.workspace.clone(),
            directories,
            cache: Cache::new(directories.cache.clone(), !self.options.no_cache),
            signing: &signing,
            image_keys: &image.keys()?,
            image_manifest: Some(&image.installed_manifest()?),
            engine: self.options.engine,
            mirror: self.options.mirror()?,
            without_security: self.options.without_security,
            proxies: Proxies::from_environment()?,
            newest: 0,
            predecessors: None,
            host_config,
        };
        let mut stages = Stages::new(&directories.logs)?;
        stages::build(&build, &mut stages)
    }
}

fn print(
    old: &Release,
    new: &Release,
    findings: &[Finding],
    as_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let differences = differences(old, new);
    if as_json {
        let value = json!({
            "published": {"version": old.version, "build": old.build},
            "differences": differences,
            "toolchain": {"published": old.toolchain, "now": new.toolchain},
            "files": findings,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    writeln!(out, "\n{} {}, build {}\n", old.target(), old.version, old.build)?;
    let is_input = |difference: &&Difference| !matches!(difference, Difference::Artifact { .. });
    for difference in differences.iter().filter(is_input) {
        writeln!(out, "input differs: {difference}")?;
    }
    if differences.contains(&Difference::Recipe) {
        writeln!(
            out,
            "  (another commit of this repository, other options, or another toolchain)"
        )?;
    }
    for (name, version) in &old.toolchain {
        let now = new.toolchain.get(name).map_or("missing", String::as_str);
        if now != version {
            writeln!(out, "toolchain differs: {name} {version} → {now}")?;
        }
    }
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    Ok(())
}
