//! Results of stages that are kept between builds.
//!
//! An entry is a file `KEY.data` and a description `KEY.json`, in a directory for each kind of result and each
//! target. Targets that are built at the same time therefore do not remove each other's entries. The
//! key is a digest of everything that the result depends on. The description is written last, names size
//! and SHA-256 of the data, and is verified on every use: an interrupted or damaged entry is not used.

pub(crate) mod archive;
mod tree;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use protocol::{Target, digest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use tree::digest as tree_digest;

use crate::image::digest::of_file;
use crate::log_file::LogFile;
use crate::partial_file::PartialFile;

/// The number of entries in a directory that are kept: those that were used last.
const KEPT: usize = 3;

/// The cache of a build host.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    reads: bool,
}

/// The kind of a result, its target, and a digest of its inputs.
#[derive(Debug)]
pub(crate) struct Key {
    /// The directory of the entry, below that of the cache.
    directory: PathBuf,
    digest: String,
}

impl Key {
    /// Returns the key of a result with these inputs, which all targets share.
    pub(crate) fn new(kind: &'static str, inputs: &serde_json::Value) -> Self {
        let digest = digest::of_bytes(inputs.to_string().as_bytes());
        Self { directory: kind.into(), digest }
    }

    /// Returns the key of a result that only one target uses.
    pub(crate) fn of_target(self, target: &Target) -> Self {
        Self { directory: self.directory.join(target.to_string()), ..self }
    }
}

/// A verified entry.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// The path of the data.
    pub data: PathBuf,
    /// The value that was stored with the data.
    pub value: T,
}

/// The content of `KEY.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description<T> {
    key: String,
    size: u64,
    sha256: String,
    value: T,
}

impl Cache {
    /// Opens the cache in a directory, which need not exist. Without `reads`, it finds nothing, but stores
    /// new results.
    pub(crate) fn new(directory: PathBuf, reads: bool) -> Self {
        Self { directory, reads }
    }

    /// Returns an entry after verifying it. A damaged entry is removed and does not count as found.
    pub(crate) fn find<T: DeserializeOwned>(
        &self,
        key: &Key,
        log: &mut LogFile,
    ) -> Option<Found<T>> {
        let description = self.path(key, "json");
        if !self.reads || !description.exists() {
            return None;
        }
        match self.verify(key) {
            Ok(found) => {
                log.line(&format!("using {} of the cache", found.data.display()));
                // The entries that were used last are kept. If the time cannot be set, the entry only
                // counts as older.
                let used = File::options().append(true).open(&description);
                let _ = used.and_then(|file| file.set_modified(SystemTime::now()));
                Some(found)
            }
            Err(error) => {
                log.line(&format!("not using an entry of the cache: {error:#}"));
                self.remove(&description);
                None
            }
        }
    }

    /// Stores data, which `write` writes to a path, and a value.
    ///
    /// # Errors
    /// Fails if `write` fails or the files cannot be written.
    pub(crate) fn store<T: Serialize>(
        &self,
        key: &Key,
        value: T,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let failed = || format!("storing a result in {}", self.directory.display());
        fs::create_dir_all(self.directory.join(&key.directory)).with_context(failed)?;
        let data = PartialFile::create(&self.path(key, "data"))?;
        write(data.path())?;
        let (size, sha256) = of_file(data.path())?;
        data.persist_unflushed()?;
        let description = Description { key: key.digest.clone(), size, sha256, value };
        let mut file = PartialFile::create(&self.path(key, "json"))?;
        serde_json::to_writer(file.file(), &description).with_context(failed)?;
        file.file().flush().with_context(failed)?;
        file.persist_unflushed()?;
        self.prune(&self.directory.join(&key.directory)).with_context(failed)
    }

    fn verify<T: DeserializeOwned>(&self, key: &Key) -> Result<Found<T>> {
        let (description, data) = (self.path(key, "json"), self.path(key, "data"));
        let failed = || format!("reading {}", description.display());
        let text = fs::read(&description).with_context(failed)?;
        let found: Description<T> = serde_json::from_slice(&text).with_context(failed)?;
        let (size, sha256) = of_file(&data)?;
        anyhow::ensure!(
            (&key.digest, size, &sha256) == (&found.key, found.size, &found.sha256),
            "{} is damaged: it has {size} bytes with the SHA-256 {sha256}, expected {} bytes with {}",
            data.display(),
            found.size,
            found.sha256
        );
        Ok(Found { data, value: found.value })
    }

    /// Removes all entries of a directory except the newest, and data without a description.
    fn prune(&self, directory: &Path) -> Result<()> {
        let mut entries = Vec::new();
        for entry in directory.read_dir()? {
            let path = entry?.path();
            let extension = path.extension().unwrap_or_default();
            if extension == "json" {
                entries.push((path.metadata()?.modified()?, path));
            } else if extension == "data" && !path.with_extension("json").exists() {
                fs::remove_file(path)?;
            }
        }
        entries.sort();
        let surplus = entries.len().saturating_sub(KEPT);
        entries[..surplus].iter().for_each(|(_, description)| self.remove(description));
        Ok(())
    }

    /// Removes an entry, the description first. What cannot be removed is not an error: it is verified
    /// again before it is used.
    fn remove(&self, description: &Path) {
        let _ = fs::remove_file(description);
        let _ = fs::remove_file(description.with_extension("data"));
    }

    fn path(&self, key: &Key, extension: &str) -> PathBuf {
        self.directory.join(&key.directory).join(format!("{}.{extension}", key.digest))
    }
}

#[cfg(test)]
mod tests;
