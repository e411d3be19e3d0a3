//! Reboots the host now, or schedules the next decision.

use std::time::Duration;

use nix::sys::reboot::RebootMode;

use super::decision::Retry;
use crate::config::Reboot;
use crate::host::Host;
use crate::process::{ProcessError, systemd_stdout};
use crate::schedule::{REQUEST_TIMEOUT, Timer};
use crate::timeout::run_with_timeout;

/// The timeout of an orderly shutdown. Services have 90 s to end, and some have twice that.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The timeout of sync(2), which writes what the caches of other disks hold.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Starts the unit that runs `update` in its sandbox.
const RETRY: Timer = Timer {
    name: "etchaos-updater-again",
    description: "Reboot into the new EtchaOS when it is time",
    unit: "etchaos-updater.service",
};

/// Schedules a run of the update service, which decides again.
///
/// # Errors
/// Fails if systemd does not accept the timer.
pub(crate) fn schedule(retry: Retry) -> Result<(), ProcessError> {
    RETRY.set(retry.at, retry.spread)
}

/// Asks systemd to reboot.
///
/// systemd refuses to reboot while an inhibitor is held. Since version 257 it also refuses root, unless
/// polkit is installed and allows the reboot, whatever `--check-inhibitors=` says. If the policy does not
/// wait for inhibitors, this function then starts reboot.target, for which systemd checks no inhibitors.
///
/// # Errors
/// Fails if systemd refuses or does not answer.
pub(crate) fn reboot(policy: &Reboot) -> Result<(), ProcessError> {
    match systemd_stdout(&["systemctl", "reboot"], REQUEST_TIMEOUT) {
        Err(error) if !policy.is_idle_only() => {
            log::warn!(
                "{error}: starting reboot.target, because \"reboot\" does not wait for users"
            );
            let start = [
                "systemctl",
                "start",
                "--no-block",
                "--job-mode=replace-irreversibly",
                "reboot.target",
            ];
            systemd_stdout(&start, REQUEST_TIMEOUT).map(drop)
        }
        result => result.map(drop),
    }
}

/// Reboots through systemd or, if systemd does not reboot in time, through the kernel.
///
/// It does not return on success, unless `host` is only a directory tree. In that case it returns after
/// the request to systemd.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn force_reboot(host: &Host) -> Result<(), ProcessError> {
    // The timeout is needed because systemctl may be blocked in the kernel.
    let requested = run_with_timeout(SHUTDOWN_TIMEOUT, || reboot(&Reboot::Now));
    if !host.is_running_host() {
        return requested.unwrap_or(Ok(()));
    }
    match requested {
        Some(Ok(())) => std::thread::sleep(SHUTDOWN_TIMEOUT),
        Some(Err(error)) => log::error!("{error}"),
        None => {}
    }
    log::error!("systemd did not reboot the host: rebooting through the kernel");
    // This process has not mounted the ESP. A disk that hangs must not prevent the reboot.
    run_with_timeout(SYNC_TIMEOUT, nix::unistd::sync);
    match nix::sys::reboot::reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(error) => Err(ProcessError::Start { program: "reboot(2)".into(), error: error.into() }),
    }
}
