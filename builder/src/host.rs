//! The programs and files that the build host needs, and the Debian packages that provide them.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::json;

use crate::progress::message;
use crate::variant::VariantFile;

/// The purpose of a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Purpose {
    /// A build.
    Build,
    /// The virtual machines of the testbed.
    Testbed,
    /// The tests of this repository.
    Tests,
}

/// A program or file of a Debian package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Requirement {
    /// The name of a program, or the absolute path of a file.
    pub needs: String,
    /// The Debian package that provides it.
    pub package: String,
    /// The purpose.
    pub purpose: Purpose,
    /// Whether the host has it.
    pub installed: bool,
}

/// The programs that the builder itself starts, with their packages.
const BUILD: [(&str, &str); 4] =
    [("tar", "tar"), ("setpriv", "util-linux"), ("unshare", "util-linux"), ("cc", "gcc")];

/// The programs that only tests need: independent readers of the formats, a proxy, another clock, a
/// container engine, a C++ compiler for fuzzing, and linters.
const TESTS: &[(&str, &str)] = &[
    ("sgdisk", "gdisk"),
    ("fsck.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mkfs.vfat", "dosfstools"),
    ("bmaptool", "bmap-tools"),
    ("zstd", "zstd"),
    ("cpio", "cpio"),
    ("unsquashfs", "squashfs-tools"),
    ("sbverify", "sbsigntool"),
    ("cmark-gfm", "cmark-gfm"),
    ("openssl", "openssl"),
    ("tinyproxy", "tinyproxy"),
    ("systemd-analyze", "systemd"),
    ("g++", "g++"),
    ("dockerd", "docker.io"),
    ("curl", "curl"),
    ("faketime", "faketime"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    ("jq", "jq"),
    ("shellcheck", "shellcheck"),
    ("grub-script-check", "grub-common"),
    // Installs the validator of SPDX documents.
    ("virtualenv", "virtualenv"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
];

/// Returns the requirements of a build of these variants, and with `tests` those of the tests.
pub(crate) fn requirements<'a>(
    variants: impl IntoIterator<Item = &'a VariantFile>,
    tests: bool,
) -> Vec<Requirement> {
    let mut all: Vec<_> = table(&BUILD, Purpose::Build).collect();
    for variant in variants {
        all.extend(base_requirements(&variant.base.bootstrap[0], &variant.base.host_packages));
    }
    all.extend(
        protocol::Arch::native()
            .into_iter()
            .flat_map(testbed::host::requirements)
            .map(|need| Requirement::new(&need.name, need.package, Purpose::Testbed)),
    );
    if tests {
        all.extend(table(TESTS, Purpose::Tests));
    }
    all.sort();
    all.dedup();
    all
}

fn table(
    entries: &'static [(&str, &str)],
    purpose: Purpose,
) -> impl Iterator<Item = Requirement> + use<> {
    entries.iter().map(move |(program, package)| Requirement::new(program, package, purpose))
}

/// Returns a requirement for each package of a bootstrap program. All of them count as installed if the
/// program is, because some packages, such as keyrings, contain no program.
fn base_requirements(program: &str, packages: &[String]) -> Vec<Requirement> {
    packages.iter().map(|package| Requirement::new(program, package, Purpose::Build)).collect()
}

impl Requirement {
    fn new(needs: &str, package: &str, purpose: Purpose) -> Self {
        let installed = is_installed(needs);
        Self { needs: needs.into(), package: package.into(), purpose, installed }
    }
}

/// Returns whether there is a file at this absolute path, or a program of this name in `PATH`.
fn is_installed(needs: &str) -> bool {
    if Path::new(needs).is_absolute() {
        return Path::new(needs).is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| {
        let metadata = directory.join(needs).metadata();
        metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// Returns the packages that are missing, sorted.
fn missing_packages(requirements: &[Requirement]) -> Vec<&str> {
    let missing = requirements.iter().filter(|requirement| !requirement.installed);
    let packages: BTreeSet<&str> =
        missing.map(|requirement| requirement.package.as_str()).collect();
    packages.into_iter().collect()
}

/// Returns the arguments of `apt-get` that install packages.
fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["install", "--yes", "--no-install-recommends"], packages].concat()
}

/// Prints the requirements as a table, or as JSON.
pub(crate) fn print(
    requirements: &[Requirement],
    as_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let packages = missing_packages(requirements);
    let command = format!("apt-get {}", install_arguments(&packages).join(" "));
    if as_json {
        let all = json!({
            "requirements": requirements,
            "missingPackages": packages,
            "command": if packages.is_empty() { None } else { Some(&command) },
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    writeln!(out, "{:<44} {:<18} {:<8} installed", "needs", "package", "for")?;
    for Requirement { needs, package, purpose, installed } in requirements {
        let purpose = match purpose {
            Purpose::Build => "build",
            Purpose::Testbed => "testbed",
            Purpose::Tests => "tests",
        };
        let installed = if *installed { "yes" } else { "NO" };
        writeln!(out, "{needs:<44} {package:<18} {purpose:<8} {installed}")?;
    }
    if packages.is_empty() {
        writeln!(out, "\nnothing is missing")?;
    } else {
        writeln!(out, "\nadd --install, or run: {command}")?;
    }
    Ok(())
}

/// Checks that the process runs as root.
pub(crate) fn check_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "building needs root, to bootstrap a distribution and to start sandboxes; run it with sudo"
    );
    Ok(())
}

/// Checks that nothing is missing.
///
/// # Errors
/// Fails with a list of what is missing and the command that installs it.
pub(crate) fn check(requirements: &[Requirement]) -> Result<()> {
    let missing: Vec<String> = requirements
        .iter()
        .filter(|requirement| !requirement.installed)
        .map(|Requirement { needs, package, .. }| format!("    {needs} (package {package})\n"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let command = install_arguments(&missing_packages(requirements)).join(" ");
    bail!("the build host lacks:\n{}  add --setup, or run: apt-get {command}", missing.concat());
}

/// Installs the packages that are missing.
pub(crate) fn install(requirements: &[Requirement]) -> Result<()> {
    let packages = missing_packages(requirements);
    if packages.is_empty() {
        return Ok(());
    }
    message(&format!("setup: installing {}", packages.join(" ")));
    for arguments in [vec!["update", "--quiet"], install_arguments(&packages)] {
        let command = format!("apt-get {}", arguments.join(" "));
        message(&format!("setup: {command}"));
        let status = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            // Standard output is for the result of the command, which `--json` makes machine-readable.
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("starting {command}"))?;
        ensure!(status.success(), "{command} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_bootstrap_program_requires_all_its_packages() {
        let packages = ["tool".to_owned(), "tool-keyring".to_owned()];
        let found = base_requirements("no-such-bootstrap-program", &packages);
        assert_eq!(missing_packages(&found), ["tool", "tool-keyring"]);
        let error = check(&found).unwrap_err().to_string();
        assert!(error.contains("tool-keyring") && error.contains("--setup"), "{error}");
        let found = base_requirements("sh", &packages);
        assert!(missing_packages(&found).is_empty() && check(&found).is_ok());
    }

    #[test]
    fn tests_add_requirements_and_testbed_is_included() {
        let packages = |tests| -> Vec<String> {
            requirements([], tests).into_iter().map(|requirement| requirement.package).collect()
        };
        let (build, tests) = (packages(false), packages(true));
        assert!(build.iter().all(|package| tests.contains(package)));
        assert!(build.iter().any(|package| package == "qemu-system-x86"), "{build:?}");
        assert!(!build.iter().any(|package| package == "shellcheck"), "{build:?}");
        assert!(tests.iter().any(|package| package == "shellcheck"), "{tests:?}");
    }
}
