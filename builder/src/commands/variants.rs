//! The command `variants`: lists what can be built.

use std::io::Write;

use anyhow::{Result, ensure};
use clap::Args;
use protocol::{Arch, Target, Variant};
use serde::Serialize;

use crate::progress::message;
use crate::variant::{Proof, Proofs, VariantFile, Variants};

/// Follows the distribution of a target that Secure Boot refuses, here and in README.md.
const NO_SECURE_BOOT: &str = ", without Secure Boot";

/// Options of "variants".
#[derive(Debug, Args)]
pub(crate) struct VariantsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A target, as it is listed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    target: String,
    variant: Variant,
    arch: Arch,
    distribution: String,
    proven: Proof,
    /// Whether UEFI Secure Boot accepts the boot loader with the keys of Microsoft.
    secure_boot: bool,
    /// The file of the variant.
    file: String,
    /// The files of its drop-ins.
    drop_ins: Vec<String>,
}

impl VariantsArgs {
    /// Lists all targets.
    ///
    /// # Errors
    /// Fails after the list if a variant is not valid.
    pub(crate) fn run(&self, variants: &Variants, out: &mut impl Write) -> Result<()> {
        let proofs = Proofs::load(variants)?;
        let (mut rows, mut broken) = (Vec::new(), Vec::new());
        for name in variants.names()? {
            match rows_of(variants, &proofs, &name) {
                Ok(found) => rows.extend(found),
                Err(error) => {
                    message(&format!("error: {error:#}"));
                    broken.push(name);
                }
            }
        }
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        } else {
            print(&rows, out)?;
        }
        ensure!(broken.is_empty(), "these variants are not valid: {}", broken.join(", "));
        Ok(())
    }
}

/// Returns the targets of a variant.
fn rows_of(variants: &Variants, proofs: &Proofs, name: &str) -> Result<Vec<Row>> {
    let variant: Variant = name.parse()?;
    // Which architectures there are does not depend on the architecture that the file is rendered for.
    let any = VariantFile::load_any(variants, &variant, Arch::Amd64)?;
    let row = |arch: &Arch| -> Result<Row> {
        let file = VariantFile::load(variants, &variant, *arch)?;
        let target = Target { variant: variant.clone(), arch: *arch };
        let mut sources = file.sources.iter().map(|path| path.display().to_string());
        Ok(Row {
            target: target.to_string(),
            proven: proofs.of(&file, &target, variants),
            secure_boot: file.secure_boot,
            variant: variant.clone(),
            arch: *arch,
            distribution: file.distribution,
            file: sources.next().unwrap_or_default(),
            drop_ins: sources.collect(),
        })
    };
    any.arches.iter().map(row).collect()
}

fn print(rows: &[Row], out: &mut impl Write) -> Result<()> {
    writeln!(out, "{:<16} {:<22} distribution", "target", "proven")?;
    for Row { target, proven, distribution, secure_boot, .. } in rows {
        let note = if *secure_boot { "" } else { NO_SECURE_BOOT };
        writeln!(out, "{target:<16} {proven:<22} {distribution}{note}")?;
    }
    for Row { target, drop_ins, .. } in rows {
        for drop_in in drop_ins {
            writeln!(out, "\ndrop-in of {target}: {drop_in}")?;
        }
    }
    Ok(())
}
