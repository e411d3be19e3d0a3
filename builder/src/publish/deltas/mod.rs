//! Adds to a release the deltas from releases that hosts have. `docs/delta.md` describes them.
//!
//! [`job`] makes one delta, [`earlier`] has the files of a release that hosts have, and [`updater`] applies deltas
//! as these hosts do, with the program in that release, which [`confined`] runs.

mod confined;
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
use protocol::{Arch, Artifact, Release, Role};

use self::earlier::Earlier;
use self::job::{Job, NewArtifact};
use crate::delta::{BlockCounts, NewFile};
use crate::destination::Location;
use crate::memory;
use crate::progress::message;
use crate::published::in_parallel_on;

/// The maximum number of releases that deltas are made from. Each takes about a minute, and the size of a manifest is
/// limited.
const RELEASES_MAX: usize = 20;
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
    /// The directory for temporary files. Programs in it can be started.
    pub work: &'a Path,
}

/// What [`add`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Added {
    /// What became of each delta, for the summary.
    pub lines: Vec<String>,
    /// Whether there must be a delta of the initrd: the updater of a predecessor supports deltas, its initrd could
    /// be read, and zstd gives the bytes of the new one.
    pub is_expected: bool,
}

/// Gives a release the deltas from its predecessors. A delta that the release has already is not made again, and is
/// removed only if an updater cannot apply it. A delta that cannot be made is no error, only a line of the summary,
/// because hosts can download the whole file.
pub(crate) fn add(
    predecessors: &Predecessors<'_>,
    release: &mut Release,
    files: &NewFiles<'_>,
    progress: &(dyn Fn(&str) + Sync),
) -> Added {
    let mut added = Added::default();
    let checked = make(predecessors, release, files, progress, &mut added);
    let checked = checked.unwrap_or_else(|error| {
        added.lines.push(format!("no deltas: {error:#}"));
        Vec::new()
    });
    for Checked { from, to, delta } in checked {
        for artifact in release.artifacts.iter_mut().filter(|artifact| artifact.sha256 == to) {
            artifact.deltas.retain(|known| known.from != from);
            artifact.deltas.extend(delta.clone());
        }
    }
    added
}

/// The delta between two files, which are given by their SHA-256; without a delta if there is none that the
/// updaters can apply.
struct Checked {
    from: String,
    to: String,
    delta: Option<DeltaFile>,
}

fn make(
    predecessors: &Predecessors<'_>,
    release: &Release,
    files: &NewFiles<'_>,
    progress: &(dyn Fn(&str) + Sync),
    added: &mut Added,
) -> Result<Vec<Checked>> {
    let directory = tempfile::tempdir_in(files.work).context("creating a temporary directory")?;
    let Predecessors { location, releases } = predecessors;
    let (releases, rest) = releases.split_at(releases.len().min(RELEASES_MAX));
    if !rest.is_empty() {
        let count = rest.len();
        added.lines.push(format!(
            "no deltas from {count} older releases: deltas are made from at most {RELEASES_MAX} releases"
        ));
    }
    let earlier = releases.iter().map(|it| Earlier::new(*location, it, directory.path()));
    let earlier: Vec<Earlier<'_>> = earlier.collect::<Result<_>>()?;
    let is_patched = |new: &&Artifact| earlier.iter().any(|it| it.patched(new).is_some());
    let mut contents = Vec::new();
    for artifact in release.boot_artifacts().filter(is_patched) {
        contents.push((artifact, read(artifact, files)?));
    }
    let new = new_artifacts(&contents)?;
    let jobs = Job::all(&earlier, &new);
    if !jobs.is_empty() && Arch::native() == Some(release.arch) {
        warn_if_not_confined();
    }
    let results = in_parallel_on(threads(), &jobs, |job| {
        progress(&job.describe());
        let mut added = Added::default();
        let result = job.run(files, &mut added);
        Ok((result, added))
    })?;
    Ok(collect(&jobs, results, &new, added))
}

/// Parses the new files from their contents, and compresses the blocks of the initrd.
fn new_artifacts<'a>(contents: &'a [(&'a Artifact, Vec<u8>)]) -> Result<Vec<NewArtifact<'a>>> {
    let mut new = Vec::new();
    for (artifact, bytes) in contents {
        let file = NewFile::of(bytes).with_context(|| format!("reading the {}", artifact.role))?;
        // All of its blocks are counted, also those that a delta copies. A kernel is one block.
        if artifact.role == Role::Initrd {
            file.compress_all().context("compressing the initrd again")?;
        }
        new.push(NewArtifact { artifact, bytes, file });
    }
    Ok(new)
}

/// The delta that a job has made or checked, or why there is none, and what it adds to the summary.
type JobResult = (Result<Option<DeltaFile>>, Added);

/// Adds the results of all jobs to `added`, and returns the deltas.
fn collect(
    jobs: &[Job<'_>],
    results: Vec<JobResult>,
    new: &[NewArtifact<'_>],
    added: &mut Added,
) -> Vec<Checked> {
    let mut checked = Vec::new();
    for (job, (result, Added { lines, is_expected })) in jobs.iter().zip(results) {
        added.lines.push(job.describe_result(&result));
        added.lines.extend(lines);
        added.is_expected |= is_expected;
        let (from, to) = (job.from().to_owned(), job.to().to_owned());
        checked.push(Checked { from, to, delta: result.ok().flatten() });
    }
    for NewArtifact { artifact, file, .. } in new {
        let BlockCounts { compressed, not_reproduced: other } = file.block_counts();
        if other > 0 {
            let role = artifact.role;
            added.lines.push(format!(
                "{role}: zstd does not reproduce {other} of {compressed} blocks, so deltas contain these whole"
            ));
            added.is_expected &= role != Role::Initrd;
        }
    }
    checked
}

fn warn_if_not_confined() {
    if let Some(problem) = confined::problem() {
        message(&format!(
            "warning: this machine cannot run the updaters of earlier releases as unprivileged processes \
             ({problem}); the builder applies the deltas itself"
        ));
    }
}

/// Reads a new file.
fn read(artifact: &Artifact, files: &NewFiles<'_>) -> Result<Vec<u8>> {
    let path = (files.path)(artifact.file())?;
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// Returns the number of threads that have enough memory.
fn threads() -> usize {
    let fit = memory::available().map_or(1, |available| available / DELTA_MEMORY);
    THREADS.min(usize::try_from(fit).unwrap_or(THREADS)).max(1)
}
