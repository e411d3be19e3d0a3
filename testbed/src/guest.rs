//! A guest that is up, or should be: pushes to it, and waiting for it with reasons to give up.

mod error;
mod timeouts;

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::PrivateKey;
use protocol::pattern::{CommandResult, Mode, Pattern, Report};

use crate::actions;
use crate::cancel::Cancel;
use crate::machine::{BOOT_DISK, Machine};
use crate::push::{PORT, PushClient, PushError};
use crate::qmp::QmpError;
use crate::vm::{Vm, VmError};

pub use self::error::GuestError;
pub use self::timeouts::Timeouts;

/// How many of the console's last lines go into an error.
const CONSOLE_TAIL_LINES: usize = 30;
/// How often the VM is looked at while a push is under way.
const VM_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How often the VM is looked at for something that is over soon.
const OUTSIDE_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes per second of a disk that is slow: a release takes some 15 s.
const SLOW_BYTES_PER_SECOND: u64 = 8 << 20;
/// Between two attempts to reach the guest.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long one attempt may take while the guest boots: QEMU takes the connection at once, even if
/// there is nobody behind it yet.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// For the answer to a push that ends the listener. A reboot swallows an answer without hanging up.
const LAST_PUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a guest may be busy with something else.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// A VM, and how to talk to the updater in it.
pub struct Guest<'a> {
    vm: Vm,
    client: PushClient,
    timeouts: Timeouts,
    cancel: &'a Cancel,
    progress: &'a dyn Fn(&str),
    /// Whether a panic on the console is what is wanted.
    panics: bool,
}

impl<'a> Guest<'a> {
    /// Starts a machine and waits for its first answer. Returns its boot's id, too.
    pub fn boot(
        machine: &Machine,
        dir: &Path,
        logs: &Path,
        key: PrivateKey,
        cancel: &'a Cancel,
        progress: &'a dyn Fn(&str),
    ) -> Result<(Self, String), GuestError> {
        let machine = Machine { forward: Some(PORT), ..machine.clone() };
        let vm = Vm::start(&machine, dir, logs, None)?;
        let client = PushClient::new(vm.port().unwrap_or(PORT), key);
        let timeouts = Timeouts::new(machine.accel);
        let mut guest = Self { vm, client, timeouts, cancel, progress, panics: false };
        let boot = guest.wait(
            "waiting for the guest to boot",
            timeouts.boot,
            actions::boot_id(),
            boot_id,
        )?;
        Ok((guest, boot))
    }

    /// Sends a Pattern. Every Command must succeed.
    pub fn push(
        &mut self,
        waiting: &'static str,
        pattern: Pattern,
        mode: Mode,
    ) -> Result<Report, GuestError> {
        self.push_within(waiting, pattern, mode, self.timeouts.push)
    }

