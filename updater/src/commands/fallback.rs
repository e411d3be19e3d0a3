//! `fallback`: what units call when a boot did not become healthy

use std::time::Duration;

use anyhow::{Context, Result};
use protocol::esp::Slot;
use serde_json::json;

use super::health::{configured, left};
use super::tell;
use crate::bootstate::Grubenv;
use crate::cli::{Exit, Fallback, Global};
use crate::config::Health;
use crate::esp::{Access, Esp};
use crate::host::Host;
use crate::reboot;
use crate::trial::is_tried;

/// Between two attempts to read the configuration. The disk may not be there yet.
const PAUSE: Duration = Duration::from_secs(5);

/// A host that is not on trial is never rebooted: it would come back to the same slot, for ever.
pub(super) fn fallback(global: &Global, arguments: &Fallback) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let running = host.running().context("cannot read the kernel command line")?;
    let on_trial = host.on_trial().context("cannot read the kernel command line")?;
    let Some(slot) = running.filter(|_| on_trial) else {
        return stay(global, "the running slot is not on trial");
    };
    if arguments.at_deadline {
        wait(global, &host);
    }
    if is_confirmed(global, &host, slot) {
        return stay(global, &format!("slot {slot} is confirmed"));
    }
    log::error!(slot = slot.to_string().as_str();
        "slot {slot} is on trial and did not become healthy: rebooting; the boot loader tries it again, or falls back");
    tell(global, &json!({"reboot": true}), || format!("slot {slot} is on trial: rebooting"));
    reboot::by_all_means(&host)?;
    Ok(Exit::Ok)
}

fn stay(global: &Global, why: &str) -> Result<Exit> {
    log::info!("no reboot: {why}");
    tell(global, &json!({"reboot": false}), || format!("no reboot: {why}"));
    Ok(Exit::Ok)
}

/// Waits for the configured deadline; for the default one, if the configuration cannot be read until
/// then. A kernel that does not know the disk is a reason to go back, too.
fn wait(global: &Global, host: &Host) {
    let deadline = loop {
        let left = left(host, Health::DEADLINE);
        match configured(global, host) {
            Ok(health) => break health.deadline,
            Err(error) if left.is_zero() => {
                log::error!("{error:#}");
                return;
            }
            Err(_) => std::thread::sleep(PAUSE.min(left)),
        }
    };
    loop {
        match left(host, deadline) {
            Duration::ZERO => return,
            left => std::thread::sleep(left),
        }
    }
}

/// What cannot be read was not confirmed.
fn is_confirmed(global: &Global, host: &Host, running: Slot) -> bool {
    match Esp::open(host, global.esp.as_deref(), Access::Read) {
        Ok(Some(esp)) => {
            let grubenv = Grubenv::read(&esp, running);
            grubenv.problem.is_none() && !is_tried(&grubenv.state, running)
        }
        Ok(None) => false,
        Err(error) => {
            log::error!("{error}");
            false
        }
    }
}
