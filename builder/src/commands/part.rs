//! The options of `build` that run only a part of it.

use std::io::Write;

use anyhow::{Result, ensure};
use clap::Args;

use crate::stages::{self, Until};
use crate::variant::VariantFile;

/// Options of "build" that look into a build, and build no release.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct PartArgs {
    /// List the Commands of the variant with their parts, and do nothing else
    #[arg(long)]
    pub(super) list: bool,
    /// Run the Command with this ID alone, on the tree that the last build of the target left
    #[arg(long, value_name = "ID")]
    pub(super) only: Option<String>,
    /// Run the stages until this one, and open a shell in the sandbox as it left it, also if it fails
    #[arg(long, value_name = "STAGE")]
    pub(super) shell: Option<Until>,
}

impl PartArgs {
    /// Checks that none of the options was given, because several targets are built.
    pub(super) fn check_absent(&self) -> Result<()> {
        ensure!(
            !self.list && self.only.is_none() && self.shell.is_none(),
            "--list, --only and --shell work on one target; name one variant and one architecture"
        );
        Ok(())
    }
}

/// Lists the Commands of a variant.
pub(super) fn list(variant: &VariantFile, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{:<10} ID", "part")?;
    for (part, command) in stages::commands(variant) {
        writeln!(out, "{part:<10} {}", command.id)?;
    }
    Ok(())
}
