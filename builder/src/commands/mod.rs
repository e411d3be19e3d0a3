//! The subcommands: their options, and what they do.

mod args;
mod build;
mod inspect;
mod reissue;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use args::native;
pub(crate) use build::{BuildArgs, PublishArgs, RunArgs, TestArgs};
pub(crate) use inspect::InspectArgs;
pub(crate) use reissue::{BridgeArgs, RenewArgs, WithdrawArgs};
pub(crate) use verify::VerifyArgs;

/// Returns the path of this workspace, which contains the variants and the updater's source.
pub(crate) fn workspace() -> Result<PathBuf> {
    let builder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = builder.parent().context("the builder's package is not in a workspace")?;
    workspace.canonicalize().with_context(|| {
        format!(
            "{} does not exist; the builder needs the workspace that it was compiled in",
            workspace.display()
        )
    })
}
