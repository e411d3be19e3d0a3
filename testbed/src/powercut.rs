//! Power cuts at every moment of an update: its writes are recorded once, and every state that a cut
//! could have left is judged; see [`crate::replay`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use protocol::esp::Slot;

use crate::bench::{self, Bench};
use crate::derived::Changes;
use crate::firmware::Firmware;
use crate::report::{Event, Report, Step};
use crate::scenario::{self, Failure, Options, Outcome, ScenarioError, Steps};
use crate::updates::{Host, Offers};

/// What besides [`Options`] a run needs to know.
#[derive(Debug, Clone)]
pub struct PowerCut {
    /// What boots the disk.
    pub firmware: Firmware,
    /// Whether the host goes back by hand between the updates.
    pub rollback: bool,
    /// Where the recording and the image from before it are kept, if they are.
    pub keep_recording: Option<PathBuf>,
    /// Where the crash in the middle of an update is, in thousandths of what it writes.
    pub crash_at: u64,
}

/// Records the writes of updates, and judges what a power cut could have left of them.
pub fn run(
    options: &Options,
    cut: &PowerCut,
    events: &dyn Fn(Event<'_>),
) -> Result<((), Report), Box<Failure>> {
    scenario::run(options, events, |steps, say| play(options, cut, steps, say))
}

fn play(
    options: &Options,
    cut: &PowerCut,
    steps: &mut Steps<'_>,
    say: &dyn Fn(&str),
) -> Result<(), ScenarioError> {
    let artifacts = steps.run(Step::VerifyArtifacts, || bench::verify(options))?;
    let work = Bench::folders(options)?;
    let changes = [Changes::default(), Changes::default()];
    let offers = steps.run(Step::DeriveReleases, || Offers::make(&artifacts, &changes, &work))?;
    let bench =
        steps.run(Step::PrepareBench, || offers.bench(options, &artifacts, work, say))?;
    steps.report.accel = Some(bench.accel.clone());
    let recording = record(cut, &bench, &offers, steps)?;
    if let Some(dir) = &cut.keep_recording {
        keep(&recording, dir)?;
    }
    Ok(())
}

/// The writes of a scenario.
struct Recording {
    log: PathBuf,
    /// How long the log was at the end of each step.
    ends: Vec<(Step, u64)>,
}

/// Two updates with a way back and a crash between them, all in one VM and one log.
fn record(
    cut: &PowerCut,
    bench: &Bench<'_>,
    offers: &Offers,
    steps: &mut Steps<'_>,
) -> Result<Recording, ScenarioError> {
    let mut recording = Recording::new(bench.work.path().join("writes.log"))?;
    let boot = || Ok((Host::boot(bench, "powercut", cut.firmware, Some(&recording.log))?, cut.firmware.to_string()));
    let mut host = steps.run(Step::Boot, boot)?;
    recording.ends(Step::Boot)?;

    let first = offers.publish(0)?.build;
    steps.run(Step::Update, || {
        host.update(Slot::B, first)?;
        Ok(((), offers.fetched(0, bench)?))
    })?;
    recording.ends(Step::Update)?;

    let mut spare = Slot::A;
    if cut.rollback {
        steps.run(Step::RollBack, || Ok((host.roll_back(Slot::A, 0)?, String::new())))?;
        recording.ends(Step::RollBack)?;
        spare = Slot::B;
    }

    let second = offers.publish(1)?.build;
    let bytes = offers.size(1) / 1000 * cut.crash_at;
    steps.run(Step::CrashUpdate, || {
        host.start_update()?;
        host.reset_after(bytes)?;
        Ok(((), format!("after {} MiB", bytes >> 20)))
    })?;
    recording.ends(Step::CrashUpdate)?;

    steps.run(Step::UpdateAfterCrash, || {
        host.update(spare, second)?;
        Ok(((), offers.fetched(1, bench)?))
    })?;
    recording.ends(Step::UpdateAfterCrash)?;
    steps.run(Step::PowerOff, || Ok(((), host.guest.power_off()?.to_owned())))?;
    recording.ends(Step::PowerOff)?;
    Ok(recording)
}

impl Recording {
    fn new(log: PathBuf) -> Result<Self, ScenarioError> {
        // QEMU opens it and does not make it.
        File::create_new(&log).map_err(failed("make", &log))?;
        Ok(Self { log, ends: Vec::new() })
    }

    fn ends(&mut self, step: Step) -> Result<(), ScenarioError> {
        let length = fs::metadata(&self.log).map_err(failed("look at", &self.log))?.len();
        self.ends.push((step, length));
        Ok(())
    }
}

fn keep(recording: &Recording, dir: &Path) -> Result<(), ScenarioError> {
    fs::create_dir_all(dir).map_err(failed("make the folder", dir))?;
    let to = dir.join("writes.log");
    fs::copy(&recording.log, &to).map_err(failed("write", &to))?;
    let ends: String =
        recording.ends.iter().map(|(step, end)| format!("{end} {step}\n")).collect();
    let to = dir.join("writes.steps");
    fs::write(&to, ends).map_err(failed("write", &to))?;
    Ok(())
}

fn failed(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> ScenarioError + use<> {
    let path = path.to_owned();
    move |source| ScenarioError::File { doing, path, source }
}
