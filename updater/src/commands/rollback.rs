//! `rollback`

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Opened, metrics_file, tell};
use crate::cli::{self, Exit, Global};
use crate::config::Reboot;
use crate::esp::Access;
use crate::reboot;
use crate::slots::inspect;
use crate::trial::{Rollback, roll_back};

pub(super) fn rollback(global: &Global, arguments: &cli::Rollback) -> Result<Exit> {
    let opened = Opened::new(global, Access::Write { wait: Duration::ZERO })?;
    let running = opened.booted.slot.context(
        "the running slot is not known: the kernel command line has no etchaos.slot=a or b, so this system was not booted from this ESP, and cannot go back on it",
    )?;
    let esp = opened.esp()?;
    let slots = inspect(esp, &opened.settings.keys);
    let mut grubenv = opened.grubenv(&slots)?;
    let (state, slot) = match roll_back(&grubenv.state, running, &slots, opened.booted.id)? {
        Rollback::Stay(state) => (state, None),
        Rollback::Reboot(state, slot) => (state, Some(slot)),
    };
    if let (Some(slot), Some(release)) = (slot, slot.and_then(|slot| slots.get(slot).release())) {
        grubenv.show_version(slot, &release.version);
    }
    grubenv.write(esp, state)?;
    let reboots = slot.is_some() && !arguments.no_reboot;
    let text = match slot {
        None => "the trial that was to begin with the next boot is called off".to_owned(),
        Some(slot) => {
            let release = slots.get(slot).release();
            let version = release.map_or("what is there", |release| &release.version);
            let when = if reboots { "rebooting into it" } else { "reboot to get there" };
            format!("back to {version} in slot {slot}: {when}")
        }
    };
    log::warn!("{text}");
    metrics_file::refresh(global, &opened);
    tell(global, &json!({"slot": slot, "reboot": reboots}), || text);
    // Unmounted before the reboot, not by it.
    drop(opened);
    if reboots {
        reboot::reboot(&Reboot::Now).context("the way back is set; reboot by hand")?;
    }
    Ok(Exit::Ok)
}
