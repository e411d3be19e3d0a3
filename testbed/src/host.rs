//! The programs and files that the testbed requires on the host.

use std::fmt;
use std::path::{Path, PathBuf};

/// The directory of the UEFI firmware in the packages of Debian and Ubuntu.
const OVMF: &str = "/usr/share/OVMF";

/// A program or file that the testbed needs, and the Debian package that contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The name of a program, or the absolute path of a file.
    pub name: String,
    /// The Debian package.
    pub package: &'static str,
}

impl Requirement {
    /// Returns whether the program or file is installed.
    fn is_met(&self) -> bool {
        is_installed(&self.name)
    }
}

/// Returns whether a program is in `PATH`, or whether a file exists if `name` is an absolute path.
pub(crate) fn is_installed(name: &str) -> bool {
    let path = Path::new(name);
    if path.is_absolute() {
        return path.is_file();
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).any(|directory| directory.join(path).is_file())
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (package {})", self.name, self.package)
    }
}

/// The requirements that the host does not meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the testbed needs programs or files that are not installed: {}; install them with: apt-get install {}",
    list(.0),
    packages(.0).join(" ")
)]
pub struct Missing(Vec<Requirement>);

/// Returns the requirements of a full cycle.
pub fn requirements() -> Vec<Requirement> {
    let requirement = |name: &str, package| Requirement { name: name.to_owned(), package };
    vec![
        requirement("setpriv", "util-linux"),
        requirement("qemu-system-x86_64", "qemu-system-x86"),
        requirement("swtpm", "swtpm"),
        requirement(&ovmf("OVMF_CODE_4M.fd"), "ovmf"),
        requirement(&ovmf("OVMF_CODE_4M.secboot.fd"), "ovmf"),
        requirement(&ovmf("OVMF_VARS_4M.fd"), "ovmf"),
        requirement(&ovmf("OVMF_VARS_4M.ms.fd"), "ovmf"),
    ]
}

/// Returns the requirements that are not met.
fn missing() -> Vec<Requirement> {
    requirements().into_iter().filter(|requirement| !requirement.is_met()).collect()
}

/// Checks that all requirements are met.
///
/// # Errors
/// Fails with the requirements that are not met.
pub(crate) fn check() -> Result<(), Missing> {
    match missing() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Missing(missing)),
    }
}

/// Returns the packages of `requirements` in order, each of them once.
fn packages(requirements: &[Requirement]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for requirement in requirements {
        if !packages.contains(&requirement.package) {
            packages.push(requirement.package);
        }
    }
    packages
}

/// Returns the absolute path of a firmware file.
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
    fn lists_all_requirements_and_each_package_once() {
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
    fn finds_programs_in_path_and_files_by_absolute_path() {
        let met = |name: &str| Requirement { name: name.into(), package: "x" }.is_met();
        assert!(met("sh") && met("/etc/passwd"));
        assert!(!met("no-such-program") && !met("/no/such/file") && !met("/etc"));
    }
}
