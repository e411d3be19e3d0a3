//! When the host may reboot into what was installed: [`decide`], pure; and what it takes to ask.
//!
//! Nothing is kept between two runs but the trial in grubenv. A reboot that must wait is decided anew
//! by the next `update`, and [`Wake`] sees to it that this one comes in time.

mod calendar;
mod logind;

use std::fmt;
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::reboot::RebootMode;

pub use self::calendar::{CalendarError, Opening, opening};
pub use self::logind::busy;
use crate::config::{Reboot, Window};
use crate::host::Host;

/// How long to wait for users to log out and for inhibitors to be released before looking again.
const BUSY_WAIT: u64 = 15 * 60;
/// A timer that is in the past when systemd takes it never elapses: on a slow host a second is not
/// enough. Every window is much longer than this.
const LEAD: u64 = 60;
/// A fleet does not reboot in one second, as far as a window leaves time for that.
const SPREAD_MAX: Duration = Duration::from_secs(15 * 60);
/// Services have 90 s to end, and some have it twice.
const ORDERLY_MAX: Duration = Duration::from_secs(5 * 60);
/// To write what other disks' caches hold.
const SYNC_MAX: Duration = Duration::from_secs(30);
/// The transient units that wake us: one name, so that they are replaced and do not pile up.
const WAKE_UNIT: &str = "etchaos-updater-again";
/// The unit that runs `update`, with its sandbox.
const UPDATE_UNIT: &str = "etchaos-updater.service";

/// Somebody who would mind a reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Busy {
    /// Is logged in.
    User(String),
    /// Holds an inhibitor against a shutdown.
    Inhibitor {
        /// Who says so.
        who: String,
        /// What for.
        why: String,
    },
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "{name} is logged in"),
            Self::Inhibitor { who, why } => write!(f, "{who} inhibits a shutdown ({why})"),
        }
    }
}

/// Everything that the decision depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who would mind.
    pub busy: Vec<Busy>,
    /// What the window of the policy is like, if the policy has one.
    pub opening: Option<Opening>,
    /// Unix seconds.
    pub now: u64,
}

impl Facts {
    /// Looks at what the policy asks for, and at nothing else.
    pub fn look(host: &Host, policy: &Reboot, now: u64) -> Result<Self, CalendarError> {
        let opening = match policy {
            Reboot::Window(window) => Some(opening(window, now)?),
            Reboot::Now | Reboot::Idle | Reboot::Never => None,
        };
        let busy = if policy.is_idle_only() { busy(host) } else { Vec::new() };
        Ok(Self { busy, opening, now })
    }
}

/// Whether to reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// At once.
    Now,
    /// Not yet.
    Later {
        /// Why not.
        why: String,
        /// When to decide again.
        wake: Wake,
    },
    /// Somebody else has to.
    Never {
        /// Why.
        why: String,
    },
}

/// From policy and facts to the decision.
pub fn decide(policy: &Reboot, facts: &Facts) -> Decision {
    let spread = match policy {
        Reboot::Never => {
            let why = "the configuration says \"reboot\": \"never\"".to_owned();
            return Decision::Never { why };
        }
        Reboot::Now | Reboot::Idle => Duration::ZERO,
        Reboot::Window(Window { duration, .. }) => SPREAD_MAX.min(*duration / 4),
    };
    match facts.opening {
        Some(Opening::Never) => {
            let why = "the reboot window of the configuration never opens again".to_owned();
            return Decision::Never { why };
        }
        Some(Opening::At(at)) => {
            let why = "the reboot window is shut".to_owned();
            let at = at.max(facts.now.saturating_add(LEAD));
            return Decision::Later { why, wake: Wake { at, spread } };
        }
        Some(Opening::Open) | None => {}
    }
    match facts.busy.first() {
        Some(first) if policy.is_idle_only() => {
            let more = match facts.busy.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let at = facts.now.saturating_add(BUSY_WAIT);
            let wake = Wake { at, spread: Duration::ZERO };
            Decision::Later { why: format!("{first}{more}"), wake }
        }
        _ => Decision::Now,
    }
}

