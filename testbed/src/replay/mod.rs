//! Power cuts without a machine: the recorded writes of a disk are replayed, and what a cut could
//! have left of them is judged.
//!
//! [`log`] reads the recording, [`disk`] is the model that goes through the states which [`states`]
//! finds, [`fat`] reads each of them, [`grub`] says what GRUB would do, [`judge`] whether that is
//! well. None of them shares code with what wrote the disk, but for the verification of a manifest.

pub mod crosscheck;
pub mod disk;
pub mod fat;
pub mod grub;
pub mod judge;
pub mod log;
pub mod phases;
pub mod states;
pub mod tally;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol::KeyRing;

use self::crosscheck::{Crosscheck, CrosscheckError};
use self::disk::{Contents, Model, find_esp};
use self::fat::FatError;
use self::judge::{Judge, Verdict};
use self::log::LogError;
use self::phases::phases;
use self::states::{Search, State};
use self::tally::Tally;
use crate::guest::Cancel;

/// A replay that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The recording.
    #[error("the recording {}: {source}", path.display())]
    Log {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: LogError,
    },
    /// No EFI system partition.
    #[error("{}: there is no GPT with an EFI system partition", .0.display())]
    NoEsp(PathBuf),
    /// The file system.
    #[error("{}: {source}", path.display())]
    Fat {
        /// On which disk.
        path: PathBuf,
        /// What is wrong.
        source: FatError,
    },
    /// The disk to begin with would not boot.
    #[error("{} would not boot before anything is written to it: {why}", path.display())]
    Base {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The recording is not that of the disk.
    #[error(
        "the recording does not lead to {}: sector {sector} is another one; was the disk written past it?",
        path.display()
    )]
    End {
        /// The disk as the guest left it.
        path: PathBuf,
        /// The first sector that differs.
        sector: u64,
    },
    /// Another reader sees something else.
    #[error(transparent)]
    Crosscheck(#[from] CrosscheckError),
    /// Somebody asked to stop.
    #[error("stopped while judging crash states")]
    Cancelled,
}

/// What is replayed, and how.
#[derive(Debug, Clone)]
pub struct Job<'a> {
    /// The disk before the first write.
    pub base: &'a Path,
    /// The recording.
    pub log: &'a Path,
    /// The disk after the last write, if it is there to compare.
    pub end: Option<&'a Path>,
    /// Names of parts of the recording, each with the length of the log at its end.
    pub phases: &'a [(String, u64)],
    /// Who may have signed what boots.
    pub keys: &'a KeyRing,
    /// How hard is looked.
    pub effort: &'a Effort,
    /// How to stop it from outside.
    pub cancel: &'a Cancel,
}

/// How hard is looked, and what is kept of it.
#[derive(Debug, Clone)]
pub struct Effort {
    /// How many states there shall be at least.
    pub states: usize,
    /// What decides by which tears and subsets.
    pub seed: u64,
    /// How many states are read by other readers, too.
    pub crosschecks: usize,
    /// Where the image of the first bad state goes, if it is to be kept.
    pub keep_bad: Option<PathBuf>,
}

/// Replays a recording and judges every state.
pub fn replay(job: &Job<'_>) -> Result<Tally, ReplayError> {
    let start = Instant::now();
    let mut model = Model::load(job.base, Contents::default()).map_err(file("read", job.base))?;
    let entries = self::log::read(job.log, model.len(), model.contents())
        .map_err(|source| ReplayError::Log { path: job.log.into(), source })?;
    let esp = find_esp(&model).map_err(file("read", job.base))?;
    let (esp, esp_sectors) = esp.ok_or_else(|| ReplayError::NoEsp(job.base.into()))?;
    let mut judge = Judge::new(job.keys.clone(), esp);
    let unreadable = |source| ReplayError::Fat { path: job.base.into(), source };
    judge.remember_loader(&model).map_err(unreadable)?;
    let phases = phases(job.phases, &entries, &model, esp).map_err(unreadable)?;
    if let Verdict::Bad(why) = judge.judge(&model) {
        return Err(ReplayError::Base { path: job.base.into(), why });
    }
    let log_bytes = fs::metadata(job.log).map_err(file("look at", job.log))?.len();
    let mut tally = Tally::new(&entries, phases, log_bytes, job.effort.seed);
    let Effort { crosschecks, states, .. } = *job.effort;
    let mut crosscheck = Crosscheck::new(crosschecks, states, esp..esp + esp_sectors)?;

    Search::new(&mut model, &entries, job.effort.seed).run(states, |model, state| {
        if job.cancel.is_cancelled() {
            return Err(ReplayError::Cancelled);
        }
        let verdict = judge.judge(model);
        crosscheck.visit(model)?;
        if let (Verdict::Bad(_), 0, Some(dir)) = (&verdict, tally.bad(), &job.effort.keep_bad) {
            keep(model, state, dir)?;
        }
        tally.add(state, &verdict);
        Ok(())
    })?;
    tally.crosschecked = crosscheck.done();
    if let Some(path) = job.end {
        check_end(&mut model, path)?;
    }
    tally.seconds = start.elapsed().as_secs_f64();
    Ok(tally)
}

/// Whether the recorded writes make of the base what the disk is now: else the recording lacks some.
fn check_end(model: &mut Model, path: &Path) -> Result<(), ReplayError> {
    match model.first_difference(path).map_err(file("read", path))? {
        Some(sector) => Err(ReplayError::End { path: path.into(), sector }),
        None => Ok(()),
    }
}

fn keep(model: &Model, state: &State<'_>, dir: &Path) -> Result<(), ReplayError> {
    fs::create_dir_all(dir).map_err(file("make the directory", dir))?;
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
