//! An earlier release: its files, and the updater that hosts with this release apply deltas with.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use protocol::{Arch, Artifact, Release, Role};
use tempfile::TempDir;

use super::confined;
use super::updater::Updater;
use crate::delta::file_of_initrd;
use crate::destination::Location;
use crate::published;

/// The path of the updater in the SquashFS of `/usr`.
const UPDATER: &str = "/bin/etchaos-updater";

/// An earlier release at a location. Threads can use it at the same time.
pub(super) struct Earlier<'a> {
    location: &'a dyn Location,
    pub(super) release: &'a Release,
    directory: TempDir,
    /// Held by the thread that fetches a file.
    turn: Mutex<()>,
    /// The updater, once it is known; `None` inside if it is not used.
    updater: OnceLock<Option<Updater>>,
}

impl<'a> Earlier<'a> {
    /// Returns a release whose files are fetched to `directory` when they are needed.
    pub(super) fn new(
        location: &'a dyn Location,
        release: &'a Release,
        directory: &Path,
    ) -> Result<Self> {
        let directory =
            tempfile::tempdir_in(directory).context("creating a temporary directory")?;
        let (turn, updater) = (Mutex::new(()), OnceLock::new());
        Ok(Self { location, release, directory, turn, updater })
    }

    /// Returns the artifact that hosts with this release patch to get `new`; `None` if they copy it, or have none.
    pub(super) fn patched(&self, new: &Artifact) -> Option<&'a Artifact> {
        self.release.artifact(new.role).filter(|old| old.sha256 != new.sha256)
    }

    /// Returns the path of an artifact. Fetches it if it is not there.
    pub(super) fn file(&self, artifact: &Artifact) -> Result<PathBuf> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.fetch(artifact)
    }

    /// Removes an artifact, because the space is needed for the files of other releases.
    pub(super) fn discard(&self, artifact: &Artifact) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The directory is removed later, with what is left in it.
        let _ = fs::remove_file(self.directory.path().join(&artifact.name));
    }

    /// Returns the updater; `None` if there is none, or if this machine cannot run it: because of its architecture,
    /// or because of [`confined::problem`].
    pub(super) fn updater(&self) -> Result<Option<&Updater>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let updater = match self.updater.get() {
            Some(updater) => updater,
            None => {
                let found = self.extract_updater()?;
                self.updater.get_or_init(|| found)
            }
        };
        Ok(updater.as_ref())
    }

    fn fetch(&self, artifact: &Artifact) -> Result<PathBuf> {
        let to = self.directory.path().join(&artifact.name);
        if !to.exists() {
            // A damaged file must not be used, nor be in the way of another one.
            let partial = tempfile::tempdir_in(self.directory.path())?;
            let path = partial.path().join(&artifact.name);
            let fetched = published::fetch(self.location, &artifact.url, artifact.file(), &path);
            fetched.context("fetching the old file")?;
            fs::rename(&path, &to).context("keeping the old file")?;
        }
        Ok(to)
    }

    fn extract_updater(&self) -> Result<Option<Updater>> {
        let Some(initrd) = self.release.artifact(Role::Initrd) else { return Ok(None) };
        if Arch::native() != Some(self.release.arch) || confined::problem().is_some() {
            return Ok(None);
        }
        let initrd = fs::read(self.fetch(initrd)?)?;
        let Some(program) = file_of_initrd(&initrd, UPDATER)? else { return Ok(None) };
        let path = self.directory.path().join("updater");
        Updater::write(&path, &program, self.release.build).map(Some)
    }
}
