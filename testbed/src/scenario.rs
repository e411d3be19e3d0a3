//! The common parts of scenarios: options, timed steps, and failures.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use protocol::{KeyRing, Role, Target};

use crate::accel::{ForeignKvm, Preference};
use crate::artifacts::ArtifactError;
use crate::cancel::Cancel;
use crate::derived::DeriveError;
use crate::disk::CopyError;
use crate::firmware::Firmware;
use crate::guest::{Guest, GuestError};
use crate::host::Missing;
use crate::replay::ReplayError;
use crate::report::{CompletedStep, Event, Report, Step};
use crate::sector_size::SectorSize;
use crate::work::WorkError;

/// The options of a scenario.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory with the manifest and the artifacts.
    pub artifacts: PathBuf,
    /// The directory with the manifest and the disk image of the release that is published already.
    /// The full update cycle updates it to the release under test.
    pub previous: Option<PathBuf>,
    /// The target of the artifacts.
    pub target: Target,
    /// The keys that may have signed the manifest.
    pub keys: KeyRing,
    /// A private directory for disk copies and sockets, with room for one disk image.
    pub work: PathBuf,
    /// The directory for logs. Logs of an earlier run are replaced.
    pub logs: PathBuf,
    /// The accelerator.
    pub accel: Preference,
    /// Memory of the VM in MiB.
    pub memory: u32,
    /// Virtual processors; by default [`Accel::cpus`](crate::accel::Accel::cpus).
    pub cpus: Option<u32>,
    /// The sectors of the disk. Each size has a disk image of its own.
    pub sector_size: SectorSize,
    /// The version that `etchaos-updater --version` must print.
    pub updater_version: String,
    /// Whether the published release must get the initrd of the release under test by a delta.
    pub must_patch: bool,
    /// Stops the scenario.
    pub cancel: Cancel,
}

impl Options {
    /// The default memory of a VM in MiB.
    pub const MEMORY: u32 = 2048;
    /// The version of this workspace, which the updater shares.
    pub const UPDATER_VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Returns the reason why no machine boots with this firmware, or `None` if machines do.
    pub(crate) fn missing(&self, firmware: Firmware) -> Option<String> {
        firmware.missing_on(self.target.arch, self.sector_size)
    }
}

/// The cause of a failed scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Programs or firmware are not installed.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The requested accelerator cannot run the target.
    #[error(transparent)]
    Accel(#[from] ForeignKvm),
    /// The release cannot be tested.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// A derived release could not be created.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// The directory of the run could not be created.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The disk could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The CDN could not be started.
    #[error("cannot serve the artifacts on the loopback: {0}")]
    Cdn(io::Error),
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// The operation.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The guest failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The guest was updated without a download from the CDN.
    #[error(
        "the guest reports an update, but did not download {missing} from the CDN; requests to the CDN: {requests}"
    )]
    NotFetched {
        /// The path that was not downloaded.
        missing: String,
        /// All requests to the CDN.
        requests: String,
    },
    /// The guest downloaded a whole file without need.
    #[error(
        "the guest downloaded the whole {role} ({path}), but it could have copied the file from its other slot, or made it from a delta; its journal says why it did not; requests to the CDN: {requests}"
    )]
    NotPatched {
        /// The role of the file.
        role: Role,
        /// The path that was downloaded.
        path: String,
        /// All requests to the CDN.
        requests: String,
    },
    /// The manifest has no delta that the guest could have used.
    #[error(
        "the guest downloaded the whole {role}: the manifest names no delta from its release, although the updater of that release supports deltas; the log of the stage \"package\" says why none was made; to build without deltas, use --deltas 0"
    )]
    NoDelta {
        /// The role of the file.
        role: Role,
    },
    /// The guest did not boot from the HTTP server.
    #[error("the guest did not boot by HTTP; requests to the server: {requests}; {source}")]
    HttpBoot {
        /// All requests to the server.
        requests: String,
        /// The cause.
        source: Box<GuestError>,
    },
    /// The guest was booted, but not from the HTTP server.
    #[error(
        "the guest booted, but did not load its initrd from the HTTP server; requests to the server: {0}"
    )]
    NotBootedByHttp(String),
    /// The recording could not be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The disk is not in the expected state.
    #[error("expected on the disk: {expected}; found: {found}")]
    Disk {
        /// The expected state.
        expected: String,
        /// The state that was found.
        found: String,
    },
}

/// A failed scenario: the step, the cause, and the steps that succeeded.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// The cause.
    pub source: ScenarioError,
    /// The steps that succeeded before it.
    pub report: Report,
}

/// The result of a step: its value, and a note for the table.
pub(crate) type Outcome<T> = Result<(T, String), ScenarioError>;

/// Runs a scenario. `play` receives the runner for its steps.
pub(crate) fn run<T>(
    options: &Options,
    events: &dyn Fn(Event<'_>),
    play: impl FnOnce(&mut Steps<'_>) -> Result<T, ScenarioError>,
) -> Result<(T, Report), Box<Failure>> {
    let step = Cell::new(Step::VERIFY_ARTIFACTS);
    let progress = |line: &str| events(Event::Progress(step.get(), line));
    let report = Report { logs: options.logs.clone(), ..Report::default() };
    let mut steps = Steps { options, events, progress: &progress, step: &step, report };
    match play(&mut steps) {
        Ok(value) => Ok((value, steps.report)),
        Err(source) => Err(Box::new(Failure { step: step.get(), source, report: steps.report })),
    }
}

/// Runs and times steps, and emits events for them.
pub(crate) struct Steps<'a> {
    /// The options of the scenario.
    pub options: &'a Options,
    /// Reports progress within the current step.
    pub progress: &'a dyn Fn(&str),
    events: &'a dyn Fn(Event<'_>),
    step: &'a Cell<Step>,
    /// The steps that succeeded so far.
    pub report: Report,
}

impl Steps<'_> {
    /// Reports that the part of the scenario that begins with `step` is skipped, and why.
    pub(crate) fn skip(&mut self, step: Step, reason: &str) {
        self.report.skipped.push(format!("{step}: {reason}"));
    }

    /// Runs one step.
    pub(crate) fn run<T>(
        &mut self,
        step: Step,
        action: impl FnOnce() -> Outcome<T>,
    ) -> Result<T, ScenarioError> {
        self.step.set(step);
        (self.events)(Event::Started(step));
        let start = Instant::now();
        let (value, note) = action()?;
        let took = start.elapsed();
        self.report.steps.push(CompletedStep { step, took, note });
        (self.events)(Event::Finished(step, took));
        Ok(value)
    }

    /// Runs the step that powers a guest off.
    pub(crate) fn power_off(&mut self, guest: Guest<'_>) -> Result<(), ScenarioError> {
        self.run(Step::POWER_OFF, || Ok(((), guest.power_off()?.to_owned())))
    }
}
