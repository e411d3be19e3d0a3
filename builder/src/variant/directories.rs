//! The directories with variants and drop-ins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use protocol::Variant;

use super::nearest::did_you_mean;

/// The extension of variants and drop-ins.
const EXTENSION: &str = "jsonnet";
/// The suffix of a directory with the drop-ins of a variant.
const DROP_INS: &str = ".d";

/// The directories with variants and drop-ins: that of this repository, and one of the publisher's own.
#[derive(Debug, Clone)]
pub(crate) struct Variants {
    built_in: PathBuf,
    own: Option<PathBuf>,
}

impl Variants {
    /// Returns the directories, of which `own` has to exist.
    pub(crate) fn new(built_in: PathBuf, own: Option<&Path>) -> Result<Self> {
        if let Some(own) = own {
            ensure!(own.is_dir(), "--variants names {}, which is no directory", own.display());
        }
        let same = own.is_some_and(|own| {
            let real = own.canonicalize().ok();
            real.is_some() && real == built_in.canonicalize().ok()
        });
        Ok(Self { built_in, own: own.filter(|_| !same).map(Path::to_owned) })
    }

    /// Returns the directory of this repository.
    pub(crate) fn built_in(&self) -> &Path {
        &self.built_in
    }

    /// Returns the directories in which variants are looked for, in this order. Imports are looked for in
    /// the same order, after the directory of the file that imports.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.own.as_deref().into_iter().chain([self.built_in.as_path()])
    }

    /// Returns the names of all variants, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for directory in self.directories() {
            let suffix = format!(".{EXTENSION}");
            let names_here = entries(directory)?.into_iter();
            names.extend(names_here.filter_map(|name| {
                name.strip_suffix(&suffix).filter(|name| !name.starts_with('.')).map(str::to_owned)
            }));
        }
        Ok(names.into_iter().collect())
    }

    /// Returns the file of a variant.
    pub(super) fn file(&self, name: &Variant) -> Result<PathBuf> {
        let mut files =
            self.directories().map(|directory| directory.join(format!("{name}.{EXTENSION}")));
        if let Some(file) = files.find(|file| file.is_file()) {
            return Ok(file);
        }
        let known = self.names()?;
        Err(unknown("unknown variant", name.as_str(), &known))
    }

    /// Returns the drop-ins of a variant in the order in which they are applied: those of this repository
    /// first, and those of one directory by name.
    ///
    /// # Errors
    /// Fails if a directory of drop-ins belongs to no variant, because its name may be misspelled.
    pub(super) fn drop_ins(&self, variant: &Variant) -> Result<Vec<PathBuf>> {
        let known = self.names()?;
        let mut files = Vec::new();
        for directory in [Some(&self.built_in), self.own.as_ref()].into_iter().flatten() {
            for name in entries(directory)? {
                let path = directory.join(&name);
                let Some(owner) = name.strip_suffix(DROP_INS).filter(|_| path.is_dir()) else {
                    continue;
                };
                if !known.iter().any(|name| name == owner) {
                    let what = format!("{} has drop-ins of the unknown variant", path.display());
                    return Err(unknown(&what, owner, &known));
                }
                if owner == variant.as_str() {
                    files.extend(drop_ins_in(&path)?);
                }
            }
        }
        Ok(files)
    }
}

fn unknown(what: &str, name: &str, known: &[String]) -> anyhow::Error {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let hint = did_you_mean(name, &known);
    anyhow!("{what} {name:?}{hint}; the known variants are: {}", known.join(", "))
}

/// Returns the drop-ins in a directory, by name. Other files are for their "source".
fn drop_ins_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in entries(directory)? {
        let path = directory.join(&name);
        if name.starts_with('.') || path.extension().is_none_or(|extension| extension != EXTENSION)
        {
            continue;
        }
        if !path.is_file() {
            bail!("{} is not a regular file, expected a drop-in", path.display());
        }
        files.push(path);
    }
    Ok(files)
}

/// Returns the names of the entries of a directory, sorted. Names that are not UTF-8 name no variant.
fn entries(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("reading {}", directory.display());
    let mut names = Vec::new();
    for entry in directory.read_dir().with_context(failed)? {
        names.extend(entry.with_context(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
