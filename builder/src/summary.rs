//! Prints the result of a command, as a table or as JSON.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use protocol::Release;
use serde_json::{Value, json};

use crate::publish::{Outcome, Report};

/// The result of a command that runs stages.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    /// The name and the duration of each stage.
    pub stages: &'a [(&'static str, Duration)],
    /// The release.
    pub release: &'a Release,
    /// The directory of its files.
    pub directory: &'a Path,
    /// The result of the publication; `None` if the command does not publish.
    pub report: Option<&'a Report>,
}

/// Prints the summary.
pub(crate) fn print(summary: &Summary<'_>, as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(&to_json(summary))?)?;
        return Ok(());
    }
    writeln!(out, "\n{:<12} {:>8}", "stage", "seconds")?;
    for (name, took) in summary.stages {
        writeln!(out, "{name:<12} {:>8.1}", took.as_secs_f64())?;
    }
    writeln!(out, "\n{:<36} {:>12}  sha256", "file", "bytes")?;
    for file in summary.release.files() {
        writeln!(out, "{:<36} {:>12}  {}", file.name, file.size, file.sha256)?;
    }
    writeln!(out, "in {}\n", summary.directory.display())?;
    match summary.report {
        Some(report) => print_report(report, false, out),
        None => Ok(()),
    }
}

fn to_json(summary: &Summary<'_>) -> Value {
    let stages: Vec<Value> = summary
        .stages
        .iter()
        .map(|(name, took)| json!({"name": name, "seconds": took.as_secs_f64()}))
        .collect();
    json!({
        "directory": summary.directory,
        "stages": stages,
        "artifacts": summary.release.artifacts,
        "documents": summary.release.documents,
        "release": summary.report,
    })
}

/// Prints the result of a publication.
pub(crate) fn print_report(report: &Report, as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    match &report.outcome {
        Outcome::Unchanged { build } => {
            writeln!(out, "unchanged: the same release is published as build {build}")?;
        }
        Outcome::Renewed { build } => {
            writeln!(out, "unchanged: the manifest was signed again as build {build}")?;
        }
        Outcome::Published { build, differences: None } => {
            writeln!(out, "published build {build}, the first release")?;
        }
        Outcome::Published { build, differences: Some(differences) } => {
            writeln!(out, "published build {build}; differences:")?;
            for difference in differences {
                writeln!(out, "  {difference}")?;
            }
        }
    }
    for site in &report.destinations {
        match &site.error {
            Some(error) => writeln!(out, "{}: FAILED: {error}", site.destination)?,
            None => writeln!(
                out,
                "{}: {} files uploaded, {} repaired, {} removed",
                site.destination,
                site.uploaded,
                site.repaired.len(),
                site.removed.len()
            )?,
        }
        for repaired in &site.repaired {
            writeln!(out, "  repaired: {repaired}")?;
        }
    }
    Ok(())
}
