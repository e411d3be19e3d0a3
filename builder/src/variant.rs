//! Variants: Patterns in Jsonnet that describe how to turn a distribution into EtchaOS.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protocol::pattern::{Command, Entry, Pattern};
use protocol::release::is_file_name;
use protocol::{Arch, Variant};
use rsjsonnet_front::Session;
use rsjsonnet_lang::arena::Arena;
use rsjsonnet_lang::program::Value;
use serde::Deserialize;

/// The parts of a build that a variant's `build` list must have, in this order.
pub(crate) const PARTS: [&str; 6] = ["init", "bootstrap", "refine", "package", "squashfs", "esp"];

/// A rendered variant: a Pattern whose `build` list has a group for each of [`PARTS`], and settings
/// of the builder.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VariantFile {
    /// The name, which is also the name of the file.
    pub variant: Variant,
    /// The name of the distribution, for display: `Debian 13 (trixie)`.
    pub distribution: String,
    /// The architectures that it can be built for.
    pub arches: Vec<Arch>,
    /// The architecture that it was rendered for.
    pub arch: Arch,
    /// The directory below `EFI` in which the signed GRUB looks for its configuration.
    pub esp_vendor: String,
    /// The source of the sandbox.
    #[serde(rename = "container")]
    pub base: BaseSource,
    /// The source of the sandbox that compiles the updater for another architecture.
    pub compiler: CompilerSource,
    /// The systemd units to enable, disable and mask.
    pub units: Units,
    /// The names that the SBOM gives to packages of the distribution.
    pub sbom: Naming,
    /// Pinned programs that are in no package.
    #[serde(default)]
    pub binaries: Vec<Binary>,
    /// The Pattern itself.
    #[serde(flatten)]
    pub pattern: Pattern,
    /// The whole variant as JSON, for the digest of the recipe.
    #[serde(skip)]
    pub rendered: String,
}

/// The source of the sandbox in which a variant is built.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BaseSource {
    /// The distribution's official container image.
    pub image: String,
    /// The command that bootstraps a base if the image is not used. The builder adds the path of the
    /// tar file to write, and the mirror if one was given.
    pub bootstrap: Vec<String>,
    /// The Debian packages that the command needs on the build host.
    pub host_packages: Vec<String>,
}

/// The source of a sandbox with Rust and a C compiler for another architecture than that of the build host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CompilerSource {
    /// The command that bootstraps it. The builder adds the path to write, and the sources if a mirror was
    /// given.
    pub bootstrap: Vec<String>,
    /// The sources of the packages at the operator's mirror, with `{MIRROR}` for its URL; empty if it has
    /// another distribution.
    pub sources: Vec<String>,
    /// The sources of security updates there.
    pub security_sources: Vec<String>,
    /// The Debian packages that the command needs on the build host.
    pub host_packages: Vec<String>,
}

/// The parts of the package URLs (purls) of a distribution, and its name.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Naming {
    /// The type of the purls, such as `deb`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Their namespace, such as `debian`.
    pub namespace: String,
    /// Their qualifier `distro`, such as `trixie`, if the distribution has versions.
    pub distro: Option<String>,
    /// The qualifier `arch` of source packages, if source packages have one.
    pub source_arch: Option<String>,
    /// The organization that supplies the packages.
    pub supplier: String,
}

/// The systemd units whose state changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Units {
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to disable.
    pub disable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
}

/// A program that is downloaded, verified and installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Binary {
    /// The name, for messages.
    pub name: String,
    /// The URL, with the scheme `https` or `http`.
    pub url: String,
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// The path in the image, below `/usr`.
    pub path: String,
}

impl Binary {
    fn validate(&self) -> Result<()> {
        let name = &self.name;
        let inside = self.path.strip_prefix("/usr/");
        ensure!(
            inside.is_some_and(|path| path.split('/').all(is_file_name)),
            "the binary {name:?} has the path {:?}, expected a normalized path below /usr",
            self.path
        );
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        ensure!(
            self.sha256.len() == 64 && self.sha256.bytes().all(hex),
            "the binary {name:?} has the sha256 {:?}, expected 64 lower-case hexadecimal digits",
            self.sha256
        );
        ensure!(
            protocol::url::origin(&self.url).is_some(),
            "the binary {name:?} has the url {:?}, expected http(s) without credentials",
            self.url
        );
        Ok(())
    }
}

