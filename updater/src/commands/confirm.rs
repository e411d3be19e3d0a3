//! `confirm`

use anyhow::{Context, Result};
use protocol::grubenv::BootState;
use serde_json::json;

use super::{need_esp, tell};
use crate::cli::{Exit, Global};
use crate::confirm::{
    Confirmed, Open, booted, confirm as make_good, has_confirmed_mark, remember, why_not,
};
use crate::esp::{Access, Esp};
use crate::grubenv_file::GrubenvFile;
use crate::host::Host;

/// No configuration is read: an operator's typing error must not undo an update.
pub(super) fn confirm(global: &Global) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let booted = booted(&host).context("cannot read the kernel command line")?;
    let running = booted.slot.context(
        "the running slot is not known: the kernel command line has no etchaos.slot=a or b, so this system was not booted by EtchaOS's boot loader, and there is nothing to confirm",
    )?;
    let open = |access| Esp::open(&host, global.esp.as_deref(), access);
    // An update in progress holds the lock for as long as its downloads take; who has nothing to
    // write does not wait for it.
    let reader = open(Access::Read)?;
    let esp = need_esp(reader.as_ref())?;
    let grubenv = GrubenvFile::read(esp, running);
    if let Some(why) = why_not(&grubenv.state, booted, has_confirmed_mark(esp, running)) {
        return no(global, &grubenv.state, why);
    }
    let what = Open::of(esp, &grubenv, running);
    // A file system that is mounted read-only cannot be mounted for writing, by us no less.
    drop(reader);
    let confirmed = match what.access().map(open) {
        None => Confirmed::Already,
        Some(Err(error)) if what.tolerates(&error) => Confirmed::Already,
        Some(writer) => make_good(need_esp(writer?.as_ref())?, booted)?,
    };
    let changed = confirmed != Confirmed::Already;
    let slot = running.to_string();
    let text = match confirmed {
        Confirmed::No { why } => return no(global, &grubenv.state, why),
        Confirmed::Already => format!("slot {slot} is good already"),
        Confirmed::Now { recreated: None } => format!("slot {slot} is good now"),
        Confirmed::Now { recreated: Some(why) } => {
            format!("slot {slot} is good now; {why}, so it was made anew")
        }
    };
    remember(&host, running);
    log::info!(slot = slot.as_str(); "{text}");
    tell(global, &json!({"good": slot, "changed": changed}), || text);
    Ok(Exit::Ok)
}

fn no(global: &Global, state: &BootState, why: String) -> Result<Exit> {
    log::warn!("{why}");
    let good = state.good.to_string();
    tell(global, &json!({"good": good, "changed": false}), || why);
    Ok(Exit::Ok)
}
