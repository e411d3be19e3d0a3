//! The documents of a release: files that are published with it, and that hosts do not download.

use std::fs;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow};
use protocol::release::{Document, document};
use protocol::{Release, Target};

use super::build::Build;
use crate::contents::{self, Trees};
use crate::image::netboot::NetworkBoot;
use crate::image::{bmap, digest, disk};
use crate::log_file::LogFile;
use crate::sbom::{self, Sbom};

/// What the documents are made of.
pub(super) struct Sources<'a> {
    pub(super) build: &'a Build<'a>,
    /// The directory that the variant's Commands wrote their results to.
    pub(super) pieces: &'a Path,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    /// The disk image without compression.
    pub(super) raw: &'a Path,
    /// The version of the release.
    pub(super) version: &'a str,
    /// The date of the newest package in Unix seconds.
    pub(super) epoch: u32,
}

/// Writes all documents to the artifacts directory and adds them to the release.
pub(super) fn add(release: &mut Release, sources: &Sources<'_>, log: &mut LogFile) -> Result<()> {
    let documents = thread::scope(|scope| {
        let map = scope.spawn(|| sources.block_map());
        let archive = scope.spawn(|| sources.network_boot());
        anyhow::Ok([sources.contents()?, join(map)?, join(archive)?])
    })?;
    release.documents.extend(documents);
    if sources.build.variant.content.disk4k {
        release.documents.extend(sources.disk_4k()?);
    }
    // The SBOM names the artifacts.
    let sbom = sources.sbom(release, log)?;
    release.documents.push(sbom);
    Ok(())
}

/// Returns the file name of the disk image for disks with sectors of 4096 bytes.
pub(super) fn disk_4k_name(target: &Target) -> String {
    format!("etchaos_{target}.4k.raw.zst")
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread that writes documents panicked")))
}

impl Sources<'_> {
    /// Writes the list of the files in the image.
    fn contents(&self) -> Result<Document> {
        let trees = Trees {
            early: &self.pieces.join("early"),
            root: &self.build.directories.work.join("root"),
            esp: &self.pieces.join("esp"),
        };
        let list = trees.contents().context("listing the files in the image")?.to_document()?;
        self.write(document::CONTENTS, &contents::name(&self.build.target), &list)
    }

    /// Writes the block map of the disk image.
    fn block_map(&self) -> Result<Document> {
        self.block_map_of(self.raw, document::BLOCK_MAP)
    }

    /// Returns the disk image for disks with sectors of 4096 bytes, which exists already, and writes its block
    /// map.
    fn disk_4k(&self) -> Result<[Document; 2]> {
        let name = disk_4k_name(&self.build.target);
        let raw = self.path(&name).with_extension("");
        let map = self.block_map_of(&raw, document::BLOCK_MAP_4K)?;
        Ok([self.measure(document::DISK_4K, &name)?, map])
    }

    fn block_map_of(&self, raw: &Path, kind: &str) -> Result<Document> {
        let reading = || format!("reading {}", raw.display());
        let size = raw.metadata().with_context(reading)?.len();
        // bmaptool finds the map of IMAGE.raw.zst under the name IMAGE.raw.bmap.
        let name = format!("{}.bmap", raw.file_name().with_context(reading)?.to_string_lossy());
        bmap::write(raw, disk::esp(size), &self.path(&name))?;
        self.measure(kind, &name)
    }

    /// Writes the archive for network boot.
    fn network_boot(&self) -> Result<Document> {
        let name = format!("etchaos_{}.netboot.tar", self.build.target);
        let archive = NetworkBoot {
            loaders: &self.pieces.join("netboot"),
            kernel: self.kernel,
            initrd: self.initrd,
            target: &self.build.target,
            version: self.version,
            epoch: self.epoch,
        };
        archive.write(&self.path(&name))?;
        self.measure(document::NETWORK_BOOT, &name)
    }

    /// Writes the SPDX document.
    fn sbom(&self, release: &Release, log: &mut LogFile) -> Result<Document> {
        let build = self.build;
        let sbom = Sbom {
            release,
            naming: &build.variant.sbom,
            binaries: &build.variant.content.binaries,
            crates: &sbom::crates::of_updater(&build.workspace, build.target.arch, log)?,
        };
        let name = format!("etchaos_{}.spdx.json", build.target);
        self.write(document::SBOM, &name, sbom.to_json()?.as_bytes())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.build.directories.artifacts.join(name)
    }

    fn write(&self, kind: &str, name: &str, content: &[u8]) -> Result<Document> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        self.measure(kind, name)
    }

    /// Returns the document for a file in the artifacts directory.
    fn measure(&self, kind: &str, name: &str) -> Result<Document> {
        digest::of_document(&self.build.directories.artifacts, kind, name)
    }
}
