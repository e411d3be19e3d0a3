//! `confirm`

use anyhow::{Context, Result};
use protocol::esp::Slot;
use serde_json::json;

use super::{need_esp, tell};
use crate::bootstate::Grubenv;
use crate::cli::{Exit, Global};
use crate::confirm::{Confirmed, Open, confirm as make_good, is_remembered, may_confirm, remember};
use crate::esp::{Access, Esp};
use crate::host::{Booted, Host};
use crate::trial::is_rolled_back;

/// No configuration is read: an operator's typing error must not undo an update.
pub(super) fn confirm(global: &Global) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let running = host.running().context("cannot read the kernel command line")?;
    let running = running.context(
        "the running slot is not known: the kernel command line has no etchaos.slot=a or b, so this system was not booted by EtchaOS's boot loader, and there is nothing to confirm",
    )?;
    let open = |access| Esp::open(&host, global.esp.as_deref(), access);
    // An update in progress holds the lock for as long as its downloads take; who has nothing to
    // write does not wait for it.
    let reader = open(Access::Read)?;
    let esp = need_esp(reader.as_ref())?;
    let grubenv = Grubenv::read(esp, running);
    if let Some(text) = why_not(esp, &grubenv, &host, running)? {
        log::warn!("{text}");
        let good = grubenv.state.good.to_string();
        tell(global, &json!({"good": good, "changed": false}), || text);
        return Ok(Exit::Ok);
    }
    let what = Open::of(esp, &grubenv, running);
    // A file system that is mounted read-only cannot be mounted for writing, by us no less.
    drop(reader);
    let confirmed = match what.access().map(open) {
        None => Confirmed::Already,
        Some(Err(error)) if what.tolerates(&error) => Confirmed::Already,
        Some(writer) => make_good(need_esp(writer?.as_ref())?, running)?,
    };
    remember(&host, running);
    let slot = running.to_string();
    let text = match &confirmed {
        Confirmed::Already => format!("slot {slot} is good already"),
        Confirmed::Now { recreated: None } => format!("slot {slot} is good now"),
        Confirmed::Now { recreated: Some(why) } => {
            format!("slot {slot} is good now; {why}, so it was made anew")
        }
    };
    log::info!(slot = slot.as_str(); "{text}");
    let changed = confirmed != Confirmed::Already;
    tell(global, &json!({"good": slot, "changed": changed}), || text);
    Ok(Exit::Ok)
}

/// Why a healthy boot does not make the running slot good.
fn why_not(esp: &Esp, grubenv: &Grubenv, host: &Host, running: Slot) -> Result<Option<String>> {
    let on_trial = host.on_trial().context("cannot read the kernel command line")?
        && !is_remembered(host, running);
    let booted = Booted { slot: Some(running), on_trial, id: host.boot_id() };
    let state = &grubenv.state;
    let good = state.good;
    Ok(match () {
        () if is_rolled_back(state, running) => {
            Some(format!("slot {running} was rolled back: it is not confirmed"))
        }
        () if may_confirm(esp, state, booted) => None,
        () => Some(format!(
            "slot {running} runs and is not on trial, and what is in it was never confirmed: it is not confirmed now; the next update goes back to slot {good}, or heals it"
        )),
    })
}
