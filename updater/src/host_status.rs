//! The status of the host, shown by `status` as a table or JSON and by [`crate::prometheus`] as metrics.

use protocol::esp::Slot;
use protocol::grubenv::{BootState, TRIES};
use protocol::release::ReleaseId;
use protocol::{Release, date};
use serde_json::{Map, Value, json};

use crate::config::Reboot;
use crate::host::Host;
use crate::host_settings::Applied;
use crate::record::{
    self, Checked, DataResult, Download, Failure, HealthResult, HealthState, Listening, Poll,
    Waiting,
};
use crate::slot_content::{Content, Slots};
use crate::sources::{PullResult, Pulls, SourceRuns};
use crate::trial::{expire_trial, is_abandoned};
use crate::wrong_files::{WrongFile, WrongFiles};

/// How many characters of a value are shown in a line of the table.
const SHOWN_MAX: usize = 400;
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
            "slots": disk.map(|disk| json!({"a": slot(&disk.slots.a), "b": slot(&disk.slots.b)})),
            "problem": self.disk.as_ref().err().or(self.problem.as_ref()),
            "lastPoll": poll,
            "lastError": error,
            "nextPoll": self.next_poll,
            "download": download,
            "wrongFiles": self.wrong_files().map(WrongFile::to_json).collect::<Vec<_>>(),
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

    /// Returns the status as text.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        table.add("updater", env!("CARGO_PKG_VERSION"));
        let version = self.release().map(|r| r.version.as_str()).or(self.image.as_deref());
        let confirmed = match self.is_confirmed() {
            Some(true) => ", confirmed",
            Some(false) => ", not confirmed yet",
            None => "",
        };
        table.add(
            "running",
            &match (self.running, self.disk.is_ok()) {
                (None, true) => "not booted from this ESP".to_owned(),
                (None, false) => format!("{}, not from a slot", version.unwrap_or("-")),
                (Some(slot), _) => format!("slot {slot}  {}{confirmed}", version.unwrap_or("-")),
            },
        );
        self.add_health(&mut table);
        match &self.disk {
            Ok(disk) => self.add_disk(&mut table, disk),
            Err(problem) => table.add("slots", problem),
        }
        if let Some(problem) = &self.problem {
            table.add("config", problem);
        }
        self.add_data(&mut table);
        for (name, text) in self.records.host_settings.iter().flat_map(Applied::rows) {
            table.add(name, &text);
        }
        self.add_runs(&mut table);
        if let Some(listening) = &self.records.listening {
            add_listening(&mut table, listening);
        }
        self.add_sources(&mut table);
        table.0.join("\n")
    }

    fn add_health(&self, table: &mut Table) {
        let Some(HealthResult { time, slot, state, problems }) = &self.records.health else {
            return;
        };
        let state = match state {
            HealthState::Waiting => "waiting",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "not healthy",
        };
        table.add("health", &format!("slot {slot}  {state}, {}", self.at(*time)));
        problems.iter().for_each(|problem| table.add("", problem));
    }

    fn add_disk(&self, table: &mut Table, disk: &Disk) {
        table.add("good", &format!("slot {}", disk.boot.good));
        table.add(
            "trial",
            &match disk.boot.trial {
                None => "none".to_owned(),
                Some(trial) => format!("slot {}, tries left: {}", trial.slot, trial.tries),
            },
        );
        if let Some(Failed { id, slot }) = disk.failed(self.running) {
            let release = slot.and_then(|slot| Some((slot, disk.slots.get(slot).release()?)));
            let description = match release {
                Some((slot, release)) => format!("slot {slot}  {}", release.version),
                None => format!("release {id}"),
            };
            table.add(
                "failed",
                &format!("{description}: not installed again; waiting for a newer release"),
            );
        }
        if let Some(problem) = &disk.grubenv_problem {
            table.add("grubenv", &format!("{problem}; the next update or confirm recreates it"));
        }
        for slot in Slot::ALL {
            table.add(&format!("slot {slot}"), &row(disk.slots.get(slot)));
        }
        if let Some(Checked { time, a, b }) = &self.records.checked {
            let (a, b) = (verified(*a, &disk.slots.a), verified(*b, &disk.slots.b));
            table.add("verified", &format!("a {a}, b {b}, {}", self.at(*time)));
        }
    }

    fn add_data(&self, table: &mut Table) {
        let Some(DataResult { mounted, device, file_system, encrypted, problems, .. }) =
            &self.records.data
        else {
            return;
        };
        let or_none = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
        match mounted {
            true => {
                let encrypted = if *encrypted == Some(true) { "  encrypted" } else { "" };
                let text = format!("{}  {}{encrypted}", or_none(device), or_none(file_system));
                table.add("data", &text);
            }
            false => table.add("data", "not mounted, so Docker does not start"),
        }
        problems.iter().for_each(|problem| table.add("", problem));
    }

    fn add_runs(&self, table: &mut Table) {
        let Records { poll, error, download, waiting, .. } = &self.records;
        let pending = self.disk.as_ref().ok().and_then(|disk| disk.pending(self.running));
        let policy = self.policy.as_ref().map_or("-".to_owned(), ToString::to_string);
        let outstanding = match pending {
            Some(slot) => format!("; outstanding, into slot {slot}"),
            None => String::new(),
        };
        table.add("reboot", &format!("{policy}{outstanding}"));
        if let (Some(_), Some(Waiting { reason, next, .. })) = (pending, waiting) {
            let next =
                next.map_or(String::new(), |next| format!("; next decision {}", self.at(next)));
            table.add("", &format!("{reason}{next}"));
        }
        if let Some(Download { role, done, total, time }) = download {
            table.add("download", &format!("{role}, {done} of {total} bytes, {}", self.at(*time)));
        }
        for file in self.wrong_files() {
            let WrongFile { role, url, failures, .. } = file;
            let (count, next) = (WrongFile::count(*failures), self.at(file.next()));
            table.add(
                "wrong file",
                &format!("{role} at {url}, wrong {count}; next download {next}"),
            );
        }
        table.add(
            "last poll",
            &match poll {
                None => "none since boot".to_owned(),
                Some(Poll { time, outcome, version, build, cdn }) => {
                    format!("{outcome}, {version} (build {build}) at {cdn}, {}", self.at(*time))
                }
            },
        );
        if let Some(Failure { time, command, error }) = error {
            table.add("last error", &format!("{command}: {error}, {}", self.at(*time)));
        }
        let next = self
            .next_poll
            .map_or("unknown; check etchaos-updater.timer".to_owned(), |at| self.at(at));
        table.add("next poll", &next);
    }

    fn add_sources(&self, table: &mut Table) {
        for (name, run) in self.records.sources.iter().flat_map(|runs| &runs.sources) {
            let mut parts = run.text(self.now).into_iter();
            let first = parts.next().unwrap_or_default();
            table.add("source", &format!("{name}  {first}"));
            parts.for_each(|part| table.add("", &part));
            let pull = self.records.pulls.as_ref().and_then(|pulls| pulls.sources.get(name));
            if let Some(PullResult { time, error: Some(error) }) = pull {
                table.add("", &format!("not pulled, {}: {error}", self.at(*time)));
            }
        }
    }

    /// Formats a time and its distance from now.
    fn at(&self, time: u64) -> String {
        let shown = date::format_utc(time);
        match time.checked_sub(self.now) {
            Some(0) | None => format!("{shown} ({} ago)", approximate(self.now - time)),
            Some(left) => format!("{shown} (in {})", approximate(left)),
        }
    }
}

