//! Power cuts at every moment of an update: its writes are recorded once, and every state that a cut
//! could have left is judged; see [`crate::replay`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use protocol::KeyRing;
use protocol::esp::Slot;

use crate::derived::Changes;
use crate::environment::{self, TestEnvironment};
use crate::firmware::Firmware;
use crate::guest::Cancel;
use crate::replay::tally::Tally;
use crate::replay::{Effort, Job, ReplayError, replay};
use crate::report::{Event, Report, Step};
use crate::scenario::{self, Failure, Options, ScenarioError, Steps};
use crate::updates::{Host, Offers};

// What a kept recording consists of.
const LOG: &str = "writes.log";
const PHASES: &str = "phases.json";
const KEYS: &str = "keys.pub";

/// What besides [`Options`] a run needs to know.
#[derive(Debug, Clone)]
pub struct PowerCut {
    /// What boots the disk.
    pub firmware: Firmware,
    /// Whether the host goes back by hand between the updates.
    pub rollback: bool,
    /// When the second update crashes, in thousandths of what it downloads.
    pub crash_at: u64,
    /// Where the recording is kept, if it is; for [`again`].
    pub keep_recording: Option<PathBuf>,
    /// How hard is looked for bad states.
    pub effort: Effort,
}

/// Records the writes of updates, and judges what a power cut could have left of them.
pub fn run(
    options: &Options,
    cut: &PowerCut,
    events: &dyn Fn(Event<'_>),
) -> Result<(Tally, Report), Box<Failure>> {
    scenario::run(options, events, |steps, say| play(options, cut, steps, say))
}

fn play(
    options: &Options,
    cut: &PowerCut,
    steps: &mut Steps<'_>,
    say: &dyn Fn(&str),
) -> Result<Tally, ScenarioError> {
    let artifacts = steps.run(Step::VerifyArtifacts, || environment::verify(options))?;
    let work = TestEnvironment::directories(options)?;
    let changes = [Changes::default(), Changes::default()];
    let offers = steps.run(Step::DeriveReleases, || Offers::make(&artifacts, &changes, &work))?;
    let bench = steps.run(Step::PrepareBench, || offers.bench(options, &artifacts, work, say))?;
    steps.report.accel = Some(bench.accel.clone());
    let recording = record(cut, &bench, &offers, steps)?;
    let keys = offers.keys(options);
    if let Some(dir) = &cut.keep_recording {
        recording.keep(dir, &keys)?;
    }
    steps.run(Step::Replay, || {
        let tally = replay(&Job {
            base: &artifacts.disk,
            log: &recording.log,
            end: Some(&bench.disk),
            phases: &recording.phases,
            keys: &keys,
            effort: &cut.effort,
            cancel: &options.cancel,
        })?;
        let note = format!("{} states, {} BAD", tally.states(), tally.bad());
        Ok((tally, note))
    })
}

/// Judges a recording that was kept earlier, of a disk that was a copy of `base`.
pub fn again(
    dir: &Path,
    base: &Path,
    effort: &Effort,
    cancel: &Cancel,
) -> Result<Tally, ReplayError> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(|source| ReplayError::File {
            doing: "read",
            path,
            source,
        })
    };
    let broken = |name: &str, why: String| ReplayError::File {
        doing: "use",
        path: dir.join(name),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, why),
    };
    let phases: Vec<(String, u64)> =
        serde_json::from_str(&read(PHASES)?).map_err(|error| broken(PHASES, error.to_string()))?;
    let keys = KeyRing::parse(&read(KEYS)?).map_err(|error| broken(KEYS, error.to_string()))?;
    let log = dir.join(LOG);
    replay(&Job { base, log: &log, end: None, phases: &phases, keys: &keys, effort, cancel })
}

/// Two updates with a way back and a crash between them, all in one VM and one log.
fn record(
    cut: &PowerCut,
    bench: &TestEnvironment<'_>,
    offers: &Offers,
    steps: &mut Steps<'_>,
) -> Result<Recording, ScenarioError> {
    let mut recording = Recording::new(bench.work.path().join(LOG))?;
    let mut host = steps.run(Step::Boot, || {
        let host = Host::boot(bench, "powercut", cut.firmware, Some(&recording.log))?;
        Ok((host, cut.firmware.to_string()))
    })?;
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

/// The writes of a scenario.
struct Recording {
    log: PathBuf,
    /// The names of the steps, and how long the log was at the end of each.
    phases: Vec<(String, u64)>,
}

impl Recording {
    fn new(log: PathBuf) -> Result<Self, ScenarioError> {
        // QEMU opens it and does not make it.
        File::create_new(&log).map_err(failed("make", &log))?;
        Ok(Self { log, phases: Vec::new() })
    }

    fn ends(&mut self, step: Step) -> Result<(), ScenarioError> {
        let length = fs::metadata(&self.log).map_err(failed("look at", &self.log))?.len();
        self.phases.push((step.to_string(), length));
        Ok(())
    }

    /// Copies everything that [`again`] needs to a directory.
    fn keep(&self, dir: &Path, keys: &KeyRing) -> Result<(), ScenarioError> {
        fs::create_dir_all(dir).map_err(failed("make the directory", dir))?;
        let to = dir.join(LOG);
        fs::copy(&self.log, &to).map_err(failed("write", &to))?;
        let to = dir.join(PHASES);
        let phases = serde_json::json!(self.phases).to_string();
        fs::write(&to, phases).map_err(failed("write", &to))?;
        let to = dir.join(KEYS);
        let keys = keys.ids().filter_map(|id| Some(format!("{}\n", keys.get(id)?)));
        fs::write(&to, keys.collect::<String>()).map_err(failed("write", &to))
    }
}

fn failed(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> ScenarioError + use<> {
    let path = path.to_owned();
    move |source| ScenarioError::File { doing, path, source }
}
