//! Whether the host may be rebooted: [`decide`], a pure function of the policy and [`Facts`].

use std::time::Duration;

use super::calendar::{CalendarError, Opening, opening};
use super::logind::{Blocker, blockers};
use crate::config::{Reboot, Window};
use crate::host::Host;

/// How long to wait for users to log out and for inhibitors to be released before asking again.
const BUSY_INTERVAL: u64 = 15 * 60;
/// The shortest time until a retry. A timer whose time has passed when systemd loads it never elapses, and
/// on a slow host one second is not enough. Every window is much longer than this.
const RETRY_MIN: u64 = 60;
/// The longest random delay, so that the hosts of a fleet do not all reboot in the same second.
const SPREAD_MAX: Duration = Duration::from_secs(15 * 60);

/// Everything that the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The reasons not to reboot now, if the policy waits for them.
    pub(crate) blockers: Vec<Blocker>,
    /// The state of the policy's window, if it has one.
    pub(crate) opening: Option<Opening>,
    /// Unix seconds.
    pub(crate) now: u64,
}

impl Facts {
    /// Collects the facts that the policy needs.
    ///
    /// # Errors
    /// Fails if the state of the window cannot be determined. A list of users or inhibitors that cannot be
    /// read is not an error but a [`Blocker`].
    pub(crate) fn collect(policy: &Reboot, host: &Host, now: u64) -> Result<Self, CalendarError> {
        let opening = match policy {
            Reboot::Window(window) => Some(opening(window, now)?),
            Reboot::Now | Reboot::Idle | Reboot::Never => None,
        };
        let blockers = if policy.is_idle_only() { blockers(host) } else { Vec::new() };
        Ok(Self { blockers, opening, now })
    }
}

/// Whether to reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Reboot now.
    Now,
    /// Do not reboot yet.
    Later {
        /// The reason.
        reason: String,
        /// When to decide again.
        retry: Retry,
    },
    /// Do not reboot. The operator has to reboot the host.
    Never {
        /// The reason.
        reason: String,
    },
}

/// When to decide again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Unix seconds.
    pub(crate) at: u64,
    /// The longest random delay that is added.
    pub(crate) spread: Duration,
}

/// Decides whether to reboot now.
pub(crate) fn decide(policy: &Reboot, facts: &Facts) -> Decision {
    let spread = match policy {
        Reboot::Never => {
            let reason = "the configuration says \"reboot\": \"never\"".to_owned();
            return Decision::Never { reason };
        }
        Reboot::Now | Reboot::Idle => Duration::ZERO,
        Reboot::Window(Window { duration, .. }) => SPREAD_MAX.min(*duration / 4),
    };
    match facts.opening {
        Some(Opening::Never) => {
            let reason = "the reboot window of the configuration never opens again".to_owned();
            return Decision::Never { reason };
        }
        Some(Opening::At(at)) => {
            let reason = "the reboot window is closed".to_owned();
            let at = at.max(facts.now.saturating_add(RETRY_MIN));
            return Decision::Later { reason, retry: Retry { at, spread } };
        }
        Some(Opening::Open) | None => {}
    }
    match facts.blockers.first() {
        Some(first) if policy.is_idle_only() => {
            let more = match facts.blockers.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let at = facts.now.saturating_add(BUSY_INTERVAL);
            let retry = Retry { at, spread: Duration::ZERO };
            Decision::Later { reason: format!("{first}{more}"), retry }
        }
        _ => Decision::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn window(idle: bool) -> Reboot {
        let duration = Duration::from_secs(7200);
        Reboot::Window(Window { calendar: "Sat 02:00".into(), duration, idle })
    }

    fn root() -> Blocker {
        Blocker::User("root".into())
    }

    fn decision(policy: &Reboot, blockers: &[Blocker], opening: Option<Opening>) -> Decision {
        decide(policy, &Facts { blockers: blockers.to_vec(), opening, now: NOW })
    }

    fn later(decision: Decision) -> (String, Retry) {
        match decision {
            Decision::Later { reason, retry } => (reason, retry),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn decides_by_policy_and_blockers() {
        let inhibitor = Blocker::Inhibitor { who: "backup".into(), why: "is running".into() };
        let blockers = [root(), inhibitor];
        assert_eq!(decision(&Reboot::Now, &blockers, None), Decision::Now);
        assert_eq!(decision(&Reboot::Idle, &[], None), Decision::Now);
        assert!(matches!(decision(&Reboot::Never, &[], None), Decision::Never { .. }));

        let (reason, retry) = later(decision(&Reboot::Idle, &blockers, None));
        assert_eq!(reason, "root is logged in, and 1 more");
        assert_eq!(retry, Retry { at: NOW + 900, spread: Duration::ZERO });
        let (reason, _) = later(decision(&Reboot::Idle, &blockers[1..], None));
        assert_eq!(reason, "backup inhibits a shutdown (is running)");
    }

    #[test]
    fn waits_if_users_or_inhibitors_are_unknown() {
        let unknown = Blocker::Unknown { what: "users", error: "cannot run loginctl".into() };
        for policy in [Reboot::Idle, window(true)] {
            let (reason, retry) =
                later(decision(&policy, std::slice::from_ref(&unknown), Some(Opening::Open)));
            assert_eq!(reason, "cannot list users: cannot run loginctl");
            assert_eq!(retry.at, NOW + 900);
        }
        assert_eq!(decision(&Reboot::Now, &[unknown], None), Decision::Now);
    }

    #[test]
    fn waits_for_the_window_and_for_users_within_it() {
        let at = Some(Opening::At(NOW + 5000));
        for policy in [window(true), window(false)] {
            let (reason, retry) = later(decision(&policy, &[root()], at));
            assert!(reason.contains("closed"), "{reason}");
            assert_eq!(retry, Retry { at: NOW + 5000, spread: Duration::from_secs(900) });
            assert_eq!(decision(&policy, &[], Some(Opening::Open)), Decision::Now);
            let never = decision(&policy, &[], Some(Opening::Never));
            assert!(matches!(never, Decision::Never { .. }));
        }
        let (_, retry) = later(decision(&window(true), &[], Some(Opening::At(NOW + 1))));
        assert_eq!(retry.at, NOW + RETRY_MIN);
        assert_eq!(decision(&window(false), &[root()], Some(Opening::Open)), Decision::Now);
        let (reason, retry) = later(decision(&window(true), &[root()], Some(Opening::Open)));
        assert_eq!((reason.as_str(), retry.at), ("root is logged in", NOW + 900));
    }

    #[test]
    fn spreads_reboots_less_in_short_windows() {
        let duration = Duration::from_secs(600);
        let policy = Reboot::Window(Window { calendar: "02:00".into(), duration, idle: true });
        let (_, retry) = later(decision(&policy, &[], Some(Opening::At(NOW + 1))));
        assert_eq!(retry.spread, Duration::from_secs(150));
    }
}
