//! `status`

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::context::Context;
use super::metrics;
use super::output::print;
use crate::cli::{Exit, Global};
use crate::clock::now;
use crate::config::ConfigError;
use crate::esp::EspError;
use crate::host::Host;
use crate::reboot::output;
use crate::slots::survey;
use crate::status::{Disk, Records, Status};

/// The timers that start an update.
const TIMERS: [&str; 2] = ["etchaos-updater.timer", "etchaos-updater-again.timer"];

pub(super) fn status(global: &Global) -> Result<Exit> {
    let (status, exit) = match Context::for_inspection(global) {
        Ok((context, Some(why))) => {
            log::error!("{why}");
            let status = gather(global, &context)?;
            (
                Status { policy: None, config: json!(null), problem: Some(why), ..status },
                Exit::Error,
            )
        }
        Ok((context, None)) => {
            let status = gather(global, &context)?;
            metrics::write(&context.settings, &status);
            (status, Exit::Ok)
        }
        // Who is not root sees what can be seen without the ESP.
        Err(error) if needs_root(&error) => (without_esp(global, format!("{error:#}"))?, Exit::Ok),
        // Without the image's keys nothing can be said of the slots. The rest may be what is looked for.
        Err(error) if error.is::<ConfigError>() => {
            log::error!("{error:#}");
            (without_esp(global, format!("{error:#}"))?, Exit::Error)
        }
        Err(error) => return Err(error),
    };
    print(global, &status.to_json(), || status.table())?;
    Ok(exit)
}

/// All that is known.
pub(super) fn gather(global: &Global, context: &Context) -> Result<Status> {
    let esp = context.esp()?;
    let slots = survey(esp, &context.settings.keys);
    let grubenv = context.grubenv(&slots)?;
    let disk = Disk { slots, boot: grubenv.state, grubenv_problem: grubenv.problem };
    Ok(Status {
        disk: Ok(disk),
        policy: Some(context.settings.reboot.clone()),
        config: context.merged.to_json(),
        ..without_esp(global, String::new())?
    })
}

fn without_esp(global: &Global, why: String) -> Result<Status> {
    let host = Host::new(&global.host_root);
    let now = now();
    Ok(Status {
        now,
        running: host.running().context("cannot read the kernel command line")?,
        image: host.os_release("IMAGE_VERSION").context("cannot read /etc/os-release")?,
        disk: Err(why),
        problem: None,
        policy: None,
        config: json!(null),
        records: Records::read(&host, now),
        next_poll: next_poll(),
    })
}

fn needs_root(error: &anyhow::Error) -> bool {
    let of_esp = |error: &EspError| matches!(error, EspError::NotRoot(_));
    error.downcast_ref::<EspError>().is_some_and(of_esp)
        || matches!(error.downcast_ref(), Some(ConfigError::NotRoot { .. }))
}

/// The first time that one of our timers elapses. Not known, where systemd does not run.
fn next_poll() -> Option<u64> {
    let words = ["systemctl", "list-timers", "--all", "--output=json", "--no-pager"];
    let words: Vec<String> = words.into_iter().chain(TIMERS).map(str::to_owned).collect();
    let answer = output(&words).map_err(|error| log::debug!("{error}")).ok()?;
    first_elapse(&serde_json::from_str(&answer).ok()?)
}

/// Timers are a list of objects with `next` in microseconds since 1970; a timer that will not elapse
/// has none, 0 or the largest number.
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
    fn the_first_of_our_timers_counts() {
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