impl VariantFile {
    /// Renders `<directory>/<name>.jsonnet` for an architecture and validates the result.
    ///
    /// # Errors
    /// Fails if the file does not exist, cannot be rendered or is not valid. Errors in Jsonnet are also
    /// printed to standard error, with file and line.
    pub(crate) fn load(directory: &Path, name: &Variant, arch: Arch) -> Result<Self> {
        let path = directory.join(format!("{name}.jsonnet"));
        if !path.is_file() {
            let known = known(directory)?.join(", ");
            bail!("unknown variant {:?}; the known variants are: {known}", name.as_str());
        }
        let rendered = render(&path, arch)?;
        let mut variant: Self = serde_json::from_str(&rendered)
            .with_context(|| format!("{} does not render to a valid variant", path.display()))?;
        variant.rendered = rendered;
        variant.validate(name, arch).with_context(|| format!("in {}", path.display()))?;
        Ok(variant)
    }

    /// Returns the Commands of one part of the build.
    pub(crate) fn part(&self, part: &str) -> &[Entry] {
        self.group(part).map_or(&[], |group| &group.commands)
    }

    fn group(&self, part: &str) -> Option<&Command> {
        self.pattern.build.iter().find_map(|entry| match entry {
            Entry::Command(command) if command.id == part => Some(&**command),
            _ => None,
        })
    }

    fn validate(&self, name: &Variant, arch: Arch) -> Result<()> {
        ensure!(
            self.variant == *name,
            "the variant's name is {:?}, expected {:?} as in the file name",
            self.variant.as_str(),
            name.as_str()
        );
        if !self.arches.contains(&arch) {
            let supported: Vec<String> = self.arches.iter().map(ToString::to_string).collect();
            bail!("the variant {name} is not built for {arch}, only for {}", supported.join(", "));
        }
        ensure!(self.arch == arch, "arch is \"{}\", expected \"{arch}\"", self.arch);
        for part in PARTS {
            ensure!(self.group(part).is_some(), "the build list has no group {part:?}");
        }
        ensure!(
            is_file_name(&self.esp_vendor),
            "espVendor is {:?}, expected the name of a directory",
            self.esp_vendor
        );
        ensure!(!self.base.bootstrap.is_empty(), "container.bootstrap names no program");
        ensure!(!self.compiler.bootstrap.is_empty(), "compiler.bootstrap names no program");
        self.binaries.iter().try_for_each(Binary::validate)
    }
}

/// Returns the names of all variants in a directory, sorted.
pub(crate) fn known(directory: &Path) -> Result<Vec<String>> {
    let entries =
        directory.read_dir().with_context(|| format!("reading {}", directory.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".jsonnet").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn render(path: &Path, arch: Arch) -> Result<String> {
    let failed = || format!("rendering {} failed; the error is printed above", path.display());
    let arena = Arena::new();
    let mut session = Session::new(&arena);
    let program = session.program_mut();
    let name = program.intern_str("arch");
    let thunk = program.value_to_thunk(&Value::string(&arch.to_string()));
    program.add_ext_var(name, &thunk);
    let thunk = session.load_real_file(path).with_context(failed)?;
    let value = session.eval_value(&thunk).with_context(failed)?;
    session.manifest_json(&value, true).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(path: &str) -> Binary {
        Binary {
            name: "tool".into(),
            url: "https://host.example/tool".into(),
            sha256: "ab".repeat(32),
            path: path.into(),
        }
    }

    #[test]
    fn rejects_binary_paths_outside_usr() {
        assert!(binary("/usr/bin/tool").validate().is_ok());
        for path in ["/etc/tool", "usr/bin/tool", "/usr/../etc/tool", "/usr/bin/", "/usr//tool"] {
            assert!(binary(path).validate().is_err(), "{path}");
        }
    }

    #[test]
    fn rejects_binaries_without_digest_or_http_url() {
        let good = binary("/usr/bin/tool");
        assert!(Binary { sha256: "AB".repeat(32), ..good.clone() }.validate().is_err());
        assert!(Binary { url: "file:///etc/passwd".into(), ..good }.validate().is_err());
    }
}
