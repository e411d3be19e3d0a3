//! The reports of `check` and `update`.

use protocol::Release;
use protocol::compare::differences;
use protocol::esp::Slot;
use serde_json::{Value, json};

use crate::install::FileOrigin;
use crate::plan::Step;
use crate::update::{Update, describe};

/// The words of [`download_lines`] before the step.
const BEFORE: [&str; 2] = ["to fetch", "is"];
/// The words of [`download_lines`] after the step.
const AFTER: [&str; 2] = ["fetched", "was"];

/// Logs the decision to the journal.
pub(super) fn log(update: &Update<'_>) {
    let release = update.candidate();
    log::info!(
        step = step_name(&update.step),
        candidate = release.version.as_str(),
        build = release.build,
        key = update.key_id();
        "{}", text(update).lines().next().unwrap_or_default()
    );
}

/// Returns the JSON output; docs/json.md describes it.
pub(super) fn json(update: &Update<'_>) -> Value {
    let release = |r: &Release| json!({"version": r.version, "build": r.build, "kernel": r.kernel});
    let (current, candidate) = (update.current(), update.candidate());
    json!({
        "step": step_name(&update.step),
        "slot": update.step.slot(),
        "running": current.map(release),
        "candidate": release(candidate),
        "key": update.key_id(),
        "download": download(update),
        "differences": current.map(|current| differences(current, candidate)),
    })
}

/// Returns how many bytes the step fetches, or has fetched, and where each file comes from; `null` if it writes
/// none.
fn download(update: &Update<'_>) -> Value {
    let origins = update.origins();
    if origins.is_empty() {
        return Value::Null;
    }
    json!({"bytes": fetched_bytes(&origins), "files": origins})
}

/// Returns how many bytes are fetched for all files.
fn fetched_bytes(origins: &[FileOrigin]) -> u64 {
    origins.iter().map(|origin| origin.bytes).sum()
}

/// Describes in lines how many bytes the step fetches, or has fetched; empty if it writes no files. The words are
/// [`BEFORE`] or [`AFTER`].
fn download_lines(update: &Update<'_>, [fetched, is]: [&str; 2]) -> String {
    let origins = update.origins();
    if origins.is_empty() {
        return String::new();
    }
    let bytes = fetched_bytes(&origins);
    let files: Vec<String> = origins
        .iter()
        .map(|FileOrigin { role, way, bytes, .. }| format!("{role}: {}, {bytes}", way.name()))
        .collect();
    let mut lines = format!("\n  {bytes} bytes {fetched} ({})", files.join("; "));
    for FileOrigin { role, reason, .. } in &origins {
        if let Some(reason) = reason {
            lines.push_str(&format!("\n  the {role} {is} downloaded whole: {reason}"));
        }
    }
    lines
}

/// Describes the next step in a sentence.
pub(super) fn text(update: &Update<'_>) -> String {
    let new = describe(update.candidate());
    match update.step {
        Step::UpToDate => format!("up to date: {new}"),
        Step::Pending(slot) => {
            format!("{} is installed in slot {slot}: reboot to try it", release_in(update, slot))
        }
        Step::Return(slot) => {
            format!(
                "{} in slot {slot} is good, but the other slot runs: reboot into it",
                release_in(update, slot)
            )
        }
        Step::Unconfirmed { running, good } => format!(
            "the running slot {running} is not confirmed yet: nothing is installed until it is confirmed, because slot {good} is the fallback"
        ),
        Step::FailedBefore => format!(
            "{new} failed its trial or was rolled back: waiting for a newer release; \"update --retry-failed\" tries it again"
        ),
        Step::NotTried(slot) => format!(
            "{} is in slot {slot}, but the boot loader did not try it at the last boot: \"update --retry-failed\" starts the trial again",
            release_in(update, slot)
        ),
        Step::Withdraw(slot) => {
            format!(
                "the CDN withdrew the release in slot {slot} and offers {new}: the trial has to be cancelled"
            )
        }
        Step::Downgrade => format!("{new} is older than the running release"),
        Step::Install(slot) => {
            let (changes, download) = (changes(update), download_lines(update, BEFORE));
            format!("{new} has to be installed in slot {slot}{changes}{download}")
        }
        Step::Activate(slot) => {
            format!(
                "{} is complete in slot {slot} and has to be put on trial",
                release_in(update, slot)
            )
        }
        Step::Repair(slot) => {
            let download = download_lines(update, BEFORE);
            format!(
                "slot {slot} is damaged or incomplete and has to be repaired with {new}{download}"
            )
        }
    }
}

/// Describes the completed step in a sentence.
pub(super) fn done(update: &Update<'_>) -> String {
    let new = describe(update.candidate());
    match update.step {
        Step::Install(slot) => {
            let (changes, download) = (changes(update), download_lines(update, AFTER));
            format!("{new} was installed in slot {slot}, on trial{changes}{download}")
        }
        Step::Activate(slot) => format!("{} is on trial in slot {slot}", release_in(update, slot)),
        Step::Repair(slot) => {
            let download = download_lines(update, AFTER);
            format!("slot {slot} was damaged or incomplete and was repaired with {new}{download}")
        }
        Step::Withdraw(slot) => {
            format!(
                "the CDN withdrew the release in slot {slot} and offers {new}: the trial was cancelled"
            )
        }
        _ => text(update),
    }
}

/// Describes the release in a slot, which is not always the candidate.
fn release_in(update: &Update<'_>, slot: Slot) -> String {
    update.slots.get(slot).release().map_or("the release".to_owned(), describe)
}

fn changes(update: &Update<'_>) -> String {
    let Some(current) = update.current() else { return String::new() };
    let lines = differences(current, update.candidate());
    lines.iter().map(|line| format!("\n{line}")).collect()
}

pub(super) fn step_name(step: &Step) -> &'static str {
    match step {
        Step::UpToDate => "upToDate",
        Step::Pending(_) => "pending",
        Step::Unconfirmed { .. } => "unconfirmed",
        Step::FailedBefore => "failedBefore",
        Step::NotTried(_) => "notTried",
        Step::Return(_) => "return",
        Step::Withdraw(_) => "withdraw",
        Step::Downgrade => "downgrade",
        Step::Install(_) => "install",
        Step::Activate(_) => "activate",
        Step::Repair(_) => "repair",
    }
}
