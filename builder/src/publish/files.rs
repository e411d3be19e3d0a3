//! The local copies of a release's files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::Release;
use protocol::release::PublishedFile;
use tempfile::TempDir;

use crate::destination::{Location, Upload};
use crate::published;

/// Files, found by their SHA-256: those of a build, and those that are fetched from where the release
/// is published already.
pub(super) struct Files<'a> {
    local: BTreeMap<String, PathBuf>,
    published: Option<&'a dyn Location>,
    fetched: TempDir,
}

impl<'a> Files<'a> {
    /// Returns the files of a release in a local directory, with its deltas.
    pub(super) fn in_directory(directory: &Path, release: &Release) -> Result<Self> {
        let local = release
            .all_files()
            .map(|file| (file.sha256.to_owned(), directory.join(file.name)))
            .filter(|(_, path)| path.exists())
            .collect();
        Ok(Self { local, published: None, fetched: temporary()? })
    }

    /// Returns no local files.
    pub(super) fn none() -> Result<Self> {
        Ok(Self { local: BTreeMap::new(), published: None, fetched: temporary()? })
    }

    /// Fetches files that are not local from a location.
    pub(super) fn or_published_at(self, location: Option<&'a dyn Location>) -> Self {
        Self { published: location, ..self }
    }

    /// Returns whether a file is local.
    pub(super) fn is_local(&self, file: PublishedFile<'_>) -> bool {
        self.local.contains_key(file.sha256)
    }

    /// Adds a local file.
    pub(super) fn add(&mut self, sha256: String, path: PathBuf) {
        self.local.insert(sha256, path);
    }

    /// Returns the upload of a file. Fetches the file if it is not local.
    ///
    /// # Errors
    /// Fails if the file is neither local nor whole where it is published.
    pub(super) fn upload(&self, file: PublishedFile<'_>) -> Result<Upload> {
        let from = match self.local.get(file.sha256) {
            Some(path) => path.clone(),
            None => self.fetch(file)?,
        };
        Ok(Upload {
            from,
            path: file.url.to_owned(),
            size: file.size,
            sha256: file.sha256.to_owned(),
        })
    }

    fn fetch(&self, file: PublishedFile<'_>) -> Result<PathBuf> {
        let location = self.published.with_context(|| {
            format!("there is no file with the SHA-256 {} of {}", file.sha256, file.name)
        })?;
        let to = self.fetched.path().join(file.sha256);
        if !to.exists() {
            let partial = tempfile::tempdir_in(self.fetched.path())?;
            let path = partial.path().join("file");
            published::fetch(location, file.url, file, &path)?;
            std::fs::rename(&path, &to).context("keeping a downloaded file")?;
        }
        Ok(to)
    }
}

fn temporary() -> Result<TempDir> {
    tempfile::tempdir().context("creating a temporary directory")
}
