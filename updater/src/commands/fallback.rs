//! The command `fallback`, which systemd units run if a boot did not become healthy.

use std::time::Duration;

use anyhow::{Context, Result};
use protocol::esp::Slot;
use serde_json::json;

use super::health::{read_config, time_left};
use super::output::print_or_warn;
use crate::cli::{Exit, Fallback, Global};
use crate::config::{Ask, HealthPolicy};
use crate::confirmation::is_recorded_as_confirmed;
use crate::esp::{Access, Esp, EspError};
use crate::grubenv_file::GrubenvFile;
use crate::host::Host;
use crate::reboot::force_reboot;
use crate::timeout::run_with_timeout;
use crate::trial::is_on_trial;

/// The time between two attempts to read the configuration. The disk may not be there yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The timeout of reading the ESP. Waiting for another process or for a repair fails earlier, so a
/// read that takes longer than this means that the disk hangs, perhaps because of the driver in the new
/// kernel.
const DISK_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The timeout of reading the configuration again at the deadline. The disk may have failed since.
const AGAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Reboots the host if the running slot is on trial and not confirmed.
///
/// A host that is not on trial is never rebooted: it would boot the same slot again and again.
pub(super) fn fallback(global: &Global, arguments: &Fallback) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let running = host.running().context("cannot read the kernel command line")?;
    let on_trial = host.on_trial().context("cannot read the kernel command line")?;
    let Some(slot) = running.filter(|_| on_trial) else {
        return report_no_reboot(global, "the running slot is not on trial");
    };
    if arguments.at_deadline {
        wait_for_deadline(global, &host);
    }
    if is_confirmed(global, &host, slot) {
        return report_no_reboot(global, &format!("slot {slot} is confirmed"));
    }
    log::error!(slot = slot.to_string().as_str();
        "slot {slot} is on trial and did not become healthy: rebooting; the boot loader tries it again, or falls back");
    print_or_warn(global, &json!({"reboot": true}), || {
        format!("slot {slot} is on trial: rebooting")
    });
    force_reboot(&host)?;
    Ok(Exit::Ok)
}

fn report_no_reboot(global: &Global, reason: &str) -> Result<Exit> {
    log::info!("no reboot: {reason}");
    print_or_warn(global, &json!({"reboot": false}), || format!("no reboot: {reason}"));
    Ok(Exit::Ok)
}

/// Waits for the configured deadline, or for the default one if the configuration cannot be read before
/// that. The fallback must work even if the new kernel has no driver for the disk or the disk hangs.
///
/// The configuration is read again at the deadline: this command starts before the network, and another
/// one reads the user data of a cloud machine later, which may have a later deadline. If it cannot be read
/// then, the known deadline applies.
fn wait_for_deadline(global: &Global, host: &Host) {
    let Some(mut deadline) = configured_deadline(global, host) else { return };
    loop {
        let left = time_left(host, deadline);
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left);
        if time_left(host, deadline).is_zero() {
            match read_deadline(global, host, AGAIN_TIMEOUT) {
                Some(Ok(again)) => deadline = again,
                Some(Err(error)) => log::error!("{error:#}"),
                None => log::error!("cannot read the configuration: the disk does not respond"),
            }
        }
    }
}

/// Returns the configured deadline, or `None` if the configuration cannot be read before the default one.
fn configured_deadline(global: &Global, host: &Host) -> Option<Duration> {
    loop {
        let left = time_left(host, HealthPolicy::DEADLINE);
        match read_deadline(global, host, left.max(DISK_TIMEOUT)) {
            Some(Ok(deadline)) => return Some(deadline),
            Some(Err(error)) if left.is_zero() => {
                log::error!("{error:#}");
                return None;
            }
            Some(Err(_)) => std::thread::sleep(RETRY_INTERVAL.min(left)),
            None => {
                log::error!("cannot read the configuration: the disk does not respond");
                return None;
            }
        }
    }
}

/// Reads the configured deadline. Returns `None` after `timeout`.
fn read_deadline(global: &Global, host: &Host, timeout: Duration) -> Option<Result<Duration>> {
    let (global, host) = (global.clone(), host.clone());
    let read = move || Ok(read_config(&global, &host, Ask::Cache)?.health.deadline);
    run_with_timeout(timeout, read)
}

/// Returns whether the running slot is confirmed. If grubenv cannot be read, only a confirmation in this
/// boot counts.
fn is_confirmed(global: &Global, host: &Host, running: Slot) -> bool {
    if is_recorded_as_confirmed(host, running) {
        return true;
    }
    let (directory, owned_host) = (global.esp.clone(), host.clone());
    let read = move || -> Result<bool, EspError> {
        let Some(esp) = Esp::open(&owned_host, directory.as_deref(), Access::Read)? else {
            return Ok(false);
        };
        let grubenv = GrubenvFile::read(&esp, running);
        Ok(grubenv.problem.is_none() && !is_on_trial(&grubenv.state, running))
    };
    match run_with_timeout(DISK_TIMEOUT, read) {
        Some(Ok(is_confirmed)) => return is_confirmed,
        Some(Err(error)) => log::error!("{error}"),
        None => log::error!("cannot read grubenv: the disk does not respond"),
    }
    // `confirm` may have finished in the meantime.
    is_recorded_as_confirmed(host, running)
}
