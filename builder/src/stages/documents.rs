//! The documents of a release: files that are published with it, and that hosts do not download.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::Release;
use protocol::release::{Document, document};

use super::build::Build;
use crate::contents::{self, Trees};
use crate::image::digest;
use crate::log_file::LogFile;
use crate::sbom::{self, Sbom};

/// Writes all documents to the artifacts directory and adds them to the release. `pieces` is the
/// directory that the variant's Commands wrote their results to.
pub(super) fn add(
    release: &mut Release,
    build: &Build<'_>,
    pieces: &Path,
    log: &mut LogFile,
) -> Result<()> {
    let list = contents_list(build, pieces)?;
    release.documents.push(list);
    // The SBOM names the artifacts.
    let sbom = sbom(release, build, log)?;
    release.documents.push(sbom);
    Ok(())
}

/// Writes the list of the files in the image.
fn contents_list(build: &Build<'_>, pieces: &Path) -> Result<Document> {
    let trees = Trees {
        early: &pieces.join("early"),
        root: &build.directories.work.join("root"),
        esp: &pieces.join("esp"),
    };
    let list = trees.contents().context("listing the files in the image")?.to_document()?;
    write(build, document::CONTENTS, &contents::name(&build.target), &list)
}

/// Writes the SPDX document.
fn sbom(release: &Release, build: &Build<'_>, log: &mut LogFile) -> Result<Document> {
    let sbom = Sbom {
        release,
        naming: &build.variant.sbom,
        binaries: &build.variant.binaries,
        crates: &sbom::crates::of_updater(&build.workspace, build.target.arch, log)?,
    };
    let name = format!("etchaos_{}.spdx.json", build.target);
    write(build, document::SBOM, &name, sbom.to_json()?.as_bytes())
}

fn write(build: &Build<'_>, kind: &str, name: &str, content: &[u8]) -> Result<Document> {
    let path = build.directories.artifacts.join(name);
    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    measure(build, kind, name)
}

/// Returns the document for a file in the artifacts directory.
fn measure(build: &Build<'_>, kind: &str, name: &str) -> Result<Document> {
    let (size, sha256) = digest::of_file(&build.directories.artifacts.join(name))?;
    let (kind, name, url) = (kind.to_owned(), name.to_owned(), name.to_owned());
    Ok(Document { kind, name, size, sha256, url })
}
