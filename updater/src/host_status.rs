//! The status of the host, shown by `status` as a table or JSON and by [`crate::prometheus`] as metrics.

mod table;

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootState, TRIES};
use protocol::release::ReleaseId;
use serde_json::{Map, Value, json};

use crate::config::Reboot;
use crate::failed_deltas::FailedDeltas;
use crate::host::Host;
use crate::host_settings::Applied;
use crate::install::FileOrigin;
use crate::record::{
    self, Checked, DataResult, Download, Failure, HealthResult, Listening, Poll, Waiting,
};
use crate::slot_content::{Content, Slots};
use crate::sources::{Pulls, SourceRuns};
use crate::traffic::Traffic;
use crate::trial::{expire_trial, is_abandoned};
use crate::wrong_files::{WrongFile, WrongFiles};

/// The age in seconds at which a recorded download is considered dead. A download is recorded every two
/// seconds, and a stalled one times out after a minute.
const DOWNLOAD_AGE_MAX: u64 = 120;

/// The status of the host.
#[derive(Debug)]
pub(crate) struct Status {
    /// Unix seconds.
    pub now: u64,
    /// The running slot.
    pub running: Option<Slot>,
    /// `IMAGE_VERSION` of os-release.
    pub image: Option<String>,
    /// The contents of the ESP, or the reason why it was not read.
    pub disk: Result<Disk, String>,
    /// Which sources of the configuration are broken.
    pub problem: Option<String>,
    /// When the host may reboot, if the configuration could be read.
    pub policy: Option<Reboot>,
    /// Every value of the configuration, or null if it could not be read.
    pub config: Value,
    /// What the last runs did.
    pub records: Records,
    /// When the timer starts the next update, in Unix seconds.
    pub next_poll: Option<u64>,
}

/// The contents of the ESP.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The slots, checked by manifests and sizes only.
    pub slots: Slots,
    /// Where the files of slot a and b came from; empty if that is not known.
    pub origins: [Vec<FileOrigin>; 2],
    /// The boot state, on which GRUB's choice of a slot depends.
    pub boot: BootState,
    /// Why grubenv could not be read. `boot` is then a default state.
    pub grubenv_problem: Option<String>,
}

/// What the last runs did; see [`record`].
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The last poll.
    pub poll: Option<Poll>,
    /// The last error.
    pub error: Option<Failure>,
    /// The health of the running release.
    pub health: Option<HealthResult>,
    /// The current download.
    pub download: Option<Download>,
    /// The last result of `verify`.
    pub checked: Option<Checked>,
    /// The reboot that has to wait.
    pub waiting: Option<Waiting>,
    /// The files that are not downloaded again yet.
    pub wrong_files: Option<WrongFiles>,
    /// The deltas that are not tried again.
    pub failed_deltas: FailedDeltas,
    /// The bytes that updates have fetched and saved.
    pub traffic: Traffic,
    /// The server for pushes.
    pub listening: Option<Listening>,
    /// The data partition.
    pub data: Option<DataResult>,
    /// The host name, the network interfaces and the time servers that were applied.
    pub host_settings: Option<Applied>,
    /// The runs of the sources.
    pub sources: Option<SourceRuns>,
    /// What was pulled for the sources.
    pub pulls: Option<Pulls>,
}

impl Records {
    /// Reads the records. Omits a download whose record is too old.
    pub(crate) fn read(host: &Host, now: u64) -> Self {
        let is_current = |download: &Download| now.abs_diff(download.time) <= DOWNLOAD_AGE_MAX;
        Self {
            poll: record::read(host),
            error: record::read(host),
            health: record::read(host),
            download: record::read(host).filter(is_current),
            checked: record::read(host),
            waiting: record::read(host),
            wrong_files: record::read(host),
            failed_deltas: FailedDeltas::read(host),
            traffic: record::read(host).unwrap_or_default(),
            listening: record::read(host),
            data: record::read(host),
            host_settings: record::read(host),
            sources: record::read(host),
            pulls: record::read(host),
        }
    }
}

/// A release that failed and is not installed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Its ID.
    pub id: ReleaseId,
    /// The slot that still contains it.
    pub slot: Option<Slot>,
}

impl Disk {
    /// Returns the release that failed its trial or was rolled back, according to grubenv.
    pub(crate) fn failed(&self, running: Option<Slot>) -> Option<Failed> {
        let id = expire_trial(&self.boot, running).failed?;
        let holds = |slot: &Slot| self.slots.get(*slot).release().is_some_and(|r| r.id() == id);
        Some(Failed { id, slot: Slot::ALL.into_iter().find(holds) })
    }

    /// Returns where the files of a slot came from; empty if that is not known.
    pub(crate) fn origins(&self, slot: Slot) -> &[FileOrigin] {
        let [a, b] = &self.origins;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }

    /// Returns a slot as JSON, with the origins of its files.
    fn slot_json(&self, name: Slot) -> Value {
        let mut shown = slot(self.slots.get(name));
        let origins = self.origins(name);
        if !origins.is_empty() {
            shown["files"] = json!(origins);
        }
        shown
    }

