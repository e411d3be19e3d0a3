//! Collects the status of the host, for `status` and the metrics.

use anyhow::{Context as _, Result};
use protocol::esp::Slot;
use serde_json::{Value, json};

use super::context::Context;
use crate::cli::Global;
use crate::clock::now;
use crate::host::Host;
use crate::host_status::{Disk, Records, Status};
use crate::install::stored_origins;
use crate::process::{ProcessError, QUERY_TIMEOUT, systemd_stdout};
use crate::slot_content::Content;
use crate::slots::survey;

/// The timers that start an update.
const TIMERS: [&str; 2] = ["etchaos-updater.timer", "etchaos-updater-again.timer"];

/// Returns the complete status of the host. A host that was booted from the network has no ESP.
pub(super) fn gather(global: &Global, context: &Context) -> Result<Status> {
    let (policy, config) = (Some(context.settings.reboot.clone()), context.merged.to_json());
    let problem = context.config_problem();
    let esp = match context.esp() {
        Ok(esp) => esp,
        Err(no_esp) => {
            return Ok(Status {
                problem,
                policy,
                config,
                ..without_esp(global, format!("{no_esp:#}"))?
            });
        }
    };
    let slots = survey(esp, &context.settings.keys);
    let grubenv = context.grubenv()?;
    let origins = Slot::ALL.map(|slot| match slots.get(slot) {
        Content::Complete(manifest) => stored_origins(esp, slot, &manifest.release),
        _ => Vec::new(),
    });
    let boot = grubenv.state;
    let disk = Disk { slots, origins, boot, grubenv_problem: grubenv.problem };
    Ok(Status { disk: Ok(disk), problem, policy, config, ..without_esp(global, String::new())? })
}

/// Returns the part of the status that does not need the ESP. `reason` says why the ESP was not read.
pub(super) fn without_esp(global: &Global, reason: String) -> Result<Status> {
    let host = Host::new(&global.host_root);
    let now = now();
    Ok(Status {
        now,
        running: host.running().context("cannot read the kernel command line")?,
        image: host.os_release("IMAGE_VERSION").context("cannot read /etc/os-release")?,
        disk: Err(reason),
        problem: None,
        policy: None,
        config: json!(null),
        records: Records::read(&host, now),
        next_poll: next_poll(),
    })
}

/// Returns the time in Unix seconds at which the first of [`TIMERS`] elapses, or `None` if systemd is
/// not running or does not respond.
fn next_poll() -> Option<u64> {
    let command = ["systemctl", "list-timers", "--all", "--output=json", "--no-pager"];
    let command: Vec<&str> = command.into_iter().chain(TIMERS).collect();
    let output = match systemd_stdout(&command, QUERY_TIMEOUT) {
        Ok(output) => output,
        Err(error @ ProcessError::TimedOut { .. }) => {
            log::warn!("the time of the next poll is unknown: {error}");
            return None;
        }
        Err(error) => {
            log::debug!("the time of the next poll is unknown: {error}");
            return None;
        }
    };
    first_elapse(&serde_json::from_str(&output).ok()?)
}

/// Returns the first time at which one of [`TIMERS`] elapses, in Unix seconds. systemctl lists timers as
/// objects with `next` in microseconds since 1970; for a timer that will not elapse, `next` is missing, 0,
/// or the largest number.
fn first_elapse(timers: &Value) -> Option<u64> {
    let is_ours =
        |timer: &&Value| timer["unit"].as_str().is_some_and(|unit| TIMERS.contains(&unit));
    let times =
        timers.as_array()?.iter().filter(is_ours).filter_map(|timer| timer["next"].as_u64());
    times.filter(|next| (1..u64::MAX).contains(next)).min().map(|next| next / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_timer() {
        let timers = json!([
            {"next": 1_790_000_100_000_000_u64, "left": 1, "unit": TIMERS[0], "activates": "x"},
            {"next": 1_790_000_000_500_000_u64, "unit": TIMERS[1]},
            {"next": 1, "unit": "other.timer"},
        ]);
        assert_eq!(first_elapse(&timers), Some(1_790_000_000));
        for none in [
            json!([]),
            json!({}),
            json!(null),
            json!([{"unit": TIMERS[0]}, {"next": "soon", "unit": TIMERS[0]}, 7]),
            json!([{"next": 0, "unit": TIMERS[0]}, {"next": u64::MAX, "unit": TIMERS[1]}]),
        ] {
            assert_eq!(first_elapse(&none), None, "{none}");
        }
    }
}
