//! What all scenarios have in common: options, steps that are timed and told about, and failures.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use protocol::{KeyRing, Target};

use crate::accel::Request;
use crate::artifacts::ArtifactError;
use crate::derived::DeriveError;
use crate::disk::CopyError;
use crate::guest::{Cancel, GuestError};
use crate::host::Missing;
use crate::replay::ReplayError;
use crate::report::{Done, Event, Report, Step};
use crate::work::WorkError;

/// What a scenario needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory with the manifest and the artifacts.
    pub artifacts: PathBuf,
    /// What they are for.
    pub target: Target,
    /// Who may have signed the manifest.
    pub keys: KeyRing,
    /// A directory for disk copies and sockets; needs room for one disk image. It may be shared.
    pub work: PathBuf,
    /// A directory for logs; those of an earlier run are replaced.
    pub logs: PathBuf,
    /// The accelerator.
    pub accel: Request,
    /// Memory of the VM in MiB.
    pub memory: u32,
    /// Virtual processors; unless told, as many as the accelerator runs well ([`Accel::cpus`](crate::accel::Accel::cpus)).
    pub cpus: Option<u32>,
    /// What `etchaos-updater --version` must say, without the name.
    pub updater_version: String,
    /// How to stop it from outside.
    pub cancel: Cancel,
}

impl Options {
    /// Memory of a VM in MiB, unless told otherwise.
    pub const MEMORY: u32 = 2048;
    /// The version of this workspace, which the updater shares.
    pub const UPDATER_VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// Why a scenario failed.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Programs or firmware.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The release.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// A release made from it.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The directory of the run.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The copy of the disk.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The CDN.
    #[error("cannot serve the artifacts on the loopback: {0}")]
    Cdn(io::Error),
    /// A file or directory of ours.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The guest has a release again, but not from us.
    #[error(
        "the guest says that it updated, but it did not fetch {missing} from the CDN; the CDN was asked for: {asked}"
    )]
    NotFetched {
        /// The path that was not fetched.
        missing: String,
        /// Everything that was.
        asked: String,
    },
    /// The recording of a disk, or what it shows.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The disk is not in the state in which the scenario wanted it.
    #[error("expected {expected}, but the disk has: {found}")]
    Disk {
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// The step at which a scenario failed, why, and what succeeded before.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// Why.
    pub source: ScenarioError,
    /// The steps before it.
    pub report: Report,
}

/// What a step returns: its value, and a note for the table.
pub type Outcome<T> = Result<(T, String), ScenarioError>;

/// Plays a scenario. `play` gets what runs its steps, and what says a line
/// about the step that is running.
pub fn run<T>(
    options: &Options,
    events: &dyn Fn(Event<'_>),
    play: impl FnOnce(&mut Steps<'_>, &dyn Fn(&str)) -> Result<T, ScenarioError>,
) -> Result<(T, Report), Box<Failure>> {
    let step = Cell::new(Step::VerifyArtifacts);
    let say = |line: &str| events(Event::Progress(step.get(), line));
    let report = Report { logs: options.logs.clone(), ..Report::default() };
    let mut steps = Steps { events, step: &step, report };
    match play(&mut steps, &say) {
        Ok(value) => Ok((value, steps.report)),
        Err(source) => Err(Box::new(Failure { step: step.get(), source, report: steps.report })),
    }
}

/// Runs steps, times them, and tells about them.
pub struct Steps<'a> {
    events: &'a dyn Fn(Event<'_>),
    step: &'a Cell<Step>,
    /// What was done so far.
    pub report: Report,
}

impl Steps<'_> {
    /// Runs one step.
    pub fn run<T>(
        &mut self,
        step: Step,
        action: impl FnOnce() -> Outcome<T>,
    ) -> Result<T, ScenarioError> {
        self.step.set(step);
        (self.events)(Event::Started(step));
        let start = Instant::now();
        let (value, note) = action()?;
        let took = start.elapsed();
        self.report.steps.push(Done { step, took, note });
        (self.events)(Event::Finished(step, took));
        Ok(value)
    }
}
