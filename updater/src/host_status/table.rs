//! The status of the host as text.

use protocol::date;
use protocol::esp::Slot;

use super::{Disk, Failed, Records, Status, boot_size, state};
use crate::host_settings::Applied;
use crate::install::FileOrigin;
use crate::record::{
    Checked, DataResult, Download, Failure, HealthResult, HealthState, Listening, Poll, Waiting,
};
use crate::slot_content::Content;
use crate::sources::PullResult;
use crate::wrong_files::WrongFile;

/// How many characters of a value are shown in a line.
const SHOWN_MAX: usize = 400;

impl Status {
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
            let content = disk.slots.get(slot);
            table.add(&format!("slot {slot}"), &row(content));
            disk.origins(slot).iter().for_each(|origin| table.add("", &obtained(origin, content)));
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
        for (_, reason) in self.records.failed_deltas.all() {
            table.add("delta", &format!("not tried again: {reason}"));
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

/// Describes where a file of a slot came from.
fn obtained(origin: &FileOrigin, content: &Content) -> String {
    let FileOrigin { role, way, bytes, reason } = origin;
    let size = content.release().and_then(|release| Some(release.artifact(*role)?.size));
    let reason = reason.as_ref().map(|reason| format!(": {reason}"));
    format!(
        "{role}: {}, {bytes} of {} bytes fetched{}",
        way.name(),
        size.unwrap_or(0),
        reason.unwrap_or_default()
    )
}

fn row(content: &Content) -> String {
    let (state, release, problem) = state(content);
    let release =
        release.map(|r| format!("  {}  build {}", r.version, r.build)).unwrap_or_default();
    let problem = problem.map(|problem| format!("  {problem}")).unwrap_or_default();
    format!("{state:8}{release}{problem}")
}
