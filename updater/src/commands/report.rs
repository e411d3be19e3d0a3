//! What `check` and `update` say of an update.

use protocol::Release;
use protocol::compare::differences;
use protocol::esp::Slot;
use serde_json::{Value, json};

use crate::plan::Step;
use crate::update::{Update, named};

/// For the journal.
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

/// docs/json.md has its shape.
pub(super) fn json(update: &Update<'_>) -> Value {
    let release = |r: &Release| json!({"version": r.version, "build": r.build, "kernel": r.kernel});
    let (here, candidate) = (update.here(), update.candidate());
    json!({
        "step": step_name(&update.step),
        "slot": update.step.slot(),
        "running": here.map(release),
        "candidate": release(candidate),
        "key": update.key_id(),
        "differences": here.map(|here| differences(here, candidate)),
    })
}

/// What is to be done, for people.
pub(super) fn text(update: &Update<'_>) -> String {
    let new = named(update.candidate());
    match update.step {
        Step::UpToDate => format!("up to date: {new}"),
        Step::Pending(slot) => {
            format!("{} is installed in slot {slot}: reboot to try it", held(update, slot))
        }
        Step::Return(slot) => {
            format!(
                "{} in slot {slot} is good, and something else runs: reboot into it",
                held(update, slot)
            )
        }
        Step::Unconfirmed { running, good } => format!(
            "slot {running} runs and is not confirmed yet: nothing is installed until then, because slot {good} is the way back"
        ),
        Step::FailedBefore => format!(
            "{new} failed its trial, or was rolled back: waiting for a newer one; \"update --retry-failed\" tries it again"
        ),
        Step::NotTried(slot) => format!(
            "{} is in slot {slot}, and the boot loader did not try it at the last boot: \"update --retry-failed\" asks it again",
            held(update, slot)
        ),
        Step::Withdraw(slot) => {
            format!("the CDN went back to {new}: the trial of slot {slot} is to be called off")
        }
        Step::Downgrade => format!("{new} is older than what runs"),
        Step::Install(slot) => {
            format!("{new} is to be installed in slot {slot}{}", changes(update))
        }
        Step::Activate(slot) => {
            format!("{} is whole in slot {slot} and to be tried", held(update, slot))
        }
        Step::Repair(slot) => format!("slot {slot} is not whole and to be repaired with {new}"),
    }
}

/// What was done, for people.
pub(super) fn done(update: &Update<'_>) -> String {
    let new = named(update.candidate());
    match update.step {
        Step::Install(slot) => {
            format!("{new} was installed in slot {slot}, on trial{}", changes(update))
        }
        Step::Activate(slot) => format!("{} is on trial in slot {slot}", held(update, slot)),
        Step::Repair(slot) => format!("slot {slot} was not whole and is repaired with {new}"),
        Step::Withdraw(slot) => {
            format!("the CDN went back to {new}: the trial of slot {slot} was called off")
        }
        _ => text(update),
    }
}

/// What lies in a slot: not always the candidate.
fn held(update: &Update<'_>, slot: Slot) -> String {
    update.slots.get(slot).release().map_or("what is there".to_owned(), named)
}

fn changes(update: &Update<'_>) -> String {
    let Some(here) = update.here() else { return String::new() };
    let lines = differences(here, update.candidate());
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