    /// Returns the slot that the host has to be rebooted into: the one on trial, or the good one if the
    /// running slot was abandoned. Returns the running slot only if it was overwritten since the boot, so
    /// that no try was counted; otherwise its trial is in progress.
    pub(crate) fn pending(&self, running: Option<Slot>) -> Option<Slot> {
        let trial = self.boot.trial?;
        match trial.tries {
            0 => {
                running.filter(|running| is_abandoned(&self.boot, *running)).map(|_| self.boot.good)
            }
            tries => (running != Some(trial.slot) || tries == TRIES).then_some(trial.slot),
        }
    }
}

impl Status {
    /// Returns whether the running release is confirmed, or `None` if the running slot is unknown.
    pub(crate) fn is_confirmed(&self) -> Option<bool> {
        let (running, disk) = (self.running?, self.disk.as_ref().ok()?);
        Some(disk.boot.good == running)
    }

    /// Returns the running release, if its manifest is on the ESP.
    pub(crate) fn release(&self) -> Option<&Release> {
        self.disk.as_ref().ok()?.slots.get(self.running?).release()
    }

    /// Returns the status as JSON, as described in docs/json.md.
    pub(crate) fn to_json(&self) -> Value {
        let disk = self.disk.as_ref().ok();
        let failed = disk.and_then(|disk| {
            let Failed { id, slot } = disk.failed(self.running)?;
            let release = slot.and_then(|slot| disk.slots.get(slot).release());
            Some(json!({
                "release": id.to_string(),
                "slot": slot,
                "version": release.map(|release| &release.version),
                "build": release.map(|release| release.build),
            }))
        });
        let Records {
            poll,
            error,
            health,
            download,
            checked,
            waiting,
            listening,
            data,
            host_settings,
            sources,
            pulls,
            ..
        } = &self.records;
        json!({
            "updaterVersion": env!("CARGO_PKG_VERSION"),
            "running": self.running_json(),
            "confirmed": self.is_confirmed(),
            "health": health,
            "good": disk.map(|disk| disk.boot.good),
            "trial": disk.and_then(|disk| disk.boot.trial).map(|t| json!({"slot": t.slot, "tries": t.tries})),
            "failed": failed,
            "grubenvProblem": disk.and_then(|disk| disk.grubenv_problem.as_ref()),
            "slots": disk.map(|disk| json!({"a": disk.slot_json(Slot::A), "b": disk.slot_json(Slot::B)})),
            "problem": self.disk.as_ref().err().or(self.problem.as_ref()),
            "lastPoll": poll,
            "lastError": error,
            "nextPoll": self.next_poll,
            "download": download,
            "wrongFiles": self.wrong_files().map(WrongFile::to_json).collect::<Vec<_>>(),
            "failedDeltas": self.records.failed_deltas.to_json(),
            "verified": checked,
            "reboot": {
                "policy": self.policy.as_ref().map(ToString::to_string),
                "outstanding": disk.map(|disk| disk.pending(self.running).is_some()),
                "waiting": waiting,
            },
            "listen": listening,
            "data": data,
            "hostSettings": host_settings,
            "sources": sources.as_ref().map(|runs| runs.to_json(pulls.as_ref())),
            "config": self.config,
        })
    }

    /// Returns the files that are not downloaded again yet.
    fn wrong_files(&self) -> impl Iterator<Item = &WrongFile> {
        self.records.wrong_files.iter().flat_map(|record| record.all_blocked(self.now))
    }

    /// Describes the running release by its manifest, or by the image if the slot has no manifest.
    fn running_json(&self) -> Value {
        let Some(slot) = self.running else { return Value::Null };
        let release = self.release();
        json!({
            "slot": slot,
            "version": release.map(|r| &r.version).or(self.image.as_ref()),
            "build": release.map(|r| r.build),
            "kernel": release.map(|r| &r.kernel),
        })
    }
}

/// Returns the total size of the files that a slot has for a release.
fn boot_size(release: &Release) -> u64 {
    release.boot_artifacts().map(|artifact| artifact.size).sum()
}

/// Returns the state of a slot, its release, and a note on it.
fn state(content: &Content) -> (&'static str, Option<&Release>, Option<String>) {
    match content {
        Content::Empty => ("empty", None, None),
        Content::Complete(manifest) => ("complete", Some(&manifest.release), None),
        Content::Partial { release, bytes } => {
            let size = boot_size(release);
            let problem = format!("{bytes} of {size} bytes downloaded; the next update resumes");
            ("partial", Some(release), Some(problem))
        }
        Content::Damaged { problem, .. } => ("damaged", content.release(), Some(problem.clone())),
    }
}

/// Returns a slot as JSON.
pub(crate) fn slot(content: &Content) -> Value {
    let (state, release, problem) = state(content);
    let mut shown = Map::from_iter([("state".to_owned(), json!(state))]);
    if let Some(Release { version, build, kernel, .. }) = release {
        shown.insert("version".into(), json!(version));
        shown.insert("build".into(), json!(build));
        shown.insert("kernel".into(), json!(kernel));
    }
    if let Some(problem) = problem {
        shown.insert("problem".into(), json!(problem));
    }
    Value::Object(shown)
}
