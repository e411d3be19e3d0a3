//! One delta.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use protocol::delta::FORMAT;
use protocol::release::DeltaFile;
use protocol::{Artifact, Role, digest};

use super::earlier::Earlier;
use super::updater::Updater;
use super::{Added, NewFiles};
use crate::delta::{MadeDelta, NewFile};

/// A delta must be smaller than its artifact divided by this number.
const DIVISOR: u64 = 2;
/// The memory that the delta of an initrd may take on a host, in bytes. With the program itself, it stays below 64 MiB.
const INITRD_MEMORY: u64 = 52 << 20;
/// The number of digits of a digest in the name of a delta: 64 bits.
const DIGITS: usize = 16;

/// A file of the new release.
pub(super) struct NewArtifact<'a> {
    pub(super) artifact: &'a Artifact,
    pub(super) bytes: &'a [u8],
    pub(super) file: NewFile<'a>,
}

/// A delta to a file of the new release, from a file of earlier ones.
pub(super) struct Job<'a> {
    new: &'a NewArtifact<'a>,
    old: &'a Artifact,
    /// The newest release with the old file, and the others.
    newest: &'a Earlier<'a>,
    others: Vec<&'a Earlier<'a>>,
}

impl<'a> Job<'a> {
    /// Returns all deltas that hosts with these releases can use. Releases with the same kernel share its delta.
    pub(super) fn all(earlier: &'a [Earlier<'a>], new: &'a [NewArtifact<'a>]) -> Vec<Self> {
        let mut jobs: Vec<Self> = Vec::new();
        for release in earlier {
            for new in new {
                let Some(old) = release.patched(new.artifact) else { continue };
                let is_same =
                    |job: &&mut Self| job.from() == old.sha256 && job.to() == new.artifact.sha256;
                match jobs.iter_mut().find(is_same) {
                    Some(job) => job.others.push(release),
                    None => jobs.push(Self { new, old, newest: release, others: Vec::new() }),
                }
            }
        }
        jobs
    }

    /// Returns the SHA-256 of the old file.
    pub(super) fn from(&self) -> &str {
        &self.old.sha256
    }

    /// Returns the SHA-256 of the new file.
    pub(super) fn to(&self) -> &str {
        &self.new.artifact.sha256
    }

    /// Describes the delta.
    pub(super) fn describe(&self) -> String {
        let builds: Vec<String> =
            self.releases().map(|earlier| earlier.release.build.to_string()).collect();
        let plural = if builds.len() > 1 { "s" } else { "" };
        format!("delta of the {} from build{plural} {}", self.old.role, builds.join(", "))
    }

    /// Describes the result for the summary.
    pub(super) fn describe_result(&self, result: &Result<Option<DeltaFile>>) -> String {
        let from = self.describe();
        match result {
            Ok(None) => {
                let these = if self.others.is_empty() { "this release" } else { "these releases" };
                format!("{from}: not made: hosts with {these} do not support deltas")
            }
            Ok(Some(DeltaFile { size, .. })) => {
                let percent = *size as f64 * 100.0 / self.new.artifact.size as f64;
                format!("{from}: {size} bytes, {percent:.1}%")
            }
            Err(error) => format!("{from}: not made: {error:#}"),
        }
    }

    /// Returns the releases with the old file, the newest first.
    fn releases(&self) -> impl Iterator<Item = &'a Earlier<'a>> {
        std::iter::once(self.newest).chain(self.others.iter().copied())
    }

    /// Makes the delta, and applies it with the updaters of the earlier releases. Returns `None` if none of these
    /// supports deltas. Adds a line for each release whose updater cannot be obtained.
    pub(super) fn run(&self, files: &NewFiles<'_>, added: &mut Added) -> Result<Option<DeltaFile>> {
        let known = self.new.artifact.deltas.iter().find(|delta| delta.from == self.from());
        if let Some(known) = known
            && self.others.is_empty()
        {
            // It was checked when it was made.
            return Ok(Some(known.clone()));
        }
        let result = self.make_or_check(known, files, added);
        self.newest.discard(self.old);
        result
    }

    fn make_or_check(
        &self,
        known: Option<&DeltaFile>,
        files: &NewFiles<'_>,
        added: &mut Added,
    ) -> Result<Option<DeltaFile>> {
        let (updaters, old) = match (self.sources(&mut added.lines), known) {
            (Ok(Some(sources)), _) => sources,
            (Ok(None), _) => return Ok(None),
            (Err(error), Some(known)) => {
                let from = self.describe();
                let line = format!("{from}: the published delta was not tested again: {error:#}");
                added.lines.push(line);
                return Ok(Some(known.clone()));
            }
            (Err(error), None) => return Err(error),
        };
        added.is_expected = self.old.role == Role::Initrd;
        let (delta, path) = match known {
            Some(known) => (known.clone(), (files.path)(known.file())?),
            None => self.make(&old, updaters.is_empty(), files.deltas)?,
        };
        let check = |updater: &&Updater| updater.check(&delta, &path, &old, self.new.artifact);
        let checked = updaters.iter().try_for_each(check);
        if checked.is_err() && known.is_none() {
            fs::remove_file(&path)?;
        }
        checked.map(|()| Some(delta))
    }

    /// Returns the updaters and the old file; `None` if no host would use a delta.
    fn sources(&self, lines: &mut Vec<String>) -> Result<Option<(Vec<&'a Updater>, PathBuf)>> {
        let Some(updaters) = self.updaters(lines)? else { return Ok(None) };
        Ok(Some((updaters, self.newest.file(self.old)?)))
    }

    /// Returns the updaters that have to apply the delta, each of them once. There are none if this machine cannot
    /// run them. Returns `None` if no host with one of the releases would use a delta.
    ///
    /// # Errors
    /// Fails if no updater can be obtained.
    fn updaters(&self, lines: &mut Vec<String>) -> Result<Option<Vec<&'a Updater>>> {
        let mut updaters: Vec<&Updater> = Vec::new();
        let mut is_used = false;
        let mut errors = Vec::new();
        for earlier in self.releases() {
            let updater = match earlier.updater() {
                Ok(updater) => updater,
                Err(error) => {
                    errors.push((earlier.release.build, error));
                    continue;
                }
            };
            is_used |= updater.is_none_or(|updater| updater.supports_deltas);
            let is_new = |updater: &&Updater| {
                updater.supports_deltas && updaters.iter().all(|it| it.sha256 != updater.sha256)
            };
            updaters.extend(updater.filter(is_new));
        }
        if errors.len() == 1 + self.others.len()
            && let Some((_, error)) = errors.pop()
        {
            return Err(error);
        }
        let from = self.describe();
        let line = |(build, error): (u64, Error)| {
            format!("{from}: not tested with the updater of build {build}: {error:#}")
        };
        lines.extend(errors.into_iter().map(line));
        Ok(is_used.then_some(updaters))
    }

    /// Makes the delta, and applies it if `must_apply` is set. Returns it with its path.
    fn make(&self, old: &Path, must_apply: bool, directory: &Path) -> Result<(DeltaFile, PathBuf)> {
        let NewArtifact { artifact, bytes: new, file } = self.new;
        let old = fs::read(old).context("reading the old file")?;
        let made = MadeDelta::between(&old, file)?;
        let (size, memory) = (made.bytes.len() as u64, made.memory);
        let max = artifact.size / DIVISOR;
        ensure!(
            size < max,
            "the delta has {size} bytes, expected fewer than {max}, half of the file"
        );
        ensure!(
            artifact.role != Role::Initrd || memory <= INITRD_MEMORY,
            "applying it takes {memory} bytes of memory, which must be at most {INITRD_MEMORY}"
        );
        if must_apply {
            made.check(&old, new)?;
        }
        let sha256 = digest::of_bytes(&made.bytes);
        let name = format!("{}.{}.delta", artifact.name, &sha256[..DIGITS]);
        let path = directory.join(&name);
        fs::write(&path, made.bytes).with_context(|| format!("writing {}", path.display()))?;
        let delta = DeltaFile {
            from: self.from().to_owned(),
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
