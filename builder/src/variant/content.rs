//! What a variant or a drop-in puts into an image: packages, units, files, programs and arguments of the
//! kernel; and whether there is an image for other disks.
//!
//! All texts are checked here, because they become words of shell scripts, paths in the image and words of
//! `grub.cfg`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::release::is_file_name;

use super::binary::Binary;
use super::fields::{Field, Object};
use super::kernel_arguments;
use crate::image::digest;

/// The directories of the image that can get files. The others are empty, or made at boot.
const DIRECTORIES: [&str; 3] = ["/usr/", "/etc/", "/var/lib/"];
/// The directory of EtchaOS itself, with the keys that hosts trust.
const RESERVED: &str = "/usr/lib/etchaos/";
/// The maximum length of a path in the image, in bytes.
const PATH_MAX: usize = 512;
/// The types of systemd's units, systemd.unit(5).
const UNIT_TYPES: [&str; 11] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
];
/// The maximum length of the name of a unit in bytes, systemd.unit(5).
const UNIT_NAME_MAX: usize = 255;
/// The maximum length of the name of a package, in bytes.
const PACKAGE_NAME_MAX: usize = 128;

/// The content that is added to the distribution.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    /// The packages of the distribution.
    pub packages: Vec<String>,
    /// The systemd units to enable, disable and mask.
    pub units: Units,
    /// Files with their own content.
    pub files: Vec<AddedFile>,
    /// Arguments of the kernel.
    pub kernel_arguments: Vec<String>,
    /// Pinned programs that are in no package.
    pub binaries: Vec<Binary>,
    /// Whether there is also a disk image for disks with sectors of 4096 bytes.
    pub disk4k: bool,
}

/// The systemd units whose state changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Units {
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to disable.
    pub disable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
}

/// A file in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddedFile {
    /// The absolute path in the image.
    pub path: String,
    /// The permission bits.
    pub mode: u32,
    /// The content.
    pub bytes: Bytes,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// A text.
    Text(String),
    /// The bytes with this SHA-256. A drop-in also says in which file they are.
    Digest { sha256: String, source: Option<PathBuf> },
}

impl Content {
    /// The names of the fields.
    pub(super) const FIELDS: [&'static str; 6] =
        ["packages", "units", "files", "kernelArguments", "binaries", "disk4k"];

    /// Reads the content from an object that may have other fields as well. `sources` is the directory of
    /// the files that a drop-in copies; absent in a rendered variant, which has their digests.
    pub(super) fn read(object: &Object<'_>, sources: Option<&Path>) -> Result<Self> {
        let packages = object.list("packages")?;
        let files = object.list("files")?;
        let binaries = object.list("binaries")?;
        let content = Self {
            packages: packages.iter().map(package).collect::<Result<_>>()?,
            units: object.get("units").map_or(Ok(Units::default()), |units| Units::read(&units))?,
            files: files
                .iter()
                .map(|file| AddedFile::read(file, sources))
                .collect::<Result<_>>()?,
            kernel_arguments: kernel_arguments::read(&object.list("kernelArguments")?)?,
            binaries: binaries.iter().map(Binary::read).collect::<Result<_>>()?,
            disk4k: object.get("disk4k").map_or(Ok(false), |field| field.boolean())?,
        };
        content.check_paths(&[files, binaries].concat())?;
        Ok(content)
    }

    /// Returns the paths in the image.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(|file| file.path.as_str());
        files.chain(self.binaries.iter().map(|binary| binary.path.as_str()))
    }

    /// Checks that each path has one content. `fields` are the files and the programs.
    fn check_paths(&self, fields: &[Field<'_>]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for (path, field) in self.paths().zip(fields) {
            if !seen.insert(path) {
                return Err(field.error(&format!("but {path} has another content already")));
            }
        }
        Ok(())
    }
}