/// Formats a duration approximately, with a single unit.
fn approximate(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn add(&mut self, name: &str, text: &str) {
        // Texts from other sources must not control the terminal.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.chars().take(SHOWN_MAX).map(plain).collect();
        self.0.push(format!("{name:10}  {text}").trim_end().to_owned());
    }
}

fn add_listening(table: &mut Table, listening: &Listening) {
    let Listening { address, certificate, public_key, .. } = listening;
    let Some(sha256) = certificate else {
        return table.add("listen", &format!("{address}, without TLS"));
    };
    table.add("listen", &format!("{address}, certificate SHA-256 {sha256}"));
    if let Some(pin) = public_key {
        table.add("", &format!("public key {pin}"));
    }
}

/// Describes the last result of `verify` for a slot. Without a result, describes the content of the slot.
fn verified(is_complete: Option<bool>, content: &Content) -> String {
    match (is_complete, content) {
        (Some(true), _) => "complete".into(),
        (Some(false), _) => "damaged".into(),
        (None, Content::Partial { release, bytes }) => {
            format!("partial ({bytes} of {} bytes)", boot_size(release))
        }
        (None, Content::Empty) => "empty".into(),
        (None, Content::Complete(_) | Content::Damaged { .. }) => "not verified".into(),
    }
}

/// Returns the total size of the files that a slot has for a release.
fn boot_size(release: &Release) -> u64 {
    release.boot_artifacts().map(|artifact| artifact.size).sum()
}

fn row(content: &Content) -> String {
    let (state, release, problem) = state(content);
    let release =
        release.map(|r| format!("  {}  build {}", r.version, r.build)).unwrap_or_default();
    let problem = problem.map(|problem| format!("  {problem}")).unwrap_or_default();
    format!("{state:8}{release}{problem}")
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
