//! Loads the manifest of a release, and its list of files.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protocol::release::{Document, document};
use protocol::{KeyRing, Manifest, Release, Verified, digest};

use crate::contents::{Contents, DOCUMENT_MAX};
use crate::destination::{Location, locate};
use crate::figures::Figures;
use crate::published;

/// The directory of earlier manifests, whose URLs are relative to the directory above that of the target.
const HISTORY: &str = "history";

/// A release and its list of files.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The release.
    pub release: Release,
    /// The list of files; absent if the manifest names none.
    pub contents: Option<Contents>,
    /// The figures; absent if the manifest has none.
    pub figures: Option<Figures>,
}

/// Loads a release from its manifest, or from a directory with one manifest. `place` is a path or a URL.
///
/// # Errors
/// Fails if the manifest is not signed with a trusted key, or if its list of files is not there, is
/// not the one that the manifest names, or is not valid.
pub(crate) fn load(place: &str, keys: &KeyRing) -> Result<Loaded> {
    let (location, path) = open(place)?;
    let manifest = manifest(&*location, &path, keys)?;
    let figures = Figures::of(&manifest.claims)?;
    Ok(Loaded { figures, ..loaded(&*location, manifest.into_inner().release)? })
}

/// Loads the list of files of a release that is published at a location, without figures.
///
/// # Errors
/// See [`load`].
pub(crate) fn loaded(location: &dyn Location, release: Release) -> Result<Loaded> {
    let contents = match release.document(document::CONTENTS) {
        Some(document) => Some(contents(location, document)?),
        None => None,
    };
    Ok(Loaded { release, contents, figures: None })
}

/// Opens the location of a manifest, to which its URLs are relative, and returns its path there.
pub(crate) fn open(place: &str) -> Result<(Box<dyn Location>, String)> {
    let is_directory = !place.contains("://") && Path::new(place).is_dir();
    if is_directory {
        return Ok((locate(place)?, manifest_in(Path::new(place))?));
    }
    let mut segments: Vec<&str> = place.split('/').collect();
    let is_history = segments.len() > 3 && segments[segments.len() - 2] == HISTORY;
    let path = segments.split_off(segments.len() - if is_history { 3 } else { 1 });
    let base = match segments[..] {
        [] => ".".to_owned(),
        [""] => "/".to_owned(),
        _ => segments.join("/"),
    };
    Ok((locate(&base)?, path.join("/")))
}

/// Reads a manifest and verifies its signature.
///
/// # Errors
/// Fails if the manifest is not there, or is not signed with a trusted key.
pub(crate) fn manifest(
    location: &dyn Location,
    path: &str,
    keys: &KeyRing,
) -> Result<Verified<Manifest>> {
    let hint = "name the public key that signed it with --keys";
    let published = published::of_any_target(location, path, keys, hint)?;
    let place = location.describe();
    Ok(published.with_context(|| format!("{place} has no manifest {path}"))?.manifest)
}

/// Returns the name of the only manifest in a directory.
fn manifest_in(directory: &Path) -> Result<String> {
    let failed = || format!("reading {}", directory.display());
    let mut found = Vec::new();
    for entry in directory.read_dir().with_context(failed)? {
        let name = entry.with_context(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".jwt") {
            found.push(name);
        }
    }
    match <[String; 1]>::try_from(found) {
        Ok([name]) => Ok(name),
        Err(found) => bail!(
            "{} has {} manifests (*.jwt), expected one; name the manifest itself",
            directory.display(),
            found.len()
        ),
    }
}

/// Reads a list of files: at its URL or, in the directory of a build, beside the manifest.
fn contents(location: &dyn Location, document: &Document) -> Result<Contents> {
    let failed =
        || format!("reading the list of files {} in {}", document.name, location.describe());
    let stored = match location.read(&document.url, DOCUMENT_MAX).with_context(failed)? {
        Some(stored) => Some(stored),
        None => location.read(&document.name, DOCUMENT_MAX).with_context(failed)?,
    };
    let bytes = stored
        .with_context(|| {
            format!(
                "the manifest names the list of files {}, which is not there; copy it from the place \
                 that the manifest was published at",
                document.name
            )
        })?
        .bytes;
    ensure!(
        bytes.len() as u64 == document.size && digest::of_bytes(&bytes) == document.sha256,
        "{} in {} is not the list of files that the manifest names; copy it again from the same \
         release",
        document.name,
        location.describe()
    );
    Contents::from_document(&bytes).with_context(failed)
}
