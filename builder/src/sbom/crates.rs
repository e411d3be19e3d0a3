//! The Rust crates that are linked into the updater.
//!
//! `Cargo.lock` alone does not tell dependencies of tests and of other platforms from those of the
//! program. `cargo tree` resolves features and platforms as the compilation does.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_lock::Lockfile;
use protocol::Arch;

use crate::command::Tool;
use crate::log_file::LogFile;
use crate::triple;

/// A crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as it declares it, an SPDX expression, or empty.
    pub license: String,
    /// The SHA-256 of its archive. A crate of this workspace has none.
    pub sha256: Option<String>,
}

/// Returns the crates that the updater consists of, sorted.
pub(crate) fn of_updater(workspace: &Path, arch: Arch, log: &mut LogFile) -> Result<Vec<Crate>> {
    let tree = Tool::new("cargo")
        .args(["tree", "--locked", "--package", "updater", "--target", triple::rust(arch)])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}|{l}", "--manifest-path"])
        .arg(workspace.join("Cargo.toml"))
        .run(log)
        .context("listing the crates of the updater")?;
    let path = workspace.join("Cargo.lock");
    let lock = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    parse(&tree, &lock)
}

/// Reads the output of `cargo tree` with lines `name vVERSION [(path)]|licence`, and takes the checksums
/// from the text of `Cargo.lock`.
pub(super) fn parse(tree: &str, lock: &str) -> Result<Vec<Crate>> {
    let lock: Lockfile = lock.parse().context("reading Cargo.lock")?;
    let mut crates = Vec::new();
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        let unknown = || format!("cargo tree printed {line:?}, expected \"name vVERSION|licence\"");
        let (package, license) = line.split_once('|').with_context(unknown)?;
        let mut words = package.split_whitespace();
        let name = words.next().with_context(unknown)?;
        let version = words.next().and_then(|word| word.strip_prefix('v')).with_context(unknown)?;
        let locked = lock
            .packages
            .iter()
            .find(|locked| locked.name.as_str() == name && locked.version.to_string() == version)
            .with_context(|| format!("Cargo.lock does not list {name} {version}"))?;
        crates.push(Crate {
            name: name.to_owned(),
            version: version.to_owned(),
            // Cargo's old form of OR.
            license: license.trim().replace('/', " OR "),
            sha256: locked.checksum.as_ref().map(ToString::to_string),
        });
    }
    crates.sort();
    crates.dedup();
    Ok(crates)
}
