//! What the machine under the VMs must have.

use std::fmt;
use std::path::{Path, PathBuf};

/// The directory of the firmware for UEFI, as Debian and Ubuntu package it.
const OVMF: &str = "/usr/share/OVMF";

/// A program or file that the testbed needs, and the Debian package that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The name of a program, or the absolute path of a file.
    pub what: String,
    /// The Debian package.
    pub package: &'static str,
}

impl Requirement {
    /// Whether it is there.
    pub fn is_met(&self) -> bool {
        is_there(&self.what)
    }
}

/// Whether there is a program of this name in `PATH`, or a file at this absolute path.
pub fn is_there(what: &str) -> bool {
    let path = Path::new(what);
    if path.is_absolute() {
        return path.is_file();
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).any(|directory| directory.join(path).is_file())
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (package {})", self.what, self.package)
    }
}

/// What is missing on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the testbed needs what is not installed here: {}; install it with: apt-get install {}",
    list(.0),
    packages(.0).join(" ")
)]
pub struct Missing(pub Vec<Requirement>);

/// Everything that a full cycle needs.
pub fn requirements() -> Vec<Requirement> {
    let need = |what: &str, package| Requirement { what: what.to_owned(), package };
    vec![
        need("setpriv", "util-linux"),
        need("qemu-system-x86_64", "qemu-system-x86"),
        need("swtpm", "swtpm"),
        need(&ovmf("OVMF_CODE_4M.fd"), "ovmf"),
        need(&ovmf("OVMF_CODE_4M.secboot.fd"), "ovmf"),
        need(&ovmf("OVMF_VARS_4M.fd"), "ovmf"),
        need(&ovmf("OVMF_VARS_4M.ms.fd"), "ovmf"),
    ]
}

/// The requirements that are not met.
pub fn missing() -> Vec<Requirement> {
    requirements().into_iter().filter(|requirement| !requirement.is_met()).collect()
}

/// An error that lists all that is missing, if anything is.
pub fn check() -> Result<(), Missing> {
    match missing() {
        none if none.is_empty() => Ok(()),
        some => Err(Missing(some)),
    }
}

/// The packages of these requirements, each once, in their order.
pub fn packages(requirements: &[Requirement]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for requirement in requirements {
        if !packages.contains(&requirement.package) {
            packages.push(requirement.package);
        }
    }
    packages
}

/// The absolute path of a firmware file.
pub(crate) fn ovmf(name: &str) -> String {
    PathBuf::from(OVMF).join(name).to_string_lossy().into_owned()
}

fn list(requirements: &[Requirement]) -> String {
    requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_lists_everything_and_each_package_once() {
        let error = Missing(requirements()).to_string();
        for requirement in requirements() {
            assert!(error.contains(&requirement.to_string()), "{error}");
        }
        assert!(
            error.ends_with("apt-get install util-linux qemu-system-x86 swtpm ovmf"),
            "{error}"
        );
    }

    #[test]
    fn programs_are_looked_for_in_the_path_and_files_where_they_are() {
        let met = |what: &str| Requirement { what: what.into(), package: "x" }.is_met();
        assert!(met("sh") && met("/etc/passwd"));
        assert!(!met("no-such-program") && !met("/no/such/file") && !met("/etc"));
    }
}
