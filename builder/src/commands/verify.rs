//! The command `verify`: checks a published release from end to end.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use protocol::date::format_utc;
use protocol::release::{PublishedFile, document};
use protocol::{KeyRing, url};
use serde::Serialize;

use super::args::{OutArgs, TargetArgs};
use crate::destination::{Location, locate};
use crate::publish::checksums;
use crate::published::{self, Published, in_parallel};
use crate::signing;

/// The maximum size of the file of checksums.
const CHECKSUMS_MAX: u64 = 1 << 20;

/// Options of "verify".
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    out: OutArgs,
    /// Where the release is published: the URL that hosts use, a directory, or s3://BUCKET[/PREFIX]
    /// [default: <OUT>/cdn]
    #[arg(long, value_name = "LOCATION")]
    from: Option<String>,
    /// A key that hosts trust: a key string or @FILE; can be repeated [default: the development key]
    #[arg(long = "trusted-key", value_name = "KEY")]
    trusted_keys: Vec<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The result of a check of one file.
#[derive(Debug, Serialize)]
struct Checked {
    name: String,
    size: u64,
    url: String,
    /// Why a host could not use it.
    problem: Option<String>,
}

impl VerifyArgs {
    /// Checks the live release and prints the result.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        let target = self.target.target()?;
        let from = match &self.from {
            Some(from) => from.clone(),
            None => self.out.out.join("cdn").to_string_lossy().into_owned(),
        };
        let location = locate(&from)?;
        let live = published::live(&*location, &target, &self.keys()?)?;
        let live = live.with_context(|| {
            format!("{} has no {}", location.describe(), target.manifest_name())
        })?;
        check_manifest(&live)?;
        let files: Vec<PublishedFile<'_>> = live.release().all_files().collect();
        let checked = in_parallel(&files, |file| {
            Ok(Checked {
                name: file.name.to_owned(),
                size: file.size,
                url: file.url.to_owned(),
                problem: check_file(&*location, *file)?,
            })
        })?;
        print(&live, &checked, self.json, out)?;
        let problems = checked.iter().filter(|file| file.problem.is_some()).count();
        ensure!(
            problems == 0,
            "{problems} of {} files are not as the manifest says; \"builder publish\" repairs them",
            checked.len()
        );
        check_checksums(&*location, &live)
    }

    fn keys(&self) -> Result<KeyRing> {
        let development = self.out.out.join("keys/signing.pub");
        if !self.trusted_keys.is_empty() {
            return signing::ring(&self.trusted_keys);
        }
        ensure!(
            Path::new(&development).exists(),
            "no --trusted-key was given, and there is no development key {}",
            development.display()
        );
        signing::ring(&[format!("@{}", development.display())])
    }
}

/// Checks what a host checks before it downloads a file.
fn check_manifest(live: &Published) -> Result<()> {
    let now = u64::try_from(Timestamp::now().as_second())?;
    live.manifest.check_time(now).context("a host refuses the manifest")?;
    if live.release().build == 0 {
        bail!("the manifest has build 0, which only the manifest inside a disk image has");
    }
    Ok(())
}

fn check_file(location: &dyn Location, file: PublishedFile<'_>) -> Result<Option<String>> {
    // Any origin does: the rules for the path are the same.
    if let Err(error) = url::artifact_url("https://cdn.example/manifest", file.url, &[]) {
        return Ok(Some(format!("a host refuses its URL: {error}")));
    }
    published::problem(location, file)
}

/// Compares the file of checksums with the manifest.
fn check_checksums(location: &dyn Location, live: &Published) -> Result<()> {
    let Some(file) = live.release().document(document::CHECKSUMS) else { return Ok(()) };
    let stored = location.read(&file.url, CHECKSUMS_MAX)?;
    let expected = checksums(live.release());
    ensure!(
        stored.is_none_or(|stored| stored.bytes == expected.as_bytes()),
        "{} does not have the checksums of the manifest",
        file.url
    );
    Ok(())
}

fn print(live: &Published, files: &[Checked], json: bool, out: &mut impl Write) -> Result<()> {
    let release = live.release();
    let expires = live.manifest.claims.exp;
    if json {
        let value = serde_json::json!({
            "target": release.target().to_string(),
            "version": release.version,
            "build": release.build,
            "key": live.manifest.key_id(),
            "expires": expires,
            "files": files,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    writeln!(out, "{} {}, build {}", release.target(), release.version, release.build)?;
    writeln!(out, "signed with the key {}", live.manifest.key_id())?;
    if let Some(expires) = expires {
        writeln!(out, "valid until {}", format_utc(expires))?;
    }
    writeln!(out, "\n{:<36} {:>12}  state", "file", "bytes")?;
    for file in files {
        let state = file.problem.as_deref().unwrap_or("whole");
        writeln!(out, "{:<36} {:>12}  {state}", file.name, file.size)?;
    }
    Ok(())
}
