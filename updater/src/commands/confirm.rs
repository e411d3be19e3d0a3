//! The command `confirm`.

use anyhow::{Context, Result};
use protocol::grubenv::BootState;
use serde_json::json;

use super::context::require_esp;
use super::output::print_or_warn;
use crate::cli::{Exit, Global};
use crate::confirmation::{
    self, Confirmed, Pending, booted, has_confirmed_mark, reason_not_to_confirm,
};
use crate::esp::{Access, Esp};
use crate::grubenv_file::GrubenvFile;
use crate::host::Host;

/// Makes the running slot good. No configuration is read, because an operator's typing error must not
/// roll an update back.
pub(super) fn confirm(global: &Global) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let booted = booted(&host).context("cannot read the kernel command line")?;
    let running = booted.slot.context(
        "the running slot is not known: the kernel command line has no etchaos.slot=a or b, so this system was not booted by EtchaOS's boot loader and there is nothing to confirm",
    )?;
    let open = |access| Esp::open(&host, global.esp.as_deref(), access);
    // An update holds the lock while it downloads. If there is nothing to write, the lock is not
    // needed.
    let read_only = open(Access::Read)?;
    let esp = require_esp(read_only.as_ref())?;
    let grubenv = GrubenvFile::read(esp, running);
    if let Some(reason) =
        reason_not_to_confirm(&grubenv.state, booted, has_confirmed_mark(esp, running))
    {
        return not_confirmed(global, &grubenv.state, reason);
    }
    let pending = Pending::of(esp, &grubenv, running);
    // A file system that this process has mounted read-only cannot be mounted for writing as well.
    drop(read_only);
    let confirmed = match pending.access().map(open) {
        None => Confirmed::Already,
        Some(Err(error)) if pending.tolerates(&error) => Confirmed::Already,
        Some(writer) => confirmation::confirm(require_esp(writer?.as_ref())?, booted)?,
    };
    let changed = confirmed != Confirmed::Already;
    let slot = running.to_string();
    let text = match confirmed {
        Confirmed::No { reason } => return not_confirmed(global, &grubenv.state, reason),
        Confirmed::Already => format!("slot {slot} is already good"),
        Confirmed::Now { grubenv_problem: None } => format!("slot {slot} is now good"),
        Confirmed::Now { grubenv_problem: Some(problem) } => {
            format!("slot {slot} is now good; {problem}, so grubenv was recreated")
        }
    };
    confirmation::record_confirmed(&host, running);
    log::info!(slot = slot.as_str(); "{text}");
    print_or_warn(global, &json!({"good": slot, "changed": changed}), || text);
    Ok(Exit::Ok)
}

/// Reports that the running slot was not made good.
fn not_confirmed(global: &Global, state: &BootState, reason: String) -> Result<Exit> {
    log::warn!("{reason}");
    let good = state.good.to_string();
    print_or_warn(global, &json!({"good": good, "changed": false}), || reason);
    Ok(Exit::Ok)
}
