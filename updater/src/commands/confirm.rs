//! `confirm`

use anyhow::{Context, Result};
use serde_json::json;

use super::{need_esp, tell};
use crate::bootstate::Grubenv;
use crate::cli::{Exit, Global};
use crate::confirm::{Confirmed, Open, confirm as make_good, remember};
use crate::esp::{Access, Esp};
use crate::host::Host;
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
    let grubenv = Grubenv::read(need_esp(reader.as_ref())?, running);
    if is_rolled_back(&grubenv.state, running) {
        let text = format!("slot {running} was rolled back: it is not confirmed");
        log::warn!("{text}");
        let good = grubenv.state.good.to_string();
        tell(global, &json!({"good": good, "changed": false}), || text);
        return Ok(Exit::Ok);
    }
    let what = Open::of(&grubenv, running);
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
