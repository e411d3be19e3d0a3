//! Power cuts at every moment of an update: the writes are recorded once, and every disk state that a
//! power cut could have left is judged; see [`crate::replay`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use clap::Args;
use protocol::KeyRing;
use protocol::esp::Slot;
use serde_json::json;

use super::interface::Scenario;
use crate::args::{FirmwareArgs, ScenarioArgs};
use crate::artifacts::Artifacts;
use crate::cancel::Cancel;
use crate::derived::Changes;
use crate::disk;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::replay::tally::Tally;
use crate::replay::{Job, ReplayError, SearchOptions, replay};
use crate::report::Step;
use crate::scenario::{ScenarioError, Steps};
use crate::updates::{Host, ReleaseSeries};

// The files of a kept recording.
const LOG: &str = "writes.log";
const PHASES: &str = "phases.json";
const KEYS: &str = "keys.pub";
const ROOM: &str = "room";

/// The free space of the disk behind the image, in bytes, for a data partition.
const DATA_ROOM: u64 = 640 << 20;

const ROLL_BACK: Step = Step::new("roll-back", "roll back, reboot and confirm");
const CRASH_UPDATE: Step = Step::new("crash-update", "update, crash in the middle");
const UPDATE_AFTER_CRASH: Step =
    Step::new("update-after-crash", "update again, reboot and confirm");
const REPLAY: Step = Step::new("replay", "judge crash states");

/// Record every write of updates, and judge the disk states that a power cut could have left
///
/// In one VM: a data partition, an update, a rollback, an update that crashes, and another update. The updates
/// copy the kernel and make the initrd from a delta. Then every prefix of the writes, and subsets of the writes that
/// were not flushed, torn at 512 bytes, must have a valid partition table and boot a complete and verified release,
/// and a finished data partition must pass fsck. The recording needs about 0.4 GiB in the work directory.
#[derive(Debug, Args)]
pub(crate) struct PowerCut {
    /// Options of every scenario
    #[command(flatten)]
    pub(crate) common: ScenarioArgs,
    /// Firmware that boots the disk
    #[command(flatten)]
    pub(crate) firmware: FirmwareArgs,
    /// Skip the rollback, for images whose updater has none
    #[arg(long)]
    without_rollback: bool,
    /// Make no data partition, for images whose updater makes none
    #[arg(long)]
    without_data: bool,
    /// Crash the second update when it has written this many thousandths of its download
    #[arg(long, default_value_t = 600, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..1000))]
    crash_at: u64,
    /// Copy the recording to this directory, for "testbed replay"
    #[arg(long, value_name = "DIR")]
    keep_recording: Option<PathBuf>,
    /// How to search for bad states
    #[command(flatten)]
    search: SearchOptions,
}

impl Scenario for PowerCut {
    type Findings = Tally;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn firmware(&self) -> Option<Firmware> {
        Some(self.firmware.of(&self.common))
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Tally, ScenarioError> {
        let changes = vec![Changes { deltas: true, ..Changes::default() }; 2];
        let (releases, mut environment) = ReleaseSeries::prepare(artifacts, &changes, steps)?;
        let room = if self.without_data { 0 } else { DATA_ROOM };
        if room > 0 {
            environment.configured.insert("data".into(), json!({}));
            environment.enlarge_disk(room)?;
        }
        let recording = record(self, &environment, &releases, steps)?;
        let keys = releases.keys(steps.options);
        if let Some(dir) = &self.keep_recording {
            recording.keep(dir, &keys, room)?;
        }
        let cancel = &steps.options.cancel;
        steps.run(REPLAY, || {
            let base = environment.work.path().join("base.raw");
            disk::copy_sparse(&artifacts.disk, &base)?;
            let tally = replay(&Job {
                base: &base,
                room,
                log: &recording.log,
                end: Some(&environment.disk),
                phases: &recording.phases,
                keys: &keys,
                search: &self.search,
                cancel,
            })?;
            let note = format!("{} states, {} BAD", tally.states(), tally.bad());
            Ok((tally, note))
        })
    }

    fn judge(tally: &Tally) -> Result<(), String> {
        tally.require_no_bad_states()
    }
}

/// Judges the kept recording in `dir` again. `base` is the disk image that was booted for it.
///
/// # Errors
/// Fails if a file of the recording is missing or invalid, or if the replay fails.
pub(crate) fn replay_kept(
    dir: &Path,
    base: &Path,
    search: &SearchOptions,
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
    let invalid = |name: &str, problem: String| ReplayError::File {
        doing: "use",
        path: dir.join(name),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, problem),
    };
    let phases: Vec<(String, u64)> =
        serde_json::from_str(&read(PHASES)?).map_err(|error| invalid(PHASES, error.to_string()))?;
    let keys = KeyRing::parse(&read(KEYS)?).map_err(|error| invalid(KEYS, error.to_string()))?;
    let room = read(ROOM)?.trim().parse().map_err(|_| invalid(ROOM, "not a number".to_owned()))?;
    let log = dir.join(LOG);
    replay(&Job { base, room, log: &log, end: None, phases: &phases, keys: &keys, search, cancel })
}

