//! The local copies of a release's files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::release::PublishedFile;
use protocol::{Artifact, Release};
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

    /// Removes the deltas of a release that are neither local nor whole where it is published, and returns a line
    /// about each for the summary. Hosts can do without them, so they must not prevent a publication.
    pub(super) fn drop_missing_deltas(&self, release: &mut Release) -> Vec<String> {
        let mut lines = Vec::new();
        for Artifact { role, deltas, .. } in &mut release.artifacts {
            deltas.retain(|delta| {
                let problem = self.problem(delta.file());
                let line = problem.map(|problem| {
                    format!("delta of the {role}, {}: left out: it {problem}", delta.url)
                });
                let is_missing = line.is_some();
                lines.extend(line);
                !is_missing
            });
        }
        lines
    }

    /// Returns why a file cannot be published, or `None` if it can.
    fn problem(&self, file: PublishedFile<'_>) -> Option<String> {
        if self.is_local(file) {
            return None;
        }
        let Some(location) = self.published else { return Some("is missing".to_owned()) };
        let problem = published::problem(location, file);
        problem.unwrap_or_else(|error| Some(format!("cannot be read: {error:#}")))
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
