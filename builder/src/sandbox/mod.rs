//! Sandboxes: root file systems of the source distribution in which the variant's Commands run.
//!
//! There are two kinds. [`namespace`] needs only Linux, [`docker`] needs a running container engine.
//! Both show the build's work directory as [`WORK`], both have network access, and both end together
//! with the builder, even if it is killed.

pub mod docker;
mod interface;
pub mod namespace;
mod terminal;

use std::path::Path;

use anyhow::Result;

pub use namespace::NamespaceSandbox;

pub use interface::{Base, BaseTree, Finished, PATH, Sandbox, Script, WORK};

use crate::log_file::LogFile;

/// The kind of sandbox, as chosen on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Docker or Podman if its socket answers, otherwise namespaces
    Auto,
    /// A container of Docker or Podman
    Docker,
    /// Linux namespaces; needs no daemon
    Namespace,
}

/// Starts a sandbox that shares the directory `work` as [`WORK`].
pub fn start(
    engine: Engine,
    base: &Base<'_>,
    work: &Path,
    log: &mut LogFile,
) -> Result<Box<dyn Sandbox>> {
    if engine != Engine::Namespace {
        match docker::Connection::open() {
            Ok(connection) => return Ok(Box::new(connection.start(base, work, log)?)),
            Err(error) if engine == Engine::Docker => return Err(error),
            Err(error) => log.line(&format!("no container engine: {error:#}; using namespaces")),
        }
    }
    Ok(Box::new(NamespaceSandbox::create(base.tree, work, log)?))
}
