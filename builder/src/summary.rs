//! Prints the result of a build, as a table or as JSON.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::log_file::{Origin, Step};
use crate::stages::{Outcome, Stage, Summary};

/// The table leaves out steps that took less.
const STEP_MIN: Duration = Duration::from_millis(100);

/// Prints the summary.
pub(crate) fn print(
    summary: &Summary,
    directory: &Path,
    as_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    if as_json {
        let stages: Vec<_> = summary.stages.iter().map(stage_json).collect();
        let all = json!({
            "directory": directory,
            "stages": stages,
            "artifacts": summary.artifacts,
            "release": summary.outcome,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    print_times(&summary.stages, out)?;
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
