//! Replays the recorded writes of a disk and judges the states that a power cut could have left.
//!
//! [`log`] reads the recording, [`states`] searches the states and applies each one to a model of the
//! disk, [`crate::inspect`] judges it, [`crosscheck`] compares the FAT reader with mtools, and
//! [`tally`] counts the results.

pub(crate) mod crosscheck;
pub(crate) mod data;
pub(crate) mod log;
pub(crate) mod phases;
pub(crate) mod states;
pub(crate) mod tally;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol::KeyRing;

use self::crosscheck::{Crosscheck, CrosscheckError};
use self::data::DataJudge;
use self::log::LogError;
use self::phases::phases;
use self::states::{Search, State};
use self::tally::Tally;
use crate::cancel::Cancel;
use crate::inspect::disk::{Contents, Model, SECTOR, find_esp};
use crate::inspect::fat::FatError;
use crate::inspect::judge::{Judge, Verdict};

/// A failed replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The recording is invalid.
    #[error("cannot use the recording {}: {source}", path.display())]
    Log {
        /// The recording.
        path: PathBuf,
        /// The problem.
        source: LogError,
    },
    /// The disk has no EFI system partition.
    #[error("{} has no GPT with an EFI system partition", .0.display())]
    NoEsp(PathBuf),
    /// The file system is invalid.
    #[error("cannot read the file system of {}: {source}", path.display())]
    Fat {
        /// The disk.
        path: PathBuf,
        /// The problem.
        source: FatError,
    },
    /// The base disk does not boot.
    #[error("{} does not boot before the first recorded write: {problem}", path.display())]
    Base {
        /// The disk.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// The recording does not belong to the disk.
    #[error(
        "the recorded writes do not result in {}: sector {sector} differs; check that the disk was written only while it was recorded",
        path.display()
    )]
    End {
        /// The disk at the end of the recording.
        path: PathBuf,
        /// The first sector that differs.
        sector: u64,
    },
    /// The FAT reader and mtools disagree.
    #[error(transparent)]
    Crosscheck(#[from] CrosscheckError),
    /// A stop was requested.
    #[error("stopped while judging crash states")]
    Cancelled,
}

/// The input of a replay.
#[derive(Debug, Clone)]
pub(crate) struct Job<'a> {
    /// The disk before the first write.
    pub base: &'a Path,
    /// The free space that was added to the end of the disk, in bytes. If there is any, the recording makes a data
    /// partition, and each state must have a valid partition table.
    pub room: u64,
    /// The recording.
    pub log: &'a Path,
    /// The disk after the last write, to compare with.
    pub end: Option<&'a Path>,
    /// The names of the phases, each with the length of the log at its end.
    pub phases: &'a [(String, u64)],
    /// The keys that may have signed a bootable release.
    pub keys: &'a KeyRing,
    /// How to search.
    pub search: &'a SearchOptions,
    /// Stops the replay.
    pub cancel: &'a Cancel,
}

/// How to search for bad states.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SearchOptions {
    /// Judge at least this many states
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub states: usize,
    /// Seed for tears and subsets, to repeat a run
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Compare this many of the states with what mtools reads
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub crosschecks: usize,
    /// Check the data partition of this many of the states with fsck.ext4
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub data_checks: usize,
    /// Write the disk of the first bad state to this directory
    #[arg(long, value_name = "DIR")]
    pub keep_bad: Option<PathBuf>,
}

/// Replays a recording and judges every state.
///
/// # Errors
/// Fails if the recording or the disk cannot be read, if the base disk does not boot, if mtools
/// disagrees with the FAT reader, or if the recording does not lead to `job.end`.
pub(crate) fn replay(job: &Job<'_>) -> Result<Tally, ReplayError> {
    let start = Instant::now();
    let mut model = Model::load(job.base, Contents::default()).map_err(file("read", job.base))?;
    model.extend(job.room / SECTOR as u64);
    let entries = self::log::read(job.log, model.len(), model.contents())
        .map_err(|source| ReplayError::Log { path: job.log.into(), source })?;
    let esp = find_esp(&model).map_err(file("read", job.base))?;
    let (esp, esp_sectors) = esp.ok_or_else(|| ReplayError::NoEsp(job.base.into()))?;
    let mut judge = Judge::new(job.keys.clone(), esp);
    let unreadable = |source| ReplayError::Fat { path: job.base.into(), source };
    judge.remember_loader(&model).map_err(unreadable)?;
    let phases = phases(job.phases, &entries, &model, esp).map_err(unreadable)?;
    if let Verdict::Bad(problem) = judge.judge(&model) {
        return Err(ReplayError::Base { path: job.base.into(), problem });
    }
    let log_bytes = fs::metadata(job.log).map_err(file("get the size of", job.log))?.len();
    let mut tally = Tally::new(&entries, phases, log_bytes, job.search.seed);
    let SearchOptions { crosschecks, states, .. } = *job.search;
    let mut crosscheck = Crosscheck::new(crosschecks, states, esp..esp + esp_sectors)?;
    let checks = if job.room > 0 { job.search.data_checks } else { 0 };
    let mut data = DataJudge::new(esp, checks).map_err(file("check the states of", job.base))?;

    Search::new(&mut model, &entries, job.search.seed).run(states, |model, state| {
        if job.cancel.is_cancelled() {
            return Err(ReplayError::Cancelled);
        }
        let verdict = match job.room {
            0 => Ok(()),
            _ => data.judge(model).map_err(file("check a state of", job.base))?,
        };
        let verdict = verdict.map_or_else(Verdict::Bad, |()| judge.judge(model));
        crosscheck.visit(model)?;
        if let (Verdict::Bad(_), 0, Some(dir)) = (&verdict, tally.bad(), &job.search.keep_bad) {
            keep(model, state, dir)?;
        }
        tally.add(state, &verdict);
        Ok(())
    })?;
    tally.crosschecked = crosscheck.done();
    tally.data_checked = data.done();
    if let Some(path) = job.end {
        check_end(&mut model, path)?;
    }
    tally.seconds = start.elapsed().as_secs_f64();
    Ok(tally)
}

/// Checks that the recorded writes turn the base into the final disk: a difference means that the
/// recording lacks a write.
fn check_end(model: &mut Model, path: &Path) -> Result<(), ReplayError> {
    match model.first_difference(path).map_err(file("read", path))? {
        Some(sector) => Err(ReplayError::End { path: path.into(), sector }),
        None => Ok(()),
    }
}

/// Writes the disk of a bad state and the description of the state to `dir`.
fn keep(model: &Model, state: &State<'_>, dir: &Path) -> Result<(), ReplayError> {
    fs::create_dir_all(dir).map_err(file("create the directory", dir))?;
    let path = dir.join("bad.raw");
    let _ = fs::remove_file(&path);
    model.save(0..model.len(), &path).map_err(file("write", &path))?;
    let path = dir.join("bad.txt");
    fs::write(&path, format!("{state}\n")).map_err(file("write", &path))
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReplayError + use<> {
    let path = path.to_owned();
    move |source| ReplayError::File { doing, path, source }
}
