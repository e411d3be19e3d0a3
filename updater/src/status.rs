//! What there is to know about a host: gathered once, shown by `status` as a table or JSON, and by
//! [`crate::metrics`].

use protocol::esp::Slot;
use protocol::grubenv::{BootState, TRIES};
use protocol::release::ReleaseId;
use protocol::{Release, date};
use serde_json::{Map, Value, json};

use crate::config::Reboot;
use crate::host::Host;
use crate::record::{self, Checked, Download, Failure, HealthFound, HealthState, Poll, Waiting};
use crate::slot_content::{Content, Slots};
use crate::trial::{expire_trial, is_abandoned};

/// As much of a text that others wrote as a line of a table has room for.
const SHOWN_MAX: usize = 400;
/// Seconds. A download is recorded every other second, and a stalled one is given up after a minute.
const DOWNLOAD_HEARD: u64 = 120;

/// What there is to know about a host.
#[derive(Debug)]
pub struct Status {
    /// Unix seconds.
    pub now: u64,
    /// The slot that runs.
    pub running: Option<Slot>,
    /// `IMAGE_VERSION` of os-release.
    pub image: Option<String>,
    /// What is on the ESP; or why that is not known.
    pub disk: Result<Disk, String>,
    /// Why the configuration could not be read, if the disk could be looked at without it.
    pub problem: Option<String>,
    /// When the host may reboot, if the configuration could be read.
    pub policy: Option<Reboot>,
    /// Every value of the configuration; null, if it could not be read.
    pub config: Value,
    /// What the last runs did.
    pub records: Records,
    /// When the timer starts the next update, in Unix seconds.
    pub next_poll: Option<u64>,
}

/// What is on the ESP.
#[derive(Debug)]
pub struct Disk {
    /// Both slots, by manifests and sizes.
    pub slots: Slots,
    /// What GRUB goes by.
    pub boot: BootState,
    /// Why grubenv does not say that, if it does not.
    pub grubenv_problem: Option<String>,
}

/// What the last runs did; see [`record`].
#[derive(Debug, Default)]
pub struct Records {
    /// The last poll.
    pub poll: Option<Poll>,
    /// The last error.
    pub error: Option<Failure>,
    /// The health of what runs.
    pub health: Option<HealthFound>,
    /// A download that is going on.
    pub download: Option<Download>,
    /// What `verify` found.
    pub checked: Option<Checked>,
    /// A reboot that is waited for.
    pub waiting: Option<Waiting>,
}

impl Records {
    /// Reads them. A download of which nothing was heard for a while was killed.
    pub fn read(host: &Host, now: u64) -> Self {
        let goes_on = |download: &Download| now.abs_diff(download.time) <= DOWNLOAD_HEARD;
        Self {
            poll: record::read(host),
            error: record::read(host),
            health: record::read(host),
            download: record::read(host).filter(goes_on),
            checked: record::read(host),
            waiting: record::read(host),
        }
    }
}

/// A release that is not installed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// What it boots.
    pub id: ReleaseId,
    /// Where it still lies.
    pub slot: Option<Slot>,
}

impl Disk {
    /// The release that failed its trial or was rolled back, as grubenv remembers it.
    pub fn failed(&self, running: Option<Slot>) -> Option<Failed> {
        let id = expire_trial(&self.boot, running).failed?;
        let holds = |slot: &Slot| self.slots.get(*slot).release().is_some_and(|r| r.id() == id);
        Some(Failed { id, slot: Slot::ALL.into_iter().find(holds) })
    }