/// Records two updates, with a rollback and a crash between them, in one VM and one log.
fn record(
    cut: &PowerCut,
    environment: &TestEnvironment<'_>,
    releases: &ReleaseSeries,
    steps: &mut Steps<'_>,
) -> Result<Recording, ScenarioError> {
    let mut recording = Recording::new(environment.work.path().join(LOG))?;
    let mut host = steps.run(Step::BOOT, || {
        let firmware = cut.firmware.of(&cut.common);
        let host = Host::boot(environment, "powercut", firmware, Some(&recording.log))?;
        Ok((host, firmware.to_string()))
    })?;
    recording.end_step(Step::BOOT)?;

    let first = releases.publish(0)?.build;
    steps.run(Step::UPDATE, || {
        host.update(Slot::B, first)?;
        Ok(((), releases.describe_update(None, 0, environment)?))
    })?;
    recording.end_step(Step::UPDATE)?;

    let mut spare = Slot::A;
    if !cut.without_rollback {
        steps.run(ROLL_BACK, || Ok((host.roll_back(Slot::A, 0)?, String::new())))?;
        recording.end_step(ROLL_BACK)?;
        spare = Slot::B;
    }

    let second = releases.publish(1)?.build;
    let bytes = releases.size(1) / 1000 * cut.crash_at;
    steps.run(CRASH_UPDATE, || {
        host.start_update()?;
        host.reset_after(bytes)?;
        Ok(((), format!("after {} MiB", bytes >> 20)))
    })?;
    recording.end_step(CRASH_UPDATE)?;

    steps.run(UPDATE_AFTER_CRASH, || {
        host.update(spare, second)?;
        // A rollback returns to the base.
        let from = cut.without_rollback.then_some(0);
        Ok(((), releases.describe_update(from, 1, environment)?))
    })?;
    recording.end_step(UPDATE_AFTER_CRASH)?;
    steps.power_off(host.guest)?;
    recording.end_step(Step::POWER_OFF)?;
    Ok(recording)
}

/// The recorded writes of a scenario.
struct Recording {
    log: PathBuf,
    /// The titles of the steps, each with the length of the log at its end.
    phases: Vec<(String, u64)>,
}

impl Recording {
    fn new(log: PathBuf) -> Result<Self, ScenarioError> {
        // QEMU requires that the file exists.
        File::create_new(&log).map_err(failed("create", &log))?;
        Ok(Self { log, phases: Vec::new() })
    }

    fn end_step(&mut self, step: Step) -> Result<(), ScenarioError> {
        let length = fs::metadata(&self.log).map_err(failed("get the size of", &self.log))?.len();
        self.phases.push((step.to_string(), length));
        Ok(())
    }

    /// Copies all files that [`replay_kept`] needs to `dir`.
    fn keep(&self, dir: &Path, keys: &KeyRing, room: u64) -> Result<(), ScenarioError> {
        fs::create_dir_all(dir).map_err(failed("create the directory", dir))?;
        let to = dir.join(LOG);
        fs::copy(&self.log, &to).map_err(failed("write", &to))?;
        let to = dir.join(PHASES);
        let phases = serde_json::json!(self.phases).to_string();
        fs::write(&to, phases).map_err(failed("write", &to))?;
        let to = dir.join(ROOM);
        fs::write(&to, room.to_string()).map_err(failed("write", &to))?;
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
