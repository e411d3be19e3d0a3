//! Checks whether the host is healthy: the configured units are active and the configured checks pass.
//!
//! This runs after boot-complete.target, so systemd already considers the boot successful.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use protocol::pattern::{Exec, Invocation};

use crate::config::HealthPolicy;
use crate::host::Host;
use crate::process::systemd;
use crate::record;
use crate::shell::LimitedShell;
use crate::sources::{RunState, SourceRuns};

/// The timeout of one query or check. A check that takes longer has failed, and is repeated until the
/// deadline.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How many characters of the last output line of a check are shown.
const LINE_MAX: usize = 200;

/// A reason why the host is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// A unit is not active.
    Unit {
        /// Its name.
        name: String,
        /// Its state according to systemd.
        state: String,
    },
    /// A check exited with a code other than 0.
    Check {
        /// Its number, counted from 1. Its text may contain secrets, so it is not shown.
        number: usize,
        /// Its exit code.
        code: i32,
        /// The last line of its output.
        last_line: String,
    },
    /// The Commands of a source failed, or have not run yet.
    Source {
        /// Its name.
        name: String,
        /// What is wrong, as it continues a sentence.
        problem: &'static str,
    },
    /// A check could not be run.
    Shell {
        /// Its number, counted from 1.
        number: usize,
        /// The error of the operating system.
        error: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit { name, state } => write!(f, "{name} is {state}"),
            Self::Check { number, code, last_line } if last_line.is_empty() => {
                write!(f, "check {number} failed with exit code {code}")
            }
            Self::Check { number, code, last_line } => {
                write!(f, "check {number} failed with exit code {code}: {last_line:?}")
            }
            Self::Source { name, problem } => write!(f, "the source {name} {problem}"),
            Self::Shell { number, error } => write!(f, "cannot run check {number}: {error}"),
        }
    }
}

/// Repeats all checks until there are no problems or no time is left, and returns the problems of the last
/// attempt. Makes at least one attempt. Calls `on_problems` with the problems of each attempt except the
/// last.
pub(crate) fn wait(
    host: &Host,
    health: &HealthPolicy,
    time_left: impl Fn() -> Duration,
    on_problems: impl Fn(&[Problem]),
) -> Vec<Problem> {
    loop {
        let problems = check_all(host, health, || time_left().clamp(CHECK_INTERVAL, CHECK_TIMEOUT));
        if problems.is_empty() || time_left() < CHECK_INTERVAL {
            return problems;
        }
        on_problems(&problems);
        std::thread::sleep(CHECK_INTERVAL);
    }
}

/// Runs all checks once and returns the problems.
pub(crate) fn check_once(host: &Host, health: &HealthPolicy) -> Vec<Problem> {
    check_all(host, health, || CHECK_TIMEOUT)
}

fn check_all(host: &Host, health: &HealthPolicy, timeout: impl Fn() -> Duration) -> Vec<Problem> {
    let units = health.units.iter().filter_map(|name| check_unit(name, timeout()));
    let checks = health.checks.iter().enumerate();
    let checks = checks.filter_map(|(index, text)| run_check(index + 1, text, timeout()));
    units.chain(checks).chain(check_sources(host, health)).collect()
}

/// Returns the problems of the sources that must not fail, according to their last runs in this boot.
fn check_sources(host: &Host, health: &HealthPolicy) -> Vec<Problem> {
    if health.sources.is_empty() {
        return Vec::new();
    }
    let runs = record::read::<SourceRuns>(host).unwrap_or_default();
    let problem = |name: &String| {
        let problem = match runs.sources.get(name).map(|run| run.state) {
            None => "has not run yet",
            Some(RunState::Failed) => "failed",
            Some(RunState::Ok | RunState::Nothing) => return None,
        };
        Some(Problem::Source { name: name.clone(), problem })
    };
    health.sources.iter().filter_map(problem).collect()
}

/// Returns a problem if a unit is not active, or if systemd does not respond.
fn check_unit(name: &str, timeout: Duration) -> Option<Problem> {
    let state = match systemd(&["systemctl", "is-active", "--", name], timeout).run_merged() {
        Ok(finished) => match finished.status {
            Some(status) if status.success() => return None,
            None => {
                format!(
                    "in an unknown state: systemctl did not respond within {} s",
                    timeout.as_secs()
                )
            }
            Some(_) => match last_line(&finished.output) {
                line if line.is_empty() => "not known to systemd".to_owned(),
                // A state is one word; anything longer is an error message.
                line if line.contains(' ') => {
                    format!("in an unknown state: systemctl printed {line:?}")
                }
                state => state,
            },
        },
        Err(error) => format!("in an unknown state: cannot run systemctl: {error}"),
    };
    Some(Problem::Unit { name: name.to_owned(), state })
}

fn run_check(number: usize, text: &str, timeout: Duration) -> Option<Problem> {
    let (exec, env) = (Exec::new("/bin/sh", "-c"), BTreeMap::new());
    let check =
        Invocation { id: "health check", script: text, exec: &exec, stdin: None, env: &env };
    match LimitedShell::with_timeout(timeout).try_run(&check) {
        Ok(output) if output.code == 0 => None,
        Ok(output) => {
            let last_line = last_line(&output.text);
            Some(Problem::Check { number, code: output.code, last_line })
        }
        Err(error) => Some(Problem::Shell { number, error: error.to_string() }),
    }
}

/// Returns the last line that is not empty, cut to [`LINE_MAX`] characters.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or_default().trim().chars().take(LINE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::TIMED_OUT;
    use std::time::Instant;

    fn health(checks: &[String]) -> HealthPolicy {
        HealthPolicy { checks: checks.to_vec(), ..HealthPolicy::default() }
    }

    fn host() -> Host {
        Host::new("/nonexistent")
    }

    #[test]
    fn repeats_checks_until_they_pass() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seen").display().to_string();
        // This check fails once.
        let twice = health(&[format!("test -e {file} || {{ touch {file}; false; }}")]);
        let start = Instant::now();
        let time_left = || Duration::from_secs(60).saturating_sub(start.elapsed());
        assert_eq!(wait(&host(), &twice, time_left, |_| ()), []);
        assert!(start.elapsed() >= CHECK_INTERVAL);
        assert_eq!(wait(&host(), &health(&[]), || Duration::ZERO, |_| ()), []);
    }

    #[test]
    fn problems_do_not_quote_the_check() {
        let checks = ["echo first; echo no SECRET; exit 7".to_owned(), "kill -9 $$".to_owned()];
        let problems = wait(&host(), &health(&checks), || Duration::ZERO, |_| ());
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let expected =
            ["check 1 failed with exit code 7: \"no SECRET\"", "check 2 failed with exit code 137"];
        assert_eq!(text, expected);
    }

    #[test]
    fn ends_a_check_that_hangs() {
        let start = Instant::now();
        let problems = wait(&host(), &health(&["sleep 1000".into()]), || Duration::ZERO, |_| ());
        let text = problems[0].to_string();
        assert!(text.contains(&format!("exit code {TIMED_OUT}")), "{text}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