/// When to decide again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// Unix seconds.
    pub at: u64,
    /// At most this much later, at random.
    pub spread: Duration,
}

impl Wake {
    /// The commands that arrange it, in order: the timer of an earlier run is removed (where there is
    /// none, that fails, and does not matter), and a new one starts the update service, which is the
    /// one that decides.
    ///
    /// The timer's own service is another than the update service, which may be the one that we run in,
    /// and it is gone in a moment: so the name is always free to be used again.
    pub fn commands(&self) -> [Vec<String>; 2] {
        let stop = ["systemctl", "stop", &format!("{WAKE_UNIT}.timer")].map(str::to_owned);
        let run = [
            "systemd-run",
            "--quiet",
            "--collect",
            "--description=Reboot into the new EtchaOS when it is time",
            &format!("--unit={WAKE_UNIT}"),
            &format!("--on-calendar=@{}", self.at),
            &format!("--timer-property=RandomizedDelaySec={}s", self.spread.as_secs()),
            "systemctl",
            "start",
            "--no-block",
            UPDATE_UNIT,
        ]
        .map(str::to_owned);
        [stop.to_vec(), run.to_vec()]
    }

    /// Runs them.
    pub fn arrange(&self) -> Result<(), CommandError> {
        let [stop, start] = self.commands();
        if let Err(error) = run(&stop) {
            log::debug!("{error}");
        }
        run(&start)
    }
}

/// Reboots.
///
/// Where somebody inhibits it, systemd refuses: since version 257 also root, unless polkit is there and
/// allows it, whatever `--check-inhibitors=` says. A policy that does not wait for them then asks the
/// service manager itself, which knows of no inhibitors.
pub fn reboot(policy: &Reboot) -> Result<(), CommandError> {
    let words = ["systemctl", "reboot"].map(str::to_owned);
    match run(&words) {
        Err(error) if !policy.is_idle_only() => {
            log::warn!("{error}: rebooting all the same, as configured");
            let words = [
                "systemctl",
                "start",
                "--no-block",
                "--job-mode=replace-irreversibly",
                "reboot.target",
            ];
            run(&words.map(str::to_owned))
        }
        done => done,
    }
}

/// Reboots, also where systemd does not: a host that hangs here hangs for ever. Ends with the host; or,
/// where the host is a directory, when the reboot was asked for.
pub fn by_all_means(host: &Host) -> Result<(), CommandError> {
    // systemd itself may be what hangs.
    let asked = within(ORDERLY_MAX, || reboot(&Reboot::Now));
    if !host.is_this_one() {
        return asked.unwrap_or(Ok(()));
    }
    match asked {
        Some(Ok(())) => std::thread::sleep(ORDERLY_MAX),
        Some(Err(error)) => log::error!("{error}"),
        None => {}
    }
    log::error!("systemd did not reboot: the kernel is told to");
    // The ESP is not mounted by us, and nothing else is worth more than the reboot: a disk that hangs
    // would keep us here for ever.
    within(SYNC_MAX, nix::unistd::sync);
    match nix::sys::reboot::reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(why) => Err(CommandError::Start { program: "reboot(2)".into(), why: why.into() }),
    }
}

/// What `ask` says, if it says it in this time. Who asks a disk that hangs gets no answer and cannot be
/// ended: that thread is left behind.
pub(crate) fn within<T: Send + 'static>(
    time: Duration,
    ask: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel();
    // Nobody may be waiting for the answer any more.
    std::thread::spawn(move || sender.send(ask()).is_ok());
    receiver.recv_timeout(time).ok()
}

/// A program that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be run.
    #[error("{program} cannot be run: {why}")]
    Start {
        /// Its name.
        program: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// It failed.
    #[error("{command} failed ({status}): {said}")]
    Failed {
        /// Name and arguments.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last line that it said.
        said: String,
    },
}

fn run(words: &[String]) -> Result<(), CommandError> {
    output(words).map(|_| ())
}