    /// The slot that a reboot is outstanding for: the one that GRUB will try next, or the good one, if what
    /// runs is left for it. The running slot is it only if it was written anew since, and
    /// no try was counted: otherwise its trial goes on.
    pub fn pending(&self, running: Option<Slot>) -> Option<Slot> {
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
    /// Whether the running release is confirmed; unknown, if it is not known what runs.
    pub fn is_confirmed(&self) -> Option<bool> {
        let (running, disk) = (self.running?, self.disk.as_ref().ok()?);
        Some(disk.boot.good == running)
    }

    /// The release that runs, if its manifest is there.
    pub fn release(&self) -> Option<&Release> {
        self.disk.as_ref().ok()?.slots.get(self.running?).release()
    }

    /// As JSON; docs/json.md has its shape.
    pub fn to_json(&self) -> Value {
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
        let Records { poll, error, health, download, checked, waiting } = &self.records;
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
            "verified": checked,
            "reboot": {
                "policy": self.policy.as_ref().map(ToString::to_string),
                "outstanding": disk.map(|disk| disk.pending(self.running).is_some()),
                "waiting": waiting,
            },
            "config": self.config,
        })
    }

    /// What runs: by the slot's manifest, or by the image where that is gone.
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

    /// As lines for people.
    pub fn table(&self) -> String {
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
            &match self.running {
                None => "not from this ESP".to_owned(),
                Some(slot) => format!("slot {slot}  {}{confirmed}", version.unwrap_or("-")),
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
        self.add_runs(&mut table);
        table.0.join("\n")
    }

    fn add_health(&self, table: &mut Table) {
        let Some(HealthFound { time, slot, state, problems }) = &self.records.health else {
            return;
        };
        let state = match state {
            HealthState::Waiting => "waiting for",
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
            let what = match release {
                Some((slot, release)) => format!("slot {slot}  {}", release.version),
                None => format!("release {id}"),
            };
            table.add("failed", &format!("{what}: not tried again until there is a newer one"));
        }
        if let Some(problem) = &disk.grubenv_problem {
            table.add("grubenv", &format!("{problem}; the next update or confirm makes it anew"));
        }
        for slot in Slot::ALL {
            table.add(&format!("slot {slot}"), &row(disk.slots.get(slot)));
        }
        if let Some(Checked { time, a, b }) = &self.records.checked {
            let word = |whole: &Option<bool>| match whole {
                Some(true) => "whole",
                Some(false) => "damaged",
                None => "empty",
            };
            table.add("verified", &format!("a {}, b {}, {}", word(a), word(b), self.at(*time)));
        }
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
        if let (Some(_), Some(Waiting { why, next, .. })) = (pending, waiting) {
            let next =
                next.map_or(String::new(), |next| format!("; to be decided {}", self.at(next)));
            table.add("", &format!("{why}{next}"));
        }
        if let Some(Download { role, done, total, time }) = download {
            table.add("download", &format!("{role}, {done} of {total} bytes, {}", self.at(*time)));
        }
        table.add(
            "last poll",
            &match poll {
                None => "none since the boot".to_owned(),
                Some(Poll { time, outcome, version, build, cdn }) => {
                    format!("{outcome}, {version} (build {build}) at {cdn}, {}", self.at(*time))
                }
            },
        );
        if let Some(Failure { time, command, error }) = error {
            table.add("last error", &format!("{command}: {error}, {}", self.at(*time)));
        }
        let next =
            self.next_poll.map_or("not known: does the timer run?".to_owned(), |at| self.at(at));
        table.add("next poll", &next);
    }

    /// A time, and how far away it is.
    fn at(&self, time: u64) -> String {
        let shown = date::text(time);
        match time.checked_sub(self.now) {
            Some(0) | None => format!("{shown} ({} ago)", rough(self.now - time)),
            Some(left) => format!("{shown} (in {})", rough(left)),
        }
    }
}

/// A span with one unit.
fn rough(seconds: u64) -> String {
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
        // What others wrote must not move the cursor.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.chars().take(SHOWN_MAX).map(plain).collect();
        self.0.push(format!("{name:10}  {text}").trim_end().to_owned());
    }
}

fn row(content: &Content) -> String {
    let (state, release, problem) = state(content);
    let release =
        release.map(|r| format!("  {}  build {}", r.version, r.build)).unwrap_or_default();
    let problem = problem.map(|problem| format!("  {problem}")).unwrap_or_default();
    format!("{state:8}{release}{problem}")
}

/// A word for what is in a slot, the release, and what is to be said of it.
fn state(content: &Content) -> (&'static str, Option<&Release>, Option<String>) {
    match content {
        Content::Empty => ("empty", None, None),
        Content::Complete(release) => ("complete", Some(release), None),
        Content::Partial { release, bytes } => {
            let size: u64 = release.boot_artifacts().map(|artifact| artifact.size).sum();
            let problem = format!("{bytes} of {size} bytes are there; the next update goes on");
            ("partial", Some(release), Some(problem))
        }
        Content::Damaged { release, problem } => {
            ("damaged", release.as_ref(), Some(problem.clone()))
        }
    }
}

/// A slot, for JSON.
pub fn slot(content: &Content) -> Value {
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
