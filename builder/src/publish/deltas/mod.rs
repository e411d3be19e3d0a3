//! Adds deltas to a release: patches from releases that hosts have. `docs/delta.md` describes them.
//!
//! [`job`] makes one delta, [`earlier`] has the files of a release that hosts have, and [`updater`] applies deltas
//! as these hosts do.

mod earlier;
mod job;
#[cfg(test)]
mod tests;
mod updater;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::release::{DeltaFile, PublishedFile};
use protocol::{Artifact, Release};

use self::earlier::Earlier;
use self::job::{Job, New};
use crate::delta::NewFile;
use crate::destination::Location;
use crate::memory;
use crate::published::in_parallel_on;

/// The number of deltas that are made at the same time. Each takes about one processor.
const THREADS: usize = 2;
/// The memory that making and applying the delta of a kernel takes, in bytes.
pub(crate) const DELTA_MEMORY: u64 = 1536 << 20;

/// The releases that deltas are made from.
pub(crate) struct Predecessors<'a> {
    /// Where their files are.
    pub location: &'a dyn Location,
    /// The releases, the newest first.
    pub releases: Vec<Release>,
}

impl fmt::Debug for Predecessors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Predecessors");
        debug.field("location", &self.location.describe());
        debug.field("releases", &self.releases).finish()
    }
}

/// The files of the new release.
pub(crate) struct NewFiles<'a> {
    /// Returns the path of a file.
    pub path: &'a (dyn Fn(PublishedFile<'_>) -> Result<PathBuf> + Sync),
    /// The directory for the deltas that are made.
    pub deltas: &'a Path,
}

/// Gives a release the deltas from its predecessors, and returns a line about each for the summary. A delta that
/// the release has already is not made again. A delta that cannot be made is only a line, because hosts can download
/// the whole file.
pub(crate) fn add(
    predecessors: &Predecessors<'_>,
    release: &mut Release,
    files: &NewFiles<'_>,
) -> Vec<String> {
    let made = make(predecessors, release, files).unwrap_or_else(|error| Made {
        deltas: Vec::new(),
        lines: vec![format!("files: none: {error:#}")],
    });
    for artifact in &mut release.artifacts {
        let own = made.deltas.iter().filter(|(sha256, _)| *sha256 == artifact.sha256);
        artifact.deltas = own.map(|(_, delta)| delta.clone()).collect();
    }
    made.lines
}

/// The deltas, each with the SHA-256 of the file that it gives, and the lines for the summary.
struct Made {
    deltas: Vec<(String, DeltaFile)>,
    lines: Vec<String>,
}

fn make(predecessors: &Predecessors<'_>, release: &Release, files: &NewFiles<'_>) -> Result<Made> {
    let directory = tempfile::tempdir().context("creating a temporary directory")?;
    let Predecessors { location, releases } = predecessors;
    let earlier = releases.iter().map(|it| Earlier::new(*location, it, directory.path()));
    let earlier: Vec<Earlier<'_>> = earlier.collect::<Result<_>>()?;
    let is_patched = |new: &&Artifact| earlier.iter().any(|it| it.patched(new).is_some());
    let mut contents = Vec::new();
    for artifact in release.boot_artifacts().filter(is_patched) {
        contents.push((artifact, read(artifact, files)?));
    }
    let mut new = Vec::new();
    for (artifact, bytes) in &contents {
        let file = NewFile::of(bytes).with_context(|| format!("reading the {}", artifact.role))?;
        new.push(New { artifact, bytes, file });
    }
    let jobs = Job::all(&earlier, &new);
    let results = in_parallel_on(threads(), &jobs, |job| Ok(job.run(files)))?;
    let mut made = Made { deltas: Vec::new(), lines: Vec::new() };
    for (job, result) in jobs.iter().zip(results) {
        made.lines.push(job.describe(&result));
        made.deltas.extend(result.ok().map(|delta| (job.target().to_owned(), delta)));
    }
    Ok(made)
}

/// Reads a new file.
fn read(artifact: &Artifact, files: &NewFiles<'_>) -> Result<Vec<u8>> {
    let Artifact { name, size, sha256, url, .. } = artifact;
    let path = (files.path)(PublishedFile { name, size: *size, sha256, url })?;
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// Returns the number of threads that have enough memory.
fn threads() -> usize {
    let fit = memory::available().map_or(1, |available| available / DELTA_MEMORY);
    THREADS.min(usize::try_from(fit).unwrap_or(THREADS)).max(1)
}
