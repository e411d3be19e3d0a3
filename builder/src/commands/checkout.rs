//! The checkout of this repository that is built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::variant::Variants;

/// The checkout of this repository.
#[derive(Debug)]
pub(crate) struct Checkout {
    /// The workspace, which contains the updater's source.
    pub workspace: PathBuf,
    /// The directories with variants.
    pub variants: Variants,
}

/// Returns the path of the given workspace, or of the one that the builder was compiled in.
pub(crate) fn workspace(given: Option<&Path>) -> Result<PathBuf> {
    let builder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiled_in = || builder.parent().context("the builder's package is not in a workspace");
    let workspace = given.map_or_else(compiled_in, Ok)?;
    workspace.canonicalize().with_context(|| {
        format!(
            "{} does not exist; name the checkout of this repository with --workspace",
            workspace.display()
        )
    })
}