    fn push_within(
        &mut self,
        waiting: &'static str,
        pattern: Pattern,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Report, GuestError> {
        let watch = Watch::new(waiting, timeout);
        let report = loop {
            match self.attempt(&watch, pattern.clone(), mode, timeout)? {
                Ok(report) => break report,
                // It still runs a Pattern whose answer we no longer waited for.
                Err(PushError::Unavailable { .. }) if watch.start.elapsed() < BUSY_TIMEOUT => {
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(source) => {
                    let console_tail = self.vm.console_tail(CONSOLE_TAIL_LINES);
                    return Err(GuestError::Push { waiting, source, console_tail });
                }
            }
        };
        self.check_results(&report)?;
        Ok(report)
    }

    /// Sends a Pattern that may take the listener down before it has answered.
    pub fn push_last(&mut self, waiting: &'static str, pattern: Pattern) -> Result<(), GuestError> {
        match self.push_within(waiting, pattern, Mode::Change, LAST_PUSH_TIMEOUT) {
            Err(GuestError::Push { source: source @ PushError::NoAnswer(_), .. }) => {
                log::info!("{waiting}: {source}; that may be so");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Waits for another boot than `before`, and for its first answer. Returns its id.
    pub fn wait_for_reboot(&mut self, before: &str) -> Result<String, GuestError> {
        self.vm.console().expect_boot();
        let waiting = "waiting for the update and the reboot";
        let other = |report: &Report| boot_id(report).filter(|boot| boot != before);
        self.wait(waiting, self.timeouts.update, actions::watch_update(), other)
    }

    /// Waits for another boot than `before`, whatever has caused it, and for its first answer. Returns
    /// its id.
    pub fn wait_for_boot(&mut self, before: &str) -> Result<String, GuestError> {
        self.vm.console().expect_boot();
        let other = |report: &Report| boot_id(report).filter(|boot| boot != before);
        let waiting = "waiting for the next boot";
        self.wait(waiting, self.timeouts.boot + self.timeouts.update, actions::boot_id(), other)
    }

    /// Waits until `found` finds something from outside of the guest, which is not asked: an update
    /// takes its time in inactivity.
    pub fn wait_until<T>(
        &mut self,
        waiting: &'static str,
        mut found: impl FnMut(&mut Vm) -> Result<Option<T>, QmpError>,
    ) -> Result<T, GuestError> {
        let watch = Watch::new(waiting, self.timeouts.update);
        loop {
            self.check_alive(&watch)?;
            match found(&mut self.vm).map_err(VmError::from)? {
                Some(found) => return Ok(found),
                None if watch.start.elapsed() > watch.timeout => {
                    return Err(self.timed_out(&watch, watch.limit()));
                }
                None => thread::sleep(OUTSIDE_POLL_INTERVAL),
            }
        }
    }

    /// Has the guest write slowly, so that there is a middle in which it can be stopped: what it has
    /// in its memory could else be on the disk within a blink.
    pub fn write_slowly(&mut self) -> Result<(), GuestError> {
        Ok(self.vm.qmp().limit_writes(BOOT_DISK, SLOW_BYTES_PER_SECOND).map_err(VmError::from)?)
    }

    /// Whether the guest may panic from now on.
    pub fn may_panic(&mut self, panics: bool) {
        self.panics = panics;
        self.vm.console().expect_boot();
    }

    /// Resets the machine, as its reset button does: what the guest had not yet written is lost.
    pub fn reset(&mut self) -> Result<(), GuestError> {
        self.vm.qmp().reset().map_err(VmError::from)?;
        self.vm.console().expect_boot();
        Ok(())
    }

    /// Ends QEMU by SIGKILL: a power cut for the guest.
    pub fn kill(self) {
        drop(self);
    }

    /// Powers off: by a push, else by the power button, else by force. Says what it took.
    pub fn power_off(mut self) -> Result<&'static str, GuestError> {
        match self.push_last("powering off", actions::power_off()) {
            // It may be gone before its answer is.
            Err(_) if self.vm.wait(Duration::ZERO).is_some() => {}
            other => other?,
        }
        if self.vm.wait(self.timeouts.power_off).is_some() {
            return Ok("powered off");
        }
        log::warn!("the guest did not power off; {}", self.vm.console_tail(CONSOLE_TAIL_LINES));
        let pressed = self.vm.qmp().power_button();
        if pressed.is_ok() && self.vm.wait(self.timeouts.power_off).is_some() {
            return Ok("powered off, but only by the power button");
        }
        Ok("killed, because it did not power off")
    }

    /// Asks until `found` finds something in a report.
    fn wait(
        &mut self,
        waiting: &'static str,
        timeout: Duration,
        pattern: Pattern,
        found: impl Fn(&Report) -> Option<String>,
    ) -> Result<String, GuestError> {
        let mut watch = Watch::new(waiting, timeout);
        loop {
            match self.attempt(&watch, pattern.clone(), Mode::Check, ATTEMPT_TIMEOUT)? {
                Ok(report) => {
                    self.check_results(&report)?;
                    if let Some(found) = found(&report) {
                        return Ok(found);
                    }
                    watch.answered(&report);
                }
                Err(source) if source.is_temporary() => watch.last_error = source.to_string(),
                Err(source) => {
                    let console_tail = self.vm.console_tail(CONSOLE_TAIL_LINES);
                    return Err(GuestError::Push { waiting, source, console_tail });
                }
            }
            self.check_limits(&watch)?;
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// One push, with an eye on the VM: a guest that panics does not hang up.
    fn attempt(
        &mut self,
        watch: &Watch,
        pattern: Pattern,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Result<Report, PushError>, GuestError> {
        let (send, answer) = mpsc::channel();
        let client = self.client.clone();
        // If we give up first, the thread ends by its own timeout, or when QEMU is gone.
        thread::spawn(move || {
            let _ = send.send(client.push(&pattern, mode, timeout));
        });
        loop {
            match answer.recv_timeout(VM_POLL_INTERVAL) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => self.check_alive(watch)?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Ok(Err(PushError::NoAnswer("the push client panicked".into())));
                }
            }
        }
    }

    fn check_alive(&mut self, watch: &Watch) -> Result<(), GuestError> {
        let waiting = watch.waiting;
        if self.cancel.is_cancelled() {
            return Err(GuestError::Cancelled(waiting));
        }
        let problem = if self.panics { self.vm.exit_report() } else { self.vm.problem() };
        if let Some(what) = problem {
            // What the console says after the first bad line explains it.
            thread::sleep(RETRY_INTERVAL);
            let (after, console_tail) =
                (watch.start.elapsed(), self.vm.console_tail(CONSOLE_TAIL_LINES));
            return Err(GuestError::Failed { waiting, after, what, console_tail });
        }
        if watch.progress_is_due() {
            let line = self.vm.console().last_line().unwrap_or_else(|| "(nothing yet)".into());
            (self.progress)(&format!("{} s: {line}", watch.start.elapsed().as_secs()));
        }
        Ok(())
    }

    fn check_limits(&mut self, watch: &Watch) -> Result<(), GuestError> {
        self.check_alive(watch)?;
        let inactivity = self.vm.console().silent_for().min(watch.last_answer.elapsed());
        let limit = if watch.start.elapsed() > watch.timeout {
            watch.limit()
        } else if inactivity > self.timeouts.inactivity {
            format!(
                "neither the console nor the listener said anything for {} s",
                inactivity.as_secs()
            )
        } else {
            return Ok(());
        };
        Err(self.timed_out(watch, limit))
    }

    fn timed_out(&mut self, watch: &Watch, limit: String) -> GuestError {
        let state = self.vm.qmp().status().unwrap_or_else(|error| error.to_string());
        GuestError::TimedOut {
            waiting: watch.waiting,
            after: watch.start.elapsed(),
            why: format!("{limit} (QEMU's state of the machine: {state})"),
            last_error: watch.last_error.clone(),
            console_tail: self.vm.console_tail(CONSOLE_TAIL_LINES),
        }
    }

    fn check_results(&self, report: &Report) -> Result<(), GuestError> {
        let commands: Vec<CommandResult> = report.failures().cloned().collect();
        if commands.is_empty() {
            return Ok(());
        }
        Err(GuestError::Commands {
            commands,
            console_tail: self.vm.console_tail(CONSOLE_TAIL_LINES),
        })
    }
}

/// What is known while something is waited for.
struct Watch {
    waiting: &'static str,
    timeout: Duration,
    start: Instant,
    last_answer: Instant,
    last_error: String,
    last_progress: std::cell::Cell<Instant>,
}

impl Watch {
    fn new(waiting: &'static str, timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            waiting,
            timeout,
            start: now,
            last_answer: now,
            last_error: "no attempt was made".into(),
            last_progress: now.into(),
        }
    }

    fn answered(&mut self, report: &Report) {
        self.last_answer = Instant::now();
        let outputs = report.results.iter().map(|r| format!("\n  > {}: {}", r.id, r.output.trim()));
        self.last_error = format!("the guest's last answer:{}", outputs.collect::<String>());
    }

    fn limit(&self) -> String {
        format!("that is the limit of {} s", self.timeout.as_secs())
    }

    fn progress_is_due(&self) -> bool {
        let due = self.last_progress.get().elapsed() > PROGRESS_INTERVAL;
        if due {
            self.last_progress.set(Instant::now());
        }
        due
    }
}

fn boot_id(report: &Report) -> Option<String> {
    let result = report.results.iter().find(|result| result.id == actions::BOOT_ID)?;
    Some(result.output.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::pattern::Outcome;

    #[test]
    fn the_boot_is_known_by_its_id() {
        let mut report = Report::default();
        assert_eq!(boot_id(&report), None);
        let (id, output) = (actions::BOOT_ID.to_owned(), "1234\n".to_owned());
        report.results.push(CommandResult { id, outcome: Outcome::Ok, output });
        assert_eq!(boot_id(&report).as_deref(), Some("1234"));
    }
}
