//! `fallback`: what units call when a boot did not become healthy

use std::time::Duration;

use anyhow::{Context, Result};
use protocol::esp::Slot;
use serde_json::json;

use super::health::{configured, left};
use super::output::print_or_warn;
use crate::cli::{Exit, Fallback, Global};
use crate::config::Health;
use crate::confirmation::is_recorded_as_confirmed;
use crate::esp::{Access, Esp, EspError};
use crate::grubenv_file::GrubenvFile;
use crate::host::Host;
use crate::reboot::{self, within};
use crate::trial::is_on_trial;

/// Between two attempts to read the configuration. The disk may not be there yet.
const PAUSE: Duration = Duration::from_secs(5);
/// What reads the ESP waits for others and for repairs, and then ends with an error. After this time the
/// disk hangs, maybe because of the new kernel's driver.
const DISK_MAX: Duration = Duration::from_secs(10 * 60);

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
    print_or_warn(global, &json!({"reboot": true}), || {
        format!("slot {slot} is on trial: rebooting")
    });
    reboot::by_all_means(&host)?;
    Ok(Exit::Ok)
}

fn stay(global: &Global, why: &str) -> Result<Exit> {
    log::info!("no reboot: {why}");
    print_or_warn(global, &json!({"reboot": false}), || format!("no reboot: {why}"));
    Ok(Exit::Ok)
}

/// Waits for the configured deadline; for the default one, if the configuration cannot be read until
/// then. A kernel that does not know the disk is a reason to go back, too, or one under which it hangs.
fn wait(global: &Global, host: &Host) {
    let deadline = loop {
        let left = left(host, Health::DEADLINE);
        let (global, asked) = (global.clone(), host.clone());
        match within(left.max(DISK_MAX), move || configured(&global, &asked)) {
            Some(Ok(health)) => break health.deadline,
            Some(Err(error)) if left.is_zero() => {
                log::error!("{error:#}");
                return;
            }
            Some(Err(_)) => std::thread::sleep(PAUSE.min(left)),
            None => {
                log::error!("the configuration cannot be read: the disk does not answer");
                return;
            }
        }
    };
    loop {
        match left(host, deadline) {
            Duration::ZERO => return,
            left => std::thread::sleep(left),
        }
    }
}

/// What cannot be read was not confirmed, unless that was done in this boot.
fn is_confirmed(global: &Global, host: &Host, running: Slot) -> bool {
    if is_recorded_as_confirmed(host, running) {
        return true;
    }
    let (directory, asked) = (global.esp.clone(), host.clone());
    let read = move || -> Result<bool, EspError> {
        let Some(esp) = Esp::open(&asked, directory.as_deref(), Access::Read)? else {
            return Ok(false);
        };
        let grubenv = GrubenvFile::read(&esp, running);
        Ok(grubenv.problem.is_none() && !is_on_trial(&grubenv.state, running))
    };
    match within(DISK_MAX, read) {
        Some(Ok(is_confirmed)) => return is_confirmed,
        Some(Err(error)) => log::error!("{error}"),
        None => log::error!("the disk does not answer"),
    }
    // Meanwhile.
    is_recorded_as_confirmed(host, running)
}
