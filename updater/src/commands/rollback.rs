//! The command `rollback`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::context::Context;
use super::metrics_file;
use super::output::print_or_warn;
use crate::cli::{self, Exit, Global};
use crate::config::Reboot;
use crate::esp::Access;
use crate::reboot;
use crate::slots::inspect;
use crate::trial::{Rollback, roll_back};

pub(super) fn rollback(global: &Global, arguments: &cli::Rollback) -> Result<Exit> {
    let context = Context::new(global, Access::Write { wait: Duration::ZERO })?;
    let running = context.booted.slot.context(
        "the running slot is not known: the kernel command line has no etchaos.slot=a or b, so this system was not booted from this ESP and cannot be rolled back",
    )?;
    let esp = context.esp()?;
    let slots = inspect(esp, &context.settings.keys);
    let mut grubenv = context.grubenv()?;
    let (state, slot) = match roll_back(&grubenv.state, running, &slots, context.booted.id)? {
        Rollback::Stay(state) => (state, None),
        Rollback::Reboot(state, slot) => (state, Some(slot)),
    };
    if let (Some(slot), Some(release)) = (slot, slot.and_then(|slot| slots.get(slot).release())) {
        grubenv.show_version(slot, &release.version);
    }
    grubenv.write(esp, state)?;
    let will_reboot = slot.is_some() && !arguments.no_reboot;
    let text = match slot {
        None => "the trial of the other slot is cancelled before its first boot".to_owned(),
        Some(slot) => {
            let release = slots.get(slot).release();
            let version = release.map_or("the release", |release| &release.version);
            let when =
                if will_reboot { "rebooting into it" } else { "reboot to finish the rollback" };
            format!("rolled back to {version} in slot {slot}: {when}")
        }
    };
    log::warn!("{text}");
    metrics_file::refresh(global, &context);
    print_or_warn(global, &json!({"slot": slot, "reboot": will_reboot}), || text);
    // The ESP is unmounted here, so that the reboot cannot leave it dirty.
    drop(context);
    if will_reboot {
        reboot::reboot(&Reboot::Now).context(
            "the rollback is recorded, but the host could not be rebooted: reboot by hand",
        )?;
    }
    Ok(Exit::Ok)
}
