//! Containers: a root file system of the source distribution in which Commands run as root.
//!
//! Two backends: [`namespace`] needs nothing but Linux, [`docker`] needs an engine that answers.
//! Both share the build's work directory with the container as `/build`, both reach the network, and
//! both end with the builder, however it ends.

pub mod docker;
pub mod namespace;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use protocol::pattern::Exec;

use crate::log_file::LogFile;

/// Where the work directory is inside of every container.
pub const WORK: &str = "/build";

/// The capabilities that bootstrap tools need: to mount, to make device nodes, to chroot, and to own
/// what they like. Never `--privileged`.
pub const CAPABILITIES: [&str; 3] = ["SYS_ADMIN", "MKNOD", "SYS_CHROOT"];

/// The search path in a container.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a text did in a container.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; 128 + N after signal N.
    pub code: i32,
    /// Standard output. Standard error is in the log alone.
    pub stdout: String,
}

/// A text and how it is run.
#[derive(Debug)]
pub struct Script<'a> {
    /// The program that gets the text as its last argument.
    pub exec: &'a Exec,
    /// The text.
    pub text: &'a str,
    /// All of its environment.
    pub env: &'a BTreeMap<String, String>,
}

impl Script<'_> {
    /// Program, arguments, text.
    pub fn argv(&self) -> Vec<String> {
        let flags = self.exec.flags.split_ascii_whitespace();
        [self.exec.command.as_str()]
            .into_iter()
            .chain(flags)
            .chain([self.text])
            .map(str::to_owned)
            .collect()
    }
}

/// A container that runs.
pub trait Sandbox {
    /// Runs a text to its end; what it prints goes to the log as it comes.
    fn run(&self, script: &Script<'_>, log: &mut LogFile) -> Result<Finished>;

    /// For people: `docker (Docker 28.2)` or `namespace`.
    fn describe(&self) -> String;
}

/// Where a container's root file system comes from.
#[derive(Debug)]
pub struct Base<'a> {
    /// The distribution's official image, for engines.
    pub image: &'a str,
    /// A bootstrapped root file system, for namespaces and where no registry answers.
    pub tar: &'a dyn BaseTar,
}

/// Makes the bootstrapped root file system when it is needed, or takes it from the cache.
pub trait BaseTar: std::fmt::Debug {
    /// The path of the tar file.
    fn path(&self, log: &mut LogFile) -> Result<std::path::PathBuf>;
}

/// The choice of a backend on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Docker or Podman where its socket answers, else namespaces
    Auto,
    /// Docker or Podman, through its socket
    Docker,
    /// Linux namespaces, without a daemon
    Namespace,
}

/// Starts a container that shares `work` as [`WORK`].
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
    Ok(Box::new(namespace::NamespaceSandbox::create(&base.tar.path(log)?, work, log)?))
}
