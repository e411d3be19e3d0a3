//! The documents of stage 4: files that are published with a release and that hosts do not download.

use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use protocol::release::{Document, document};
use protocol::{Role, Target};

use crate::image::netboot::NetworkBoot;
use crate::image::{bmap, compress, digest, disk};
use crate::log_file::LogFile;

/// What the documents are made of.
pub(super) struct Sources<'a> {
    pub(super) target: &'a Target,
    /// The directory with the artifacts, which receives the documents.
    pub(super) artifacts: &'a Path,
    /// The tree of the boot loaders for network boot.
    pub(super) loaders: &'a Path,
    /// The version of the release.
    pub(super) version: &'a str,
    /// The date of the newest package in Unix seconds.
    pub(super) epoch: u32,
}

/// Writes the archive for network boot, the compressed disk image and its block map.
pub(super) fn write(sources: &Sources<'_>, log: &mut LogFile) -> Result<Vec<Document>> {
    let (documents, mapped) = thread::scope(|scope| {
        let compressed = scope.spawn(|| sources.compressed_disk());
        let archive = scope.spawn(|| sources.network_boot());
        let (map, mapped) = sources.block_map()?;
        let documents = vec![map, join(compressed)?, join(archive)?];
        anyhow::Ok((documents, mapped))
    })?;
    log.line(&format!("block map: {} of {} blocks are mapped", mapped.mapped, mapped.total));
    for Document { name, size, .. } in &documents {
        log.line(&format!("{name}: {size} bytes"));
    }
    Ok(documents)
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread that writes documents panicked")))
}

impl Sources<'_> {
    fn block_map(&self) -> Result<(Document, bmap::Mapped)> {
        let disk = self.artifact(Role::Disk);
        let size = disk.metadata().with_context(|| format!("reading {}", disk.display()))?.len();
        let name = format!("{}.bmap", self.target.artifact_name(Role::Disk));
        let mapped = bmap::write(&disk, disk::esp(size), &self.artifacts.join(&name))?;
        Ok((self.document(document::BLOCK_MAP, name)?, mapped))
    }

    fn compressed_disk(&self) -> Result<Document> {
        let name = format!("{}.zst", self.target.artifact_name(Role::Disk));
        compress::write(&self.artifact(Role::Disk), &self.artifacts.join(&name))?;
        self.document(document::COMPRESSED_DISK, name)
    }

    fn network_boot(&self) -> Result<Document> {
        let name = format!("etchaos_{}.netboot.tar", self.target);
        let archive = NetworkBoot {
            loaders: self.loaders,
            kernel: &self.artifact(Role::Kernel),
            initrd: &self.artifact(Role::Initrd),
            version: self.version,
            epoch: self.epoch,
        };
        archive.write(&self.artifacts.join(&name))?;
        self.document(document::NETWORK_BOOT, name)
    }

    fn artifact(&self, role: Role) -> PathBuf {
        self.artifacts.join(self.target.artifact_name(role))
    }

    fn document(&self, kind: &str, name: String) -> Result<Document> {
        let (size, sha256) = digest::of_file(&self.artifacts.join(&name))?;
        Ok(Document { kind: kind.to_owned(), url: name.clone(), name, size, sha256 })
    }
}
