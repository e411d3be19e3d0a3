//! Loads the manifest of a release, and its list of files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protocol::release::{Document, document};
use protocol::token::{TOKEN_MAX, verify};
use protocol::{KeyRing, Manifest, Release, Verified, digest, release};

use crate::contents::{Contents, DOCUMENT_MAX};

/// A release and its list of files.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The release.
    pub release: Release,
    /// The list of files; absent if the manifest names none.
    pub contents: Option<Contents>,
}

/// Loads a release from its manifest, or from a directory with one manifest.
///
/// # Errors
/// Fails if the manifest is not signed with a trusted key, or if its list of files is not there, is
/// not the one that the manifest names, or is not valid.
pub(crate) fn load(place: &Path, keys: &KeyRing) -> Result<Loaded> {
    let path = if place.is_dir() { manifest_in(place)? } else { place.to_owned() };
    let failed = || format!("reading the manifest {}", path.display());
    let text = read_limited(&path, TOKEN_MAX as u64).with_context(failed)?;
    let text = String::from_utf8(text).with_context(failed)?;
    let manifest: Verified<Manifest> = verify(&text, keys)
        .with_context(|| {
            format!(
                "the manifest {} is not trusted; name the public key that signed it with --keys",
                path.display()
            )
        })?
        .try_into()
        .with_context(failed)?;
    let release = manifest.into_inner().release;
    let directory = path.parent().unwrap_or(Path::new(""));
    let contents = match release.document(document::CONTENTS) {
        Some(document) => Some(contents(directory, document)?),
        None => None,
    };
    Ok(Loaded { release, contents })
}

/// Returns the path of the only manifest in a directory.
fn manifest_in(directory: &Path) -> Result<PathBuf> {
    let failed = || format!("reading {}", directory.display());
    let mut found = Vec::new();
    for entry in directory.read_dir().with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "jwt") {
            found.push(path);
        }
    }
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) => bail!(
            "{} has {} manifests (*.jwt), expected one; name the manifest itself",
            directory.display(),
            found.len()
        ),
    }
}

fn contents(directory: &Path, document: &Document) -> Result<Contents> {
    let path = locate(directory, document)?;
    let failed = || format!("reading the list of files {}", path.display());
    let bytes = read_limited(&path, DOCUMENT_MAX).with_context(failed)?;
    ensure!(
        bytes.len() as u64 == document.size && digest::of_bytes(&bytes) == document.sha256,
        "{} is not the list of files that the manifest names; copy it again from the same release",
        path.display()
    );
    Contents::from_document(&bytes).with_context(failed)
}

/// Returns the path of a document: at its URL if that is relative, or beside the manifest.
fn locate(directory: &Path, document: &Document) -> Result<PathBuf> {
    let is_relative = document.url.split('/').all(release::is_file_name);
    let at_url = is_relative.then(|| directory.join(&document.url));
    let beside = directory.join(&document.name);
    let mut candidates = at_url.into_iter().chain([beside.clone()]);
    candidates.find(|path| path.is_file()).with_context(|| {
        format!(
            "the manifest names the list of files {}, which is not there; copy it from the place \
             that the manifest was published at",
            beside.display()
        )
    })
}

fn read_limited(path: &Path, max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= max, "it has more than {max} bytes");
    Ok(bytes)
}
