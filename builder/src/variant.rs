//! A variant: a Pattern in Jsonnet that says how a distribution becomes EtchaOS.

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
pub const PARTS: [&str; 5] = ["init", "bootstrap", "refine", "package", "esp"];

/// A rendered variant: a Pattern whose `build` list has a group for each of [`PARTS`], and what the
/// builder must know besides.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariantFile {
    /// The name; the file's name too.
    pub variant: Variant,
    /// For people: `Debian 13 (trixie)`.
    pub distribution: String,
    /// What it can be built for.
    pub arches: Vec<Arch>,
    /// The directory below `EFI` that its signed GRUB looks into.
    pub esp_vendor: String,
    /// Where the container comes from.
    pub container: Container,
    /// Units to enable, disable and mask.
    pub units: Units,
    /// Pinned programs that no package has.
    #[serde(default)]
    pub binaries: Vec<Binary>,
    /// The Pattern.
    #[serde(flatten)]
    pub pattern: Pattern,
    /// All of it as JSON, for the digest of the recipe.
    #[serde(skip)]
    pub rendered: String,
}

/// Where the container comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// The distribution's official image.
    pub image: String,
    /// The program, and its arguments, that bootstraps a base where no registry answers. The path
    /// of the tar file to write is added, and the mirror if one is named.
    pub bootstrap: Vec<String>,
    /// The Debian packages of the build host that have this program.
    pub host_packages: Vec<String>,
}

/// Units by what happens to them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Units {
    /// To enable.
    pub enable: Vec<String>,
    /// To disable.
    pub disable: Vec<String>,
    /// To mask.
    pub mask: Vec<String>,
}

/// A program that is fetched, checked and installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// Its name, for messages.
    pub name: String,
    /// Where it is: `https://…` or `http://…`.
    pub url: String,
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Where it goes in the image: below `/usr`.
    pub path: String,
}

impl Binary {
    fn validate(&self) -> Result<()> {
        let name = &self.name;
        let inside = self.path.strip_prefix("/usr/");
        ensure!(
            inside.is_some_and(|path| path.split('/').all(is_file_name)),
            "the binary {name:?} goes to {:?}, expected a plain path below /usr",
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
    /// Renders `<directory>/<name>.jsonnet` for an architecture. What is wrong in the Jsonnet is shown
    /// on standard error with its place.
    pub fn load(directory: &Path, name: &Variant, arch: Arch) -> Result<Self> {
        let path = directory.join(format!("{name}.jsonnet"));
        if !path.is_file() {
            let known = known(directory)?.join(", ");
            bail!("unknown variant {:?}; there are: {known}", name.as_str());
        }
        let rendered = render(&path, arch)?;
        let mut variant: Self = serde_json::from_str(&rendered).with_context(|| {
            format!("{} renders to something that is no variant", path.display())
        })?;
        variant.rendered = rendered;
        variant.validate(name, arch).with_context(|| format!("in {}", path.display()))?;
        Ok(variant)
    }

    /// The Commands of one part of the build.
    pub fn part(&self, part: &str) -> &[Entry] {
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
            "it says it is the variant {:?}, expected {:?}",
            self.variant.as_str(),
            name.as_str()
        );
        if !self.arches.contains(&arch) {
            let can: Vec<String> = self.arches.iter().map(ToString::to_string).collect();
            bail!("the variant {name} is not built for {arch}, only for {}", can.join(", "));
        }
        for part in PARTS {
            ensure!(self.group(part).is_some(), "its build list has no group {part:?}");
        }
        ensure!(
            is_file_name(&self.esp_vendor),
            "its espVendor is {:?}, expected a directory's name",
            self.esp_vendor
        );
        ensure!(!self.container.bootstrap.is_empty(), "container.bootstrap names no program");
        self.binaries.iter().try_for_each(Binary::validate)
    }
}

/// The names of all variants in a directory.
pub fn known(directory: &Path) -> Result<Vec<String>> {
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
    let failed = || format!("{} cannot be rendered; the reason stands above", path.display());
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
            name: "rot".into(),
            url: "https://host.example/rot".into(),
            sha256: "ab".repeat(32),
            path: path.into(),
        }
    }

    #[test]
    fn a_binary_goes_below_usr_and_nowhere_else() {
        assert!(binary("/usr/bin/rot").validate().is_ok());
        for path in ["/etc/rot", "usr/bin/rot", "/usr/../etc/rot", "/usr/bin/", "/usr//rot"] {
            assert!(binary(path).validate().is_err(), "{path}");
        }
    }

    #[test]
    fn a_binary_is_pinned() {
        let good = binary("/usr/bin/rot");
        assert!(Binary { sha256: "AB".repeat(32), ..good.clone() }.validate().is_err());
        assert!(Binary { url: "file:///etc/passwd".into(), ..good }.validate().is_err());
    }
}