/// What a program prints.
pub(crate) fn output(words: &[String]) -> Result<String, CommandError> {
    let (program, arguments) = match words.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", words),
    };
    // systemctl takes a mount namespace and few capabilities for a chroot, in which it does nothing.
    let ran = Command::new(program).args(arguments).env("SYSTEMD_IGNORE_CHROOT", "1").output();
    let Output { status, stdout, stderr } =
        ran.map_err(|why| CommandError::Start { program: program.to_owned(), why })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    let said =
        said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
    Err(CommandError::Failed { command: words.join(" "), status, said: said.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn window(idle: bool) -> Reboot {
        let duration = Duration::from_secs(7200);
        Reboot::Window(Window { calendar: "Sat 02:00".into(), duration, idle })
    }

    fn root() -> Busy {
        Busy::User("root".into())
    }

    fn decided(policy: &Reboot, busy: &[Busy], opening: Option<Opening>) -> Decision {
        decide(policy, &Facts { busy: busy.to_vec(), opening, now: NOW })
    }

    fn later(decision: Decision) -> (String, Wake) {
        match decision {
            Decision::Later { why, wake } => (why, wake),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_policy_decides() {
        let busy = [root(), Busy::Inhibitor { who: "backup".into(), why: "is running".into() }];
        assert_eq!(decided(&Reboot::Now, &busy, None), Decision::Now);
        assert_eq!(decided(&Reboot::Idle, &[], None), Decision::Now);
        assert!(matches!(decided(&Reboot::Never, &[], None), Decision::Never { .. }));

        let (why, wake) = later(decided(&Reboot::Idle, &busy, None));
        assert_eq!(why, "root is logged in, and 1 more");
        assert_eq!(wake, Wake { at: NOW + 900, spread: Duration::ZERO });
        let (why, _) = later(decided(&Reboot::Idle, &busy[1..], None));
        assert_eq!(why, "backup inhibits a shutdown (is running)");
    }

    #[test]
    fn a_window_is_waited_for_and_users_keep_it_shut() {
        let at = Some(Opening::At(NOW + 5000));
        for policy in [window(true), window(false)] {
            let (why, wake) = later(decided(&policy, &[root()], at));
            assert!(why.contains("shut"), "{why}");
            assert_eq!(wake, Wake { at: NOW + 5000, spread: Duration::from_secs(900) });
            assert_eq!(decided(&policy, &[], Some(Opening::Open)), Decision::Now);
            let never = decided(&policy, &[], Some(Opening::Never));
            assert!(matches!(never, Decision::Never { .. }));
        }
        let (_, wake) = later(decided(&window(true), &[], Some(Opening::At(NOW + 1))));
        assert_eq!(wake.at, NOW + LEAD);
        assert_eq!(decided(&window(false), &[root()], Some(Opening::Open)), Decision::Now);
        let (why, wake) = later(decided(&window(true), &[root()], Some(Opening::Open)));
        assert_eq!((why.as_str(), wake.at), ("root is logged in", NOW + 900));
    }

    #[test]
    fn what_does_not_answer_is_not_waited_for() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (never, silence) = channel::<()>();
        assert_eq!(within(Duration::from_millis(20), move || silence.recv()), None);
        drop(never);
    }

    #[test]
    fn short_windows_are_spread_less() {
        let duration = Duration::from_secs(600);
        let policy = Reboot::Window(Window { calendar: "02:00".into(), duration, idle: true });
        let (_, wake) = later(decided(&policy, &[], Some(Opening::At(NOW + 1))));
        assert_eq!(wake.spread, Duration::from_secs(150));
    }

    #[test]
    fn the_timer_has_one_name_and_starts_the_service() {
        let [stop, run] = Wake { at: 5, spread: Duration::from_secs(7) }.commands();
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

    #[test]
    fn a_program_that_fails_is_quoted() {
        let words = |script: &str| ["sh", "-c", script].map(str::to_owned);
        assert_eq!(output(&words("echo $SYSTEMD_IGNORE_CHROOT")).unwrap(), "1\n");
        let error =
            output(&words("echo first >&2; echo last >&2; exit 3")).unwrap_err().to_string();
        assert!(
            error.contains("last") && error.contains('3') && !error.contains("first\n"),
            "{error}"
        );
        let error = output(&["/nonexistent/x".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/x cannot be run"), "{error}");
    }
}
