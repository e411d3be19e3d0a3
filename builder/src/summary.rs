//! Prints the result of a build, as a table or as JSON.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::stages::{Outcome, Summary};

/// Prints the summary.
pub(crate) fn print(
    summary: &Summary,
    directory: &Path,
    as_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    if as_json {
        let stages: Vec<_> = summary
            .stages
            .iter()
            .map(|(name, took)| json!({"name": name, "seconds": took.as_secs_f64()}))
            .collect();
        let all = json!({
            "directory": directory,
            "stages": stages,
            "artifacts": summary.artifacts,
            "release": summary.outcome,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    writeln!(out, "\n{:<12} {:>8}", "stage", "seconds")?;
    for (name, took) in &summary.stages {
        writeln!(out, "{name:<12} {:>8.1}", took.as_secs_f64())?;
    }
    writeln!(out, "\n{:<28} {:>12}  sha256", "artifact", "bytes")?;
    for artifact in &summary.artifacts {
        writeln!(out, "{:<28} {:>12}  {}", artifact.name, artifact.size, artifact.sha256)?;
    }
    writeln!(out, "in {}\n", directory.display())?;
    match &summary.outcome {
        Outcome::Unchanged { build } => {
            writeln!(
                out,
                "unchanged: the CDN has the same release as build {build}; nothing was published"
            )?;
        }
        Outcome::Renewed { build } => {
            writeln!(
                out,
                "unchanged: the manifest was about to expire and was renewed as build {build}"
            )?;
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
    Ok(())
}
