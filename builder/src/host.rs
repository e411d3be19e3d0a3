//! The programs and files that the build host needs, and the Debian packages that provide them.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use protocol::Arch;
use serde::Serialize;
use serde_json::json;

use crate::emulation;
use crate::progress::message;
use crate::triple;
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
    /// The architecture whose programs the kernel has to run, if this is the requirement.
    #[serde(skip)]
    emulates: Option<Arch>,
}

/// The programs that the builder itself starts, with their packages.
const BUILD: [(&str, &str); 4] =
    [("tar", "tar"), ("setpriv", "util-linux"), ("unshare", "util-linux"), ("cc", "gcc")];

/// The programs that only tests and benchmarks need: independent readers of the formats, other tools for deltas, a
/// proxy, another clock, a container engine, a registry for it, a C++ compiler for fuzzing, and linters.
const TESTS: &[(&str, &str)] = &[
    ("sgdisk", "gdisk"),
    ("fdisk", "fdisk"),
    ("fsck.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mkfs.vfat", "dosfstools"),
    ("bmaptool", "bmap-tools"),
    ("zstd", "zstd"),
    // The tools that the benchmark of deltas compares with.
    ("xdelta3", "xdelta3"),
    ("bsdiff", "bsdiff"),
    ("casync", "casync"),
    ("cpio", "cpio"),
    ("unsquashfs", "squashfs-tools"),
    ("sbverify", "sbsigntool"),
    ("cmark-gfm", "cmark-gfm"),
    ("openssl", "openssl"),
    ("tinyproxy", "tinyproxy"),
    ("systemd-analyze", "systemd"),
    ("g++", "g++"),
    ("dockerd", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("htpasswd", "apache2-utils"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("faketime", "faketime"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    ("systemd-repart", "systemd-repart"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("cryptsetup", "cryptsetup-bin"),
    ("systemd-cryptenroll", "systemd-cryptsetup"),
    // It depends on the library with which systemd-cryptenroll reaches swtpm.
    ("tpm2", "tpm2-tools"),
    ("swtpm", "swtpm"),
    ("wipefs", "util-linux"),
    ("partx", "util-linux"),
    ("jq", "jq"),
    ("shellcheck", "shellcheck"),
    ("grub-script-check", "grub-common"),
    // The container of docs/first-host.md.
    ("busybox", "busybox-static"),
    ("sfdisk", "fdisk"),
    ("python3", "python3"),
    // Installs the validator of SPDX documents.
    ("virtualenv", "virtualenv"),
    ("grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
];

/// The packages whose programs are in the package systemd of Debian 12.
const PARTS_OF_SYSTEMD: [&str; 2] = ["systemd-repart", "systemd-cryptsetup"];

/// Returns the requirements of the sandboxes of these variants.
pub(crate) fn of_sandboxes<'a>(
    variants: impl IntoIterator<Item = &'a VariantFile>,
) -> Vec<Requirement> {
    let mut all: Vec<_> = table(&BUILD, Purpose::Build).collect();
    for variant in variants {
        if let Some(program) = variant.base.bootstrap.first() {
            all.extend(base_requirements(program, &variant.base.host_packages));
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Returns the requirements to build and to boot these variants, and with `tests` those of the tests.
pub(crate) fn requirements<'a>(
    variants: impl IntoIterator<Item = &'a VariantFile>,
    tests: bool,
) -> Vec<Requirement> {
    let mut all: Vec<_> = table(&BUILD, Purpose::Build).collect();
    let mut arches = BTreeSet::new();
    // The tests boot machines of every architecture.
    if tests {
        arches.extend(Arch::ALL);
    }
    for variant in variants {
        arches.insert(variant.arch);
        if let Some(program) = variant.base.bootstrap.first() {
            all.extend(base_requirements(program, &variant.base.host_packages));
        }
        if Arch::native() != Some(variant.arch) {
            let compiler = &variant.compiler;
            all.extend(base_requirements(&compiler.bootstrap[0], &compiler.host_packages));
            all.extend(foreign_requirements(variant.arch));
        }
    }
    for need in arches.into_iter().flat_map(testbed::host::requirements) {
        all.push(Requirement::new(&need.name, need.package, Purpose::Testbed));
    }
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
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    entries
        .iter()
        .map(move |(program, package)| Requirement::new(program, on(&release, package), purpose))
}

/// Returns the name of a package in the distribution that this /etc/os-release describes (os-release(5)).
fn on<'a>(release: &str, package: &'a str) -> &'a str {
    let is_debian_12 = release.lines().any(|line| line == "VERSION_CODENAME=bookworm");
    if is_debian_12 && PARTS_OF_SYSTEMD.contains(&package) { "systemd" } else { package }
}

/// Returns a requirement for each package of a bootstrap program. All of them count as installed if the
/// program is, because some packages, such as keyrings, contain no program.
fn base_requirements(program: &str, packages: &[String]) -> Vec<Requirement> {
    packages.iter().map(|package| Requirement::new(program, package, Purpose::Build)).collect()
}

/// Returns the requirements of a build for another architecture: a C compiler and the C library for the updater,
/// and an emulator for what has to run inside of the root tree.
fn foreign_requirements(arch: Arch) -> Vec<Requirement> {
    let (prefix, (compiler, library)) = (triple::gnu(arch), triple::packages(arch));
    let new = |needs: String, package: &str| Requirement::new(&needs, package, Purpose::Build);
    let mut all = vec![
        new(format!("{prefix}-gcc"), compiler),
        new(format!("/usr/{prefix}/lib/libc.a"), library),
        new(emulation::rule(arch), emulation::PACKAGE),
    ];
    all.push(Requirement {
        installed: emulation::is_ready(arch),
        emulates: Some(arch),
        ..new(emulation::handler(arch), emulation::PACKAGE)
    });
    all
}

impl Requirement {
    fn new(needs: &str, package: &str, purpose: Purpose) -> Self {
        let installed = is_installed(needs);
        Self { needs: needs.into(), package: package.into(), purpose, installed, emulates: None }
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
    // What is missing for emulation is not a package, but its registration with the kernel.
    let missing = requirements
        .iter()
        .filter(|requirement| !requirement.installed && requirement.emulates.is_none());
    let packages: BTreeSet<&str> =
        missing.map(|requirement| requirement.package.as_str()).collect();
    packages.into_iter().collect()
}

/// Returns the arguments of `apt-get` that install packages.
fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["install", "--yes", "--no-install-recommends"], packages].concat()
}

/// Returns the architectures whose programs the kernel does not run yet.
fn not_emulated(requirements: &[Requirement]) -> BTreeSet<Arch> {
    let missing = requirements.iter().filter(|requirement| !requirement.installed);
    missing.filter_map(|requirement| requirement.emulates).collect()
}

/// Returns the shell command that installs what is missing, or `None` if nothing is.
fn command(requirements: &[Requirement]) -> Option<String> {
    let packages = missing_packages(requirements);
    let install = format!("apt-get {}", install_arguments(&packages).join(" "));
    let install = (!packages.is_empty()).then_some(install);
    let emulation = not_emulated(requirements).into_iter().filter_map(emulation::problem);
    let all: Vec<String> =
        install.into_iter().chain(emulation.map(|(_, commands)| commands)).collect();
    (!all.is_empty()).then(|| all.join(" && "))
}

/// Prints the requirements as a table, or as JSON.
pub(crate) fn print(
    requirements: &[Requirement],
    as_json: bool,
    out: &mut impl Write,
) -> Result<()> {
    let command = command(requirements);
    if as_json {
        let all = json!({
            "requirements": requirements,
            "missingPackages": missing_packages(requirements),
            "command": command,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    writeln!(out, "{:<44} {:<22} {:<8} installed", "needs", "package", "for")?;
    for Requirement { needs, package, purpose, installed, .. } in requirements {
        let purpose = match purpose {
            Purpose::Build => "build",
            Purpose::Testbed => "testbed",
            Purpose::Tests => "tests",
        };
        let installed = if *installed { "yes" } else { "NO" };
        writeln!(out, "{needs:<44} {package:<22} {purpose:<8} {installed}")?;
    }
    match command {
        None => writeln!(out, "\nnothing is missing")?,
        Some(command) => writeln!(out, "\nadd --install, or run: {command}")?,
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
        .map(|Requirement { needs, package, emulates, .. }| {
            match emulates.and_then(emulation::problem) {
                Some((what, _)) => format!("    {needs} ({what})\n"),
                None => format!("    {needs} (package {package})\n"),
            }
        })
        .collect();
    match command(requirements) {
        None => Ok(()),
        Some(command) => {
            bail!("the build host lacks:\n{}  add --setup, or run: {command}", missing.concat())
        }
    }
}

/// Installs the packages that are missing, and makes the kernel run programs for other architectures.
pub(crate) fn install(requirements: &[Requirement]) -> Result<()> {
    install_packages(&missing_packages(requirements))?;
    for arch in not_emulated(requirements) {
        message(&format!("setup: registering the emulator for {arch}"));
        emulation::enable(arch)?;
    }
    Ok(())
}

fn install_packages(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    message(&format!("setup: installing {}", packages.join(" ")));
    for arguments in [vec!["update", "--quiet"], install_arguments(packages)] {
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
    use crate::variant::Variants;

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
    fn debian_13_has_packages_for_parts_of_systemd() {
        for (codename, package) in [("bookworm", "systemd"), ("trixie", "systemd-cryptsetup")] {
            let release = format!("ID=debian\nVERSION_CODENAME={codename}\n");
            assert_eq!(on(&release, "systemd-cryptsetup"), package);
            assert_eq!(on(&release, "jq"), "jq");
        }
    }

    #[test]
    fn a_variant_without_a_bootstrap_program_can_be_checked() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
        let variants = Variants::new(directory, None).unwrap();
        let file = VariantFile::load(&variants, &"ubu".parse().unwrap(), Arch::Amd64).unwrap();
        assert!(file.base.bootstrap.is_empty());
        assert!(!of_sandboxes([&file]).is_empty());
    }

    #[test]
    fn another_architecture_requires_a_compiler_and_an_emulator() {
        let foreign = if Arch::native() == Some(Arch::Arm64) { Arch::Amd64 } else { Arch::Arm64 };
        let mut found = foreign_requirements(foreign);
        for requirement in &mut found {
            requirement.installed = false;
        }
        let (compiler, library) = triple::packages(foreign);
        let mut packages = [compiler, library, "qemu-user-static"];
        packages.sort_unstable();
        assert_eq!(missing_packages(&found), packages);
        assert_eq!(not_emulated(&found), BTreeSet::from([foreign]));
        // A package alone does not register the emulator.
        for requirement in &mut found {
            requirement.installed = requirement.emulates.is_none();
        }
        assert!(missing_packages(&found).is_empty());
        assert_eq!(not_emulated(&found), BTreeSet::from([foreign]));
    }

    /// Returns the packages that this variant needs for these architectures.
    fn packages(arches: &[Arch], tests: bool) -> BTreeSet<String> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
        let variants = Variants::new(directory, None).unwrap();
        let load = |arch: &Arch| VariantFile::load(&variants, &"deb".parse().unwrap(), *arch);
        let files: Vec<VariantFile> = arches.iter().map(|arch| load(arch).unwrap()).collect();
        let all = requirements(&files, tests).into_iter();
        all.map(|requirement| requirement.package).collect()
    }

    #[test]
    fn testbed_boots_the_architectures_of_the_variants() {
        let machines = ["qemu-system-x86", "ovmf", "qemu-system-arm", "qemu-efi-aarch64"];
        let of = |arches: &[Arch], tests| {
            let packages = packages(arches, tests);
            machines.map(|package| packages.contains(package))
        };
        assert_eq!(of(&[Arch::Amd64], false), [true, true, false, false]);
        assert_eq!(of(&[Arch::Arm64], false), [false, false, true, true]);
        assert_eq!(of(&[Arch::Amd64, Arch::Arm64], false), [true; 4]);
        for arch in Arch::ALL {
            assert_eq!(of(&[arch], true), [true; 4], "the tests boot both architectures");
        }
    }

    #[test]
    fn tests_add_requirements_and_testbed_is_included() {
        let arch = Arch::native().unwrap_or(Arch::Amd64);
        let (build, tests) = (packages(&[arch], false), packages(&[arch], true));
        assert!(build.is_subset(&tests));
        assert!(build.contains("swtpm"), "{build:?}");
        assert!(!build.contains("shellcheck"), "{build:?}");
        assert!(tests.contains("shellcheck"), "{tests:?}");
    }
}
