//! Is this host healthy: the operator's units are active and his checks pass.
//!
//! systemd's own view comes before: this is asked after boot-complete.target.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use protocol::pattern::{Exec, Shell};

use crate::config::HealthPolicy;
use crate::shell::{Bounded, TIMED_OUT};

/// A unit or a check that takes longer has failed. It is asked again until the deadline.
const CHECK_MAX: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);
/// As much of a check's last line as is shown.
const SAID_MAX: usize = 200;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// A unit is not active.
    Unit {
        /// Its name.
        name: String,
        /// What systemd says of it.
        state: String,
    },
    /// A check did not end with 0.
    Check {
        /// Which one, counted from 1. Its text is the operator's and may hold secrets.
        number: usize,
        /// Its exit code.
        code: i32,
        /// Its last line.
        said: String,
    },
    /// A check could not be run.
    Shell {
        /// Which one, counted from 1.
        number: usize,
        /// What the system says.
        why: String,
    },
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { name, state } => write!(f, "{name} is {state}"),
            Self::Check { number, code, said } if said.is_empty() => {
                write!(f, "check {number} ends with {code}")
            }
            Self::Check { number, code, said } => {
                write!(f, "check {number} ends with {code} and says {said:?}")
            }
            Self::Shell { number, why } => write!(f, "check {number} cannot be run: {why}"),
        }
    }
}

/// Asks until nothing is complained about or no time is left; then says what it was. Everything is
/// asked once at least. `meanwhile` is told what it is that is waited for.
pub fn wait(
    health: &HealthPolicy,
    left: impl Fn() -> Duration,
    meanwhile: impl Fn(&[Complaint]),
) -> Result<(), Vec<Complaint>> {
    loop {
        let complaints = ask_within(health, || left().clamp(PAUSE, CHECK_MAX));
        if complaints.is_empty() {
            return Ok(());
        }
        if left() < PAUSE {
            return Err(complaints);
        }
        meanwhile(&complaints);
        std::thread::sleep(PAUSE);
    }
}

/// Asks once.
pub fn ask(health: &HealthPolicy) -> Result<(), Vec<Complaint>> {
    let complaints = ask_within(health, || CHECK_MAX);
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// Every unit and every check has the time that is left when it is asked.
fn ask_within(health: &HealthPolicy, time_max: impl Fn() -> Duration) -> Vec<Complaint> {
    let units = health.units.iter().filter_map(|name| unit(name, time_max()));
    let checks = health.checks.iter().enumerate();
    let checks = checks.filter_map(|(index, text)| check(index + 1, text, time_max()));
    units.chain(checks).collect()
}

/// systemd itself may be what hangs, and systemctl with it.
fn unit(name: &str, time_max: Duration) -> Option<Complaint> {
    let systemctl = Exec { command: "systemctl".into(), flags: "is-active --".into() };
    let state = match Bounded::within(&systemctl, time_max).run(name, &BTreeMap::new()) {
        Ok(output) if output.code == 0 => return None,
        Ok(output) if output.code == TIMED_OUT => {
            format!("not known: systemctl did not answer in {} s", time_max.as_secs())
        }
        Ok(output) => match last_line(&output.text) {
            said if said.is_empty() => "not known to systemd".to_owned(),
            // A state is one word. More of them say why there is none.
            said if said.contains(' ') => format!("not known: systemctl says {said:?}"),
            state => state,
        },
        Err(error) => format!("not known: systemctl cannot be run: {error}"),
    };
    Some(Complaint::Unit { name: name.to_owned(), state })
}

fn check(number: usize, text: &str, time_max: Duration) -> Option<Complaint> {
    let shell = Exec { command: "/bin/sh".into(), flags: "-c".into() };
    let output: io::Result<_> = Bounded::within(&shell, time_max).run(text, &BTreeMap::new());
    match output {
        Ok(output) if output.code == 0 => None,
        Ok(output) => {
            let said = last_line(&output.text);
            Some(Complaint::Check { number, code: output.code, said })
        }
        Err(error) => Some(Complaint::Shell { number, why: error.to_string() }),
    }
}

/// The last line that says something, as much of it as is shown.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().chars().take(SAID_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn health(checks: &[String]) -> HealthPolicy {
        HealthPolicy { checks: checks.to_vec(), ..HealthPolicy::default() }
    }

    #[test]
    fn checks_are_asked_again_until_they_pass() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seen").display().to_string();
        // Fails once.
        let twice = health(&[format!("test -e {file} || {{ touch {file}; false; }}")]);
        let since = Instant::now();
        let left = || Duration::from_secs(60).saturating_sub(since.elapsed());
        assert_eq!(wait(&twice, left, |_| ()), Ok(()));
        assert!(since.elapsed() >= PAUSE);
        assert_eq!(wait(&health(&[]), || Duration::ZERO, |_| ()), Ok(()));
    }

    #[test]
    fn complaints_say_what_and_not_how_it_was_asked() {
        let checks = ["echo first; echo no SECRET; exit 7".to_owned(), "kill -9 $$".to_owned()];
        let complaints = wait(&health(&checks), || Duration::ZERO, |_| ()).unwrap_err();
        let text: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        let expected = ["check 1 ends with 7 and says \"no SECRET\"", "check 2 ends with 137"];
        assert_eq!(text, expected);
    }

    #[test]
    fn a_check_that_hangs_is_ended() {
        let since = Instant::now();
        let complaints =
            wait(&health(&["sleep 1000".into()]), || Duration::ZERO, |_| ()).unwrap_err();
        assert!(complaints[0].to_string().contains("ends with 124"), "{complaints:?}");
        assert!(since.elapsed() < Duration::from_secs(30));
    }
}
