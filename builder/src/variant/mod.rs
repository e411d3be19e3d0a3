//! Variants: Patterns in Jsonnet that describe how to turn a distribution into EtchaOS.

mod binary;
mod content;
mod directories;
mod drop_in;
mod fields;
mod kernel_arguments;
mod line;
mod nearest;
mod proof;
mod render;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use protocol::pattern::{Command, Entry, Pattern};
use protocol::release::is_file_name;
use protocol::{Arch, Target, Variant};
use serde::Deserialize;
use serde_json::Value;

pub(crate) use binary::Binary;
#[cfg(test)]
use content::Units;
pub(crate) use content::{AddedFile, Bytes, Content};
pub(crate) use directories::Variants;
pub(crate) use nearest::did_you_mean;
pub(crate) use proof::{Proof, Proofs};

use drop_in::DropIns;
use fields::Field;
use render::render;

use crate::oci::Reference;

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
    /// Whether UEFI Secure Boot accepts the boot loader with the keys of Microsoft.
    pub secure_boot: bool,
    /// The source of the sandbox.
    #[serde(rename = "container")]
    pub base: BaseSource,
    /// The source of the sandbox that compiles the updater for another architecture.
    pub compiler: CompilerSource,
    /// The names that the SBOM gives to packages of the distribution.
    pub sbom: Naming,
    /// The Commands of `builder check`, if the variant has them.
    pub check: Option<CheckSource>,
    /// The Pattern itself.
    #[serde(skip)]
    pub pattern: Pattern,
    /// The content that is added to the distribution, by the variant and by its drop-ins.
    #[serde(skip)]
    pub content: Content,
    /// The file of the variant, and the files of its drop-ins.
    #[serde(skip)]
    pub sources: Vec<PathBuf>,
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
    /// The command that bootstraps a base if the image is not used; empty if the image is always used. The
    /// builder adds the path of the directory or the tar file (`NAME.tar`) to write, and the mirror if one was
    /// given.
    #[serde(default)]
    pub bootstrap: Vec<String>,
    /// The Debian packages that the command needs on the build host.
    #[serde(default)]
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

/// The Commands that resolve packages without installing them. They run after the part `init`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CheckSource {
    /// The keys that packages or indexes are verified with, for display.
    pub keys: Vec<String>,
    /// Sets the run variable `missing`: empty, or a line with the names that the sources of the distribution do
    /// not have, and then all names that they have.
    pub names: Entry,
    /// Adds the packages that the bootstrap would install to the manifest.
    pub resolve: Entry,
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

impl BaseSource {
    /// Returns the source that is this image, whatever the variant names.
    pub(crate) fn of_image(image: &Reference) -> Self {
        Self { image: image.to_string(), bootstrap: Vec::new(), host_packages: Vec::new() }
    }
}

impl VariantFile {
    /// Renders a variant with its drop-ins for an architecture, and validates the result.
    ///
    /// # Errors
    /// Fails if the variant does not exist, cannot be rendered, is not valid, or is not built for the
    /// architecture. Errors in Jsonnet are also printed to standard error, with file and line.
    pub(crate) fn load(variants: &Variants, name: &Variant, arch: Arch) -> Result<Self> {
        let variant = Self::load_any(variants, name, arch)?;
        if !variant.arches.contains(&arch) {
            let supported: Vec<String> = variant.arches.iter().map(ToString::to_string).collect();
            bail!("the variant {name} is not built for {arch}, only for {}", supported.join(", "));
        }
        Ok(variant)
    }

    /// Loads the variants of several targets.
    ///
    /// # Errors
    /// Fails with all targets that cannot be loaded, and the reason for each.
    pub(crate) fn load_all(variants: &Variants, targets: &[Target]) -> Result<Vec<Self>> {
        if let [Target { variant, arch }] = targets {
            return Ok(vec![Self::load(variants, variant, *arch)?]);
        }
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for target in targets {
            match Self::load(variants, &target.variant, target.arch) {
                Ok(file) => files.push(file),
                Err(error) => problems.push(format!("\n  {target}: {error:#}")),
            }
        }
        ensure!(problems.is_empty(), "these targets cannot be built:{}", problems.concat());
        Ok(files)
    }

    /// Renders and validates a variant, also for an architecture that it is not built for.
    pub(crate) fn load_any(variants: &Variants, name: &Variant, arch: Arch) -> Result<Self> {
        let path = variants.file(name)?;
        let file = path.display().to_string();
        let drop_ins = DropIns::load(variants, name, arch)?;
        let rendered = render(variants, &path, arch, Some(&drop_ins.to_json()))?;
        let invalid = || format!("{file} does not render to a valid variant");
        let value: Value = serde_json::from_str(&rendered).with_context(invalid)?;
        let mut variant: Self = serde_json::from_str(&rendered).with_context(invalid)?;
        let object = value.as_object().with_context(invalid)?;
        variant.pattern = Pattern::from_fields_of(object).with_context(invalid)?;
        variant.validate(name, arch).with_context(|| format!("in {file}"))?;
        variant.content = Content::read(&Field::root(&file, &value).any_object()?, None)?;
        drop_ins.apply(&mut variant.content, &file)?;
        variant.sources = [vec![path], drop_ins.into_paths()].concat();
        variant.rendered = rendered;
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
        ensure!(self.arch == arch, "arch is \"{}\", expected \"{arch}\"", self.arch);
        for part in PARTS {
            ensure!(self.group(part).is_some(), "the build list has no group {part:?}");
        }
        ensure!(
            is_file_name(&self.esp_vendor),
            "espVendor is {:?}, expected the name of a directory",
            self.esp_vendor
        );
        self.base.image.parse::<Reference>().context("container.image is not valid")?;
        ensure!(
            !self.base.bootstrap.is_empty() || self.base.host_packages.is_empty(),
            "container.hostPackages names packages for a bootstrap program, but container.bootstrap names none"
        );
        ensure!(!self.compiler.bootstrap.is_empty(), "compiler.bootstrap names no program");
        Ok(())
    }
}
