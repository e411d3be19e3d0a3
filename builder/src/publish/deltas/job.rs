//! One delta.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protocol::delta::FORMAT;
use protocol::release::DeltaFile;
use protocol::{Artifact, digest};

use super::NewFiles;
use super::earlier::Earlier;
use super::updater::Updater;
use crate::delta::{MadeDelta, NewFile};

/// A delta must be smaller than this part of its artifact.
const PART: u64 = 2;
/// The number of digits of a digest in the name of a delta: 64 bits.
const DIGITS: usize = 16;

/// A file of the new release.
pub(super) struct New<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) bytes: &'a [u8],
    pub(super) file: NewFile<'a>,
}

/// A delta to a file of the new release, from a file of earlier ones.
pub(super) struct Job<'a> {
    new: &'a New<'a>,
    old: &'a Artifact,
    /// The releases with the old file, the newest first.
    releases: Vec<&'a Earlier<'a>>,
}

impl<'a> Job<'a> {
    /// Returns all deltas that hosts with these releases can use. Releases with the same kernel share its delta.
    pub(super) fn all(earlier: &'a [Earlier<'a>], new: &'a [New<'a>]) -> Vec<Self> {
        let mut jobs: Vec<Self> = Vec::new();
        for release in earlier {
            for new in new {
                let Some(old) = release.patched(new.artifact) else { continue };
                let is_same = |job: &&mut Self| {
                    job.old.sha256 == old.sha256 && job.target() == new.artifact.sha256
                };
                match jobs.iter_mut().find(is_same) {
                    Some(job) => job.releases.push(release),
                    None => jobs.push(Self { new, old, releases: vec![release] }),
                }
            }
        }
        jobs
    }

    /// Returns the SHA-256 of the new file.
    pub(super) fn target(&self) -> &str {
        &self.new.artifact.sha256
    }

    /// Returns a line about the result for the summary.
    pub(super) fn describe(&self, result: &Result<DeltaFile>) -> String {
        let builds: Vec<String> =
            self.releases.iter().map(|earlier| earlier.release.build.to_string()).collect();
        let plural = if builds.len() > 1 { "s" } else { "" };
        let from = format!("{} from build{plural} {}", self.old.role, builds.join(", "));
        match result {
            Ok(DeltaFile { size, .. }) => {
                let percent = *size as f64 * 100.0 / self.new.artifact.size as f64;
                format!("{from}: {size} bytes, {percent:.1}%")
            }
            Err(error) => format!("{from}: none: {error:#}"),
        }
    }

    /// Makes the delta, and applies it with the updaters of the earlier releases.
    pub(super) fn run(&self, files: &NewFiles<'_>) -> Result<DeltaFile> {
        let known = self.new.artifact.deltas.iter().find(|delta| delta.from == self.old.sha256);
        let [newest, others @ ..] = &self.releases[..] else {
            bail!("no release has the old file")
        };
        if let Some(known) = known
            && others.is_empty()
        {
            // It was checked when it was made.
            return Ok(known.clone());
        }
        let updaters = self.updaters()?;
        let old = newest.file(self.old)?;
        let (delta, path) = match known {
            Some(known) => (known.clone(), (files.path)(known.file())?),
            None => self.make(&old, updaters.is_empty(), files.deltas)?,
        };
        let check = |updater: &&Updater| updater.check(&delta, &path, &old, self.new.artifact);
        let checked = updaters.iter().try_for_each(check);
        if checked.is_err() && known.is_none() {
            fs::remove_file(&path)?;
        }
        // The space is needed for the files of other releases.
        fs::remove_file(&old)?;
        checked.map(|()| delta)
    }

    /// Returns the updaters that have to apply the delta, each of them once. There are none if this machine cannot
    /// run them.
    ///
    /// # Errors
    /// Fails if no host with one of the releases would use a delta.
    fn updaters(&self) -> Result<Vec<&'a Updater>> {
        let mut updaters: Vec<&Updater> = Vec::new();
        let mut is_used = false;
        for earlier in &self.releases {
            let updater = earlier.updater()?;
            is_used |= updater.is_none_or(|updater| updater.knows_deltas);
            let is_new = |updater: &&Updater| {
                updater.knows_deltas && updaters.iter().all(|it| it.sha256 != updater.sha256)
            };
            updaters.extend(updater.filter(is_new));
        }
        ensure!(is_used, "the updater of this release does not know deltas");
        Ok(updaters)
    }

    /// Makes the delta, and applies it here if that is asked for. Returns it with its path.
    fn make(&self, old: &Path, must_apply: bool, directory: &Path) -> Result<(DeltaFile, PathBuf)> {
        let New { artifact, bytes: new, file } = self.new;
        let old = fs::read(old).context("reading the old file")?;
        let made = MadeDelta::between(&old, file)?;
        let (size, memory) = (made.bytes.len() as u64, made.memory);
        let max = artifact.size / PART;
        ensure!(size < max, "it has {size} bytes, which is too much of {}", artifact.size);
        if must_apply {
            made.check(&old, new)?;
        }
        let sha256 = digest::of_bytes(&made.bytes);
        let name = format!("{}.{}.delta", artifact.name, &sha256[..DIGITS]);
        let path = directory.join(&name);
        fs::write(&path, made.bytes).with_context(|| format!("writing {}", path.display()))?;
        let delta = DeltaFile {
            from: self.old.sha256.clone(),
            format: FORMAT.to_owned(),
            url: name.clone(),
            name,
            size,
            sha256,
            memory,
        };
        Ok((delta, path))
    }
}