impl Units {
    const LISTS: [&'static str; 3] = ["enable", "disable", "mask"];

    fn read(field: &Field<'_>) -> Result<Self> {
        let object = field.object(&Self::LISTS)?;
        let mut seen = BTreeSet::new();
        let mut list = |name| -> Result<Vec<String>> {
            let units = object.list(name)?;
            let units = units.iter().map(|field| {
                let unit = unit(field)?;
                ensure!(seen.insert(unit.clone()), field.error("which is listed twice"));
                Ok(unit)
            });
            units.collect()
        };
        Ok(Self { enable: list("enable")?, disable: list("disable")?, mask: list("mask")? })
    }
}

impl AddedFile {
    fn read(field: &Field<'_>, sources: Option<&Path>) -> Result<Self> {
        // What a drop-in names in "source" is rendered as "sha256".
        let bytes = if sources.is_some() { "source" } else { "sha256" };
        let object = field.object(&["path", "mode", "content", bytes])?;
        let path = object.require("path")?.text_that(
            "a normalized path below /usr, /etc or /var/lib, but not below /usr/lib/etchaos",
            is_path,
        )?;
        let mode = object.get("mode").map_or(Ok(0o644), |mode| read_mode(&mode))?;
        let bytes = match (object.get("content"), object.get(bytes)) {
            (Some(content), None) => Bytes::Text(content.text()?.to_owned()),
            (None, Some(source)) => match sources {
                Some(directory) => Self::source(&source, directory)?,
                None => Bytes::Digest { sha256: source.text()?.to_owned(), source: None },
            },
            _ => return Err(field.error("expected either \"content\" or \"source\"")),
        };
        Ok(Self { path: path.to_owned(), mode, bytes })
    }

    /// Reads the name of a file in the directory of a drop-in.
    fn source(field: &Field<'_>, directory: &Path) -> Result<Bytes> {
        let name = field.text_that("a path below the directory of the drop-in", |name| {
            name.split('/').all(is_file_name)
        })?;
        let source = directory.join(name);
        let inside = || -> Result<bool> {
            let real = source.canonicalize()?;
            Ok(real.starts_with(directory.canonicalize()?) && real.is_file())
        };
        let is_inside = inside().with_context(|| format!("{}", field.error("reading the file")))?;
        ensure!(is_inside, field.error("which is no regular file in the directory of the drop-in"));
        let (_, sha256) = digest::of_file(&source)?;
        Ok(Bytes::Digest { sha256, source: Some(source) })
    }
}

/// Reads permission bits. They are a text, since a number in Jsonnet is decimal.
fn read_mode(field: &Field<'_>) -> Result<u32> {
    let expected = "an octal mode such as \"644\" or \"0755\", with which the owner can read the file and \
                    no one else can write it";
    let text = field.text_that(expected, |text| {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
        let mode = u32::from_str_radix(digits, 8).unwrap_or_default();
        digits.len() == 3 && mode & 0o400 != 0 && mode & 0o022 == 0
    })?;
    Ok(u32::from_str_radix(text, 8)?)
}

/// Reads the name of a package. Names of all distributions are allowed, but no versions or options.
fn package(field: &Field<'_>) -> Result<String> {
    let name =
        field.text_that("the name of a package: letters, digits, and any of . _ + -", |name| {
            let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
            first && name.len() <= PACKAGE_NAME_MAX && name.bytes().all(is_allowed)
        })?;
    Ok(name.to_owned())
}

/// Reads the name of a unit.
fn unit(field: &Field<'_>) -> Result<String> {
    let expected = "the name of a systemd unit with its type, such as \"tool.service\"";
    let name = field.text_that(expected, |name| {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let kind = name.rsplit_once('.').map(|(_, kind)| kind);
        first
            && name.len() <= UNIT_NAME_MAX
            && name.bytes().all(is_allowed)
            && kind.is_some_and(|kind| UNIT_TYPES.contains(&kind))
    })?;
    Ok(name.to_owned())
}

/// Returns whether a variant can put a file at a path of the image.
fn is_path(path: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~+@:-".contains(&b);
    let is_component = |component: &str| {
        !component.is_empty() && !component.starts_with('.') && component.bytes().all(is_allowed)
    };
    path.len() <= PATH_MAX
        && DIRECTORIES.iter().any(|directory| path.starts_with(directory))
        && !path.starts_with(RESERVED)
        && path.split('/').skip(1).all(is_component)
}

#[cfg(test)]
mod tests;
