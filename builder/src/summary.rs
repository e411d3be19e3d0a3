//! What a build did, as a table or as JSON.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use crate::stages::{Outcome, Summary};

/// Prints the summary on standard output.
pub fn print(summary: &Summary, folder: &Path, as_json: bool) -> Result<()> {
    if as_json {
        let stages: Vec<_> = summary
            .stages
            .iter()
            .map(|(name, took)| json!({"name": name, "seconds": took.as_secs_f64()}))
            .collect();
        let all = json!({
            "folder": folder,
            "stages": stages,
            "artifacts": summary.artifacts,
            "release": summary.outcome,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("\n{:<12} {:>8}", "stage", "seconds");
    for (name, took) in &summary.stages {
        println!("{name:<12} {:>8.1}", took.as_secs_f64());
    }
    println!("\n{:<28} {:>12}  sha256", "artifact", "bytes");
    for artifact in &summary.artifacts {
        println!("{:<28} {:>12}  {}", artifact.name, artifact.size, artifact.sha256);
    }
    println!("in {}\n", folder.display());
    match &summary.outcome {
        Outcome::Unchanged { build } => {
            println!("unchanged: the CDN has this release as build {build}; nothing was published");
        }
        Outcome::Published { build, differences: None } => {
            println!("published build {build}, the first release");
        }
        Outcome::Published { build, differences: Some(differences) } => {
            println!("published build {build}; what changed:");
            for difference in differences {
                println!("  {difference}");
            }
        }
    }
    Ok(())
}
