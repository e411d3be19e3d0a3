//! Prints the result of a command, as a table or as JSON.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use protocol::Release;
use serde_json::{Value, json};

use crate::figures::Figures;
use crate::log_file::{Origin, Step};
use crate::publish::{Outcome, Report};
use crate::stages::Stage;

/// The table leaves out steps that took less.
const STEP_MIN: Duration = Duration::from_millis(100);

/// The result of a command that runs stages.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    /// The stages.
    pub stages: &'a [Stage],
    /// The release.
    pub release: &'a Release,
    /// The directory of its files.
    pub directory: &'a Path,
    /// The figures; `None` if the release was not tested.
    pub figures: Option<&'a Figures>,
    /// The result of the publication; `None` if the command does not publish.
    pub report: Option<&'a Report>,
}

/// Prints the summary.
pub(crate) fn print(summary: &Summary<'_>, as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(&to_json(summary))?)?;
        return Ok(());
    }
    print_times(summary.stages, out)?;
    writeln!(out, "\n{:<36} {:>12}  sha256", "file", "bytes")?;
    for file in summary.release.files() {
        writeln!(out, "{:<36} {:>12}  {}", file.name, file.size, file.sha256)?;
    }
    writeln!(out, "in {}\n", summary.directory.display())?;
    if let Some(figures) = summary.figures {
        writeln!(out, "{figures}\n")?;
    }
    match summary.report {
        Some(report) => print_report(report, false, out),
        None => Ok(()),
    }
}

fn to_json(summary: &Summary<'_>) -> Value {
    let stages: Vec<Value> = summary.stages.iter().map(stage_json).collect();
    json!({
        "directory": summary.directory,
        "stages": stages,
        "artifacts": summary.release.artifacts,
        "documents": summary.release.documents,
        "figures": summary.figures,
        "release": summary.report,
    })
}

/// Prints the result of a publication.
pub(crate) fn print_report(report: &Report, as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let has_failed = report.destinations.iter().all(|site| site.error.is_some());
    match &report.outcome {
        _ if has_failed => writeln!(out, "no destination has the release")?,
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
    for delta in &report.deltas {
        writeln!(out, "{delta}")?;
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

/// Returns a stage with its steps; `cached` means that an earlier build computed the result.
fn stage_json(stage: &Stage) -> serde_json::Value {
    let steps = stage.steps.iter().map(|Step { name, took, origin }| {
        json!({"name": name, "seconds": took.as_secs_f64(), "cached": *origin == Origin::Cached})
    });
    json!({
        "name": stage.name,
        "seconds": stage.took.as_secs_f64(),
        "steps": steps.collect::<Vec<_>>(),
    })
}

/// Prints the time of each stage, and of the steps that took long or came from the cache.
fn print_times(stages: &[Stage], out: &mut impl Write) -> Result<()> {
    writeln!(out, "\n{:<34} {:>8}", "stage", "seconds")?;
    for stage in stages {
        writeln!(out, "{:<34} {:>8.1}", stage.name, stage.took.as_secs_f64())?;
        for Step { name, took, origin } in &stage.steps {
            let cached = if *origin == Origin::Cached { "  cached" } else { "" };
            if *took >= STEP_MIN || !cached.is_empty() {
                writeln!(out, "  {name:<32} {:>8.1}{cached}", took.as_secs_f64())?;
            }
        }
    }
    let total: f64 = stages.iter().map(|stage| stage.took.as_secs_f64()).sum();
    writeln!(out, "{:<34} {total:>8.1}", "total")?;
    Ok(())
}
