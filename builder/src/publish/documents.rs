//! The documents that are written when a release is published.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::Release;
use protocol::release::document;

use super::files::Files;
use crate::image::digest;

/// The file with the checksums of a release.
const CHECKSUMS: &str = "SHA256SUMS";

/// Writes a document to `directory`, and adds it to a release and its files.
pub(super) fn add(
    release: &mut Release,
    files: &mut Files<'_>,
    directory: &Path,
    kind: &str,
    name: &str,
    text: &str,
) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    let document = digest::of_document(directory, kind, name)?;
    files.add(document.sha256.clone(), path);
    release.documents.retain(|document| document.kind != kind);
    release.documents.push(document);
    Ok(())
}

/// Adds the checksums of all files except deltas, in the format of `sha256sum --check`.
pub(super) fn add_checksums(
    release: &mut Release,
    files: &mut Files<'_>,
    directory: &Path,
) -> Result<()> {
    release.documents.retain(|other| other.kind != document::CHECKSUMS);
    let text = checksums(release);
    add(release, files, directory, document::CHECKSUMS, CHECKSUMS, &text)
}

/// Returns the checksums of all artifacts and documents, except for the checksums themselves.
pub(crate) fn checksums(release: &Release) -> String {
    let own = release.document(document::CHECKSUMS).map(|document| document.name.as_str());
    let files = release.files().filter(|file| Some(file.name) != own);
    files.map(|file| format!("{}  {}\n", file.sha256, file.name)).collect()
}
