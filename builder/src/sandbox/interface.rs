//! The interface of all kinds of sandboxes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::pattern::Exec;

use crate::log_file::LogFile;

/// The path of the work directory inside every sandbox.
pub const WORK: &str = "/build";

/// The search path in a sandbox.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The shell for people.
pub(super) const SHELL: &str = "/bin/bash";

/// The result of a script.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; 128 + N after signal N.
    pub code: i32,
    /// Standard output. Standard error is only in the log.
    pub stdout: String,
}

/// A script and its environment.
#[derive(Debug)]
pub struct Script<'a> {
    /// The interpreter, which gets the text as its last argument.
    pub exec: &'a Exec,
    /// The script itself.
    pub text: &'a str,
    /// The complete environment, except for `PATH`.
    pub env: &'a BTreeMap<String, String>,
}

impl Script<'_> {
    /// Returns the interpreter, its arguments and the text.
    pub fn argv(&self) -> Vec<String> {
        self.exec.words().chain([self.text]).map(str::to_owned).collect()
    }
}

/// A root file system of the source distribution in which scripts run as root.
pub trait Sandbox {
    /// Runs a script to its end and logs its output while it runs.
    fn run(&self, script: &Script<'_>, log: &mut LogFile) -> Result<Finished>;

    /// Runs a shell with standard input and output of this program. Returns its exit code.
    fn shell(&self, env: &BTreeMap<String, String>) -> Result<i32>;

    /// Returns the kind of the sandbox, for display: `docker (engine 28.2)` or `namespace`.
    fn describe(&self) -> String;
}

/// The source of a sandbox's root file system.
#[derive(Debug)]
pub struct Base<'a> {
    /// The reference of the distribution's official container image.
    pub image: &'a str,
    /// The root file system for namespaces, and for engines that cannot pull the image.
    pub tree: &'a dyn BaseTree,
}

/// A root file system of the source distribution: bootstrapped or pulled if the cache does not have it.
pub trait BaseTree: fmt::Debug {
    /// Writes the tree to a directory, which must not exist.
    fn unpack(&self, to: &Path, log: &mut LogFile) -> Result<()>;

    /// Returns the path of a tar file with the tree.
    fn tar(&self, log: &mut LogFile) -> Result<PathBuf>;
}
