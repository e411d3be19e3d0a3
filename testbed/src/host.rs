//! The programs and files that the testbed requires on the host.

use std::fmt;
use std::path::Path;

use protocol::Arch;

use crate::accel::Accel;
use crate::firmware::Firmware;
use crate::platform::platform;

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

/// Returns the requirements of all scenarios for targets of `arch`.
pub fn requirements(arch: Arch) -> Vec<Requirement> {
    let requirement = |name: &str, package| Requirement { name: name.to_owned(), package };
    let platform = platform(arch);
    let mut requirements = vec![
        requirement("setpriv", "util-linux"),
        requirement(platform.qemu, platform.qemu_package),
        requirement("swtpm", "swtpm"),
    ];
    for firmware in [Firmware::Uefi, Firmware::UefiSecureboot] {
        for flash in [Accel::Tcg, Accel::Kvm].iter().filter_map(|a| firmware.flash(arch, *a)) {
            for file in [flash.code, flash.variables] {
                let file = requirement(&file, platform.firmware_package);
                if !requirements.contains(&file) {
                    requirements.push(file);
                }
            }
        }
    }
    requirements
}

/// Checks that all requirements for targets of `arch` are met.
///
/// # Errors
/// Fails with the requirements that are not met.
pub(crate) fn check(arch: Arch) -> Result<(), Missing> {
    let all = requirements(arch).into_iter();
    let missing: Vec<Requirement> = all.filter(|requirement| !requirement.is_met()).collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
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

fn list(requirements: &[Requirement]) -> String {
    requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_all_requirements_and_each_package_once() {
        for (arch, packages) in [
            (Arch::Amd64, "util-linux qemu-system-x86 swtpm ovmf"),
            (Arch::Arm64, "util-linux qemu-system-arm swtpm qemu-efi-aarch64"),
        ] {
            let error = Missing(requirements(arch)).to_string();
            for requirement in requirements(arch) {
                assert!(error.contains(&requirement.to_string()), "{error}");
            }
            assert!(error.ends_with(&format!("apt-get install {packages}")), "{error}");
        }
    }

    #[test]
    fn requires_only_the_files_of_the_architecture() {
        let names = |arch| requirements(arch).into_iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(
            names(Arch::Amd64),
            [
                "setpriv",
                "qemu-system-x86_64",
                "swtpm",
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.fd",
                "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
            ]
        );
        assert_eq!(
            names(Arch::Arm64),
            [
                "setpriv",
                "qemu-system-aarch64",
                "swtpm",
                "/usr/share/AAVMF/AAVMF_CODE.fd",
                "/usr/share/AAVMF/AAVMF_VARS.fd",
                "/usr/share/AAVMF/AAVMF_CODE.ms.fd",
                "/usr/share/AAVMF/AAVMF_VARS.ms.fd",
            ]
        );
    }

    #[test]
    fn finds_programs_in_path_and_files_by_absolute_path() {
        let met = |name: &str| Requirement { name: name.into(), package: "x" }.is_met();
        assert!(met("sh") && met("/etc/passwd"));
        assert!(!met("no-such-program") && !met("/no/such/file") && !met("/etc"));
    }
}
