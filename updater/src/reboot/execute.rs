//! Reboots the host now, or schedules the next decision.

use std::time::Duration;

use nix::sys::reboot::RebootMode;

use super::decision::Retry;
use crate::config::Reboot;
use crate::host::Host;
use crate::process::{ProcessError, systemd_stdout};
use crate::timeout::run_with_timeout;

/// The timeout of a request to systemd. D-Bus calls time out after 25 s (sd_bus_set_method_call_timeout(3)).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of an orderly shutdown. Services have 90 s to end, and some have twice that.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The timeout of sync(2), which writes what the caches of other disks hold.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// The name of the transient units that start the next run. It is fixed, so that a new timer replaces the
/// previous one.
const RETRY_UNIT: &str = "etchaos-updater-again";
/// The unit that runs `update` in its sandbox.
const UPDATE_UNIT: &str = "etchaos-updater.service";

/// Schedules a run of the update service, which decides again.
///
/// # Errors
/// Fails if systemd does not accept the timer.
pub(crate) fn schedule(retry: Retry) -> Result<(), ProcessError> {
    let [stop, start] = schedule_commands(retry);
    if let Err(error) = systemd_stdout(&stop, REQUEST_TIMEOUT) {
        log::debug!("{error}");
    }
    systemd_stdout(&start, REQUEST_TIMEOUT).map(drop)
}

/// Returns the commands for [`schedule`]. The first one removes the timer of an earlier run; it fails if
/// there is none, which is harmless. The second one creates the new timer.
///
/// The timer activates a transient service that starts the update service and ends at once, so that the
/// name of the transient units is free for the next run. The timer cannot activate the update service
/// itself, because this code may be running in it.
fn schedule_commands(retry: Retry) -> [Vec<String>; 2] {
    let stop = ["systemctl", "stop", &format!("{RETRY_UNIT}.timer")].map(str::to_owned);
    let run = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--description=Reboot into the new EtchaOS when it is time",
        &format!("--unit={RETRY_UNIT}"),
        &format!("--on-calendar=@{}", retry.at),
        &format!("--timer-property=RandomizedDelaySec={}s", retry.spread.as_secs()),
        "systemctl",
        "start",
        "--no-block",
        UPDATE_UNIT,
    ]
    .map(str::to_owned);
    [stop.to_vec(), run.to_vec()]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_the_update_service_with_a_fixed_timer_name() {
        let [stop, run] = schedule_commands(Retry { at: 5, spread: Duration::from_secs(7) });
        assert_eq!(stop, ["systemctl", "stop", "etchaos-updater-again.timer"]);
        assert_eq!(
            run,
            [
                "systemd-run",
                "--quiet",
                "--collect",
                "--description=Reboot into the new EtchaOS when it is time",
                "--unit=etchaos-updater-again",
                "--on-calendar=@5",
                "--timer-property=RandomizedDelaySec=7s",
                "systemctl",
                "start",
                "--no-block",
                "etchaos-updater.service",
            ]
        );
    }
}
