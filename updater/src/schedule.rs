//! Transient timers that start a unit of the updater again.

use std::time::Duration;

use crate::process::{ProcessError, systemd_stdout};

/// The timeout of a request to systemd. D-Bus calls time out after 25 s (sd_bus_set_method_call_timeout(3)).
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A transient timer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer {
    /// The name of the transient units. It is fixed, so that a new timer replaces the previous one.
    pub(crate) name: &'static str,
    /// What systemd shows.
    pub(crate) description: &'static str,
    /// The unit that the timer starts.
    pub(crate) unit: &'static str,
}

impl Timer {
    /// Starts the unit at `at`, in Unix seconds, with a random delay of up to `spread`.
    ///
    /// # Errors
    /// Fails if systemd does not accept the timer.
    pub(crate) fn set(self, at: u64, spread: Duration) -> Result<(), ProcessError> {
        let [stop, start] = self.commands(at, spread);
        if let Err(error) = systemd_stdout(&stop, REQUEST_TIMEOUT) {
            log::debug!("{error}");
        }
        systemd_stdout(&start, REQUEST_TIMEOUT).map(drop)
    }

    /// Returns the commands for [`Timer::set`]. The first one removes the timer of an earlier run; it fails if
    /// there is none, which is harmless. The second one creates the new timer.
    ///
    /// The timer activates a transient service that starts the unit and ends at once, so that the name of the
    /// transient units is free for the next run. The timer cannot activate the unit itself, because this code
    /// may be running in it.
    fn commands(self, at: u64, spread: Duration) -> [Vec<String>; 2] {
        let Self { name, description, unit } = self;
        let stop = ["systemctl", "stop", &format!("{name}.timer")].map(str::to_owned);
        let run = [
            "systemd-run",
            "--quiet",
            "--collect",
            &format!("--description={description}"),
            &format!("--unit={name}"),
            &format!("--on-calendar=@{at}"),
            &format!("--timer-property=RandomizedDelaySec={}s", spread.as_secs()),
            "systemctl",
            "start",
            "--no-block",
            unit,
        ]
        .map(str::to_owned);
        [stop.to_vec(), run.to_vec()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_the_unit_with_a_fixed_timer_name() {
        let timer = Timer { name: "x-again", description: "Start x", unit: "x.service" };
        let [stop, run] = timer.commands(5, Duration::from_secs(7));
        assert_eq!(stop, ["systemctl", "stop", "x-again.timer"]);
        assert_eq!(
            run,
            [
                "systemd-run",
                "--quiet",
                "--collect",
                "--description=Start x",
                "--unit=x-again",
                "--on-calendar=@5",
                "--timer-property=RandomizedDelaySec=7s",
                "systemctl",
                "start",
                "--no-block",
                "x.service",
            ]
        );
    }
}
