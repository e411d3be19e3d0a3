//! A running guest: sends pushes to it and waits for it, within time limits.

mod error;
mod timeouts;
mod watch;

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use protocol::PrivateKey;
use protocol::pattern::{CommandResult, Mode, Pattern, Report};

use crate::actions;
use crate::cancel::Cancel;
use crate::figures::{Answer, BootFigures};
use crate::machine::{BOOT_DISK, Machine};
use crate::push::{PORT, PushClient, PushError};
use crate::qmp::QmpError;
use crate::vm::{Vm, VmError};

pub(crate) use self::error::GuestError;
pub(crate) use self::timeouts::Timeouts;
use self::watch::Watch;

/// The number of console lines that an error shows.
const CONSOLE_TAIL_LINES: usize = 30;
/// Time between two checks of the VM while a push is in progress.
const VM_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two checks of a condition outside the guest, which may hold only briefly.
const CONDITION_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The write limit of a slow disk in bytes per second. Writing a release takes about 15 s then.
const SLOW_BYTES_PER_SECOND: u64 = 8 << 20;
/// Time between two attempts to reach the guest.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The limit for one attempt while the guest boots. QEMU accepts the connection even before the
/// listener runs, and no answer comes then.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// The limit for the answer to a push that ends the listener. The guest may reboot without answering
/// and without closing the connection.
const FINAL_PUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for which a push is repeated while the guest runs another Pattern.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// A VM and a push client for the updater in it.
pub(crate) struct Guest<'a> {
    vm: Vm,
    client: PushClient,
    timeouts: Timeouts,
    cancel: &'a Cancel,
    progress: &'a dyn Fn(&str),
    /// Whether a fatal error on the console is expected.
    allows_panics: bool,
}

impl<'a> Guest<'a> {
    /// Starts a machine, waits for its first answer, and returns the guest and its boot ID.
    pub(crate) fn boot(
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
        let mut guest = Self { vm, client, timeouts, cancel, progress, allows_panics: false };
        let boot = guest.wait_for_report(
            "waiting for the guest to boot",
            timeouts.boot,
            actions::boot_id(),
            boot_id,
        )?;
        Ok((guest, boot))
    }

    /// Sends a Pattern and returns the report.
    ///
    /// # Errors
    /// Fails if a Command fails.
    pub(crate) fn push(
        &mut self,
        activity: &'static str,
        pattern: Pattern,
        mode: Mode,
    ) -> Result<Report, GuestError> {
        self.push_within(activity, pattern, mode, self.timeouts.push)
    }

    fn push_within(
        &mut self,
        activity: &'static str,
        pattern: Pattern,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Report, GuestError> {
        let watch = Watch::new(activity, timeout);
        let report = loop {
            match self.attempt(&watch, pattern.clone(), mode, timeout)? {
                Ok(report) => break report,
                // The guest still runs an earlier Pattern whose push has timed out.
                Err(PushError::Unavailable { .. }) if watch.start.elapsed() < BUSY_TIMEOUT => {
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(source) => {
                    let console_tail = self.vm.console_tail(CONSOLE_TAIL_LINES);
                    return Err(GuestError::Push { activity, source, console_tail });
                }
            }
        };
        self.check_results(&report)?;
        Ok(report)
    }

    /// Sends a Pattern that may end the listener before the listener answers.
    pub(crate) fn push_last(
        &mut self,
        activity: &'static str,
        pattern: Pattern,
    ) -> Result<(), GuestError> {
        match self.push_within(activity, pattern, Mode::Change, FINAL_PUSH_TIMEOUT) {
            Err(GuestError::Push {
                source: source @ (PushError::NoAnswer(_) | PushError::NotSent(_)),
                ..
            }) => {
                log::info!(
                    "{activity}: {source}; expected, because this push may end the listener"
                );
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Waits for the end of the first boot since power-on, and returns its figures. Returns `None` if the
    /// boot does not finish.
    ///
    /// `name` is the name of the machine.
    pub(crate) fn measure(&mut self, name: &str) -> Result<Option<BootFigures>, GuestError> {
        let report = self.push("measuring the boot", actions::measure(), Mode::Check)?;
        let age = self.vm.age();
        let output = output_of(&report, actions::MEASURE).unwrap_or_default();
        let answer = Answer::parse(output)
            .map_err(|value| GuestError::Figures { value, output: output.to_owned() })?;
        let figures = answer.map(|answer| {
            let kernel_start = age.saturating_sub(answer.uptime);
            answer.figures(name, self.vm.firmware_time(), kernel_start)
        });
        Ok(figures)
    }

    /// Waits for the reboot after an update and for its first answer, and returns the new boot ID.
    ///
    /// `before` is the ID of the boot before the update.
    pub(crate) fn wait_for_reboot(&mut self, before: &str) -> Result<String, GuestError> {
        self.vm.console().expect_boot();
        let activity = "waiting for the update and the reboot";
        let new_boot = |report: &Report| boot_id(report).filter(|boot| boot != before);
        self.wait_for_report(activity, self.timeouts.update, actions::watch_update(), new_boot)
    }

    /// Waits for a reboot from any cause and for its first answer, and returns the new boot ID.
    ///
    /// `before` is the ID of the boot before the reboot.
    pub(crate) fn wait_for_boot(&mut self, before: &str) -> Result<String, GuestError> {
        self.vm.console().expect_boot();
        let new_boot = |report: &Report| boot_id(report).filter(|boot| boot != before);
        let activity = "waiting for the next boot";
        let timeout = self.timeouts.boot + self.timeouts.update;
        self.wait_for_report(activity, timeout, actions::boot_id(), new_boot)
    }

    /// Calls `condition` until it returns a value, and returns the value.
    ///
    /// Nothing is sent to the guest, and the limit for inactivity does not apply, because a long
    /// update prints nothing.
    pub(crate) fn wait_until<T>(
        &mut self,
        activity: &'static str,
        mut condition: impl FnMut(&mut Vm) -> Result<Option<T>, QmpError>,
    ) -> Result<T, GuestError> {
        let watch = Watch::new(activity, self.timeouts.update);
        loop {
            self.check_alive(&watch)?;
            match condition(&mut self.vm).map_err(VmError::from)? {
                Some(value) => return Ok(value),
                None if watch.start.elapsed() > watch.timeout => {
                    return Err(self.timed_out(&watch, watch.limit_reached()));
                }
                None => thread::sleep(CONDITION_POLL_INTERVAL),
            }
        }
    }

    /// Limits the guest's write rate, so that a test can stop the guest in the middle of a write.
    ///
    /// Without a limit, the guest flushes its page cache too fast.
    pub(crate) fn limit_write_rate(&mut self) -> Result<(), GuestError> {
        Ok(self.vm.qmp().limit_writes(BOOT_DISK, SLOW_BYTES_PER_SECOND).map_err(VmError::from)?)
    }

    /// Sets whether a fatal error on the console, such as a kernel panic, is expected from now on.
    pub(crate) fn allow_panics(&mut self, allow: bool) {
        self.allows_panics = allow;
        self.vm.console().expect_boot();
    }

    /// Resets the machine as its reset button does. Data that the guest has not written yet is lost.
    pub(crate) fn reset(&mut self) -> Result<(), GuestError> {
        self.vm.qmp().reset().map_err(VmError::from)?;
        self.vm.console().expect_boot();
        Ok(())
    }

    /// Ends QEMU with SIGKILL, which is a power cut for the guest.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Powers off the guest by a push, then by the power button, then by killing QEMU. Returns a
    /// description of the method that worked.
    pub(crate) fn power_off(mut self) -> Result<&'static str, GuestError> {
        match self.push_last("powering off", actions::power_off()) {
            // QEMU may exit before the answer arrives.
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

    /// Sends `pattern` until `find` returns a value from the report, and returns the value.
    fn wait_for_report(
        &mut self,
        activity: &'static str,
        timeout: Duration,
        pattern: Pattern,
        find: impl Fn(&Report) -> Option<String>,
    ) -> Result<String, GuestError> {
        let mut watch = Watch::new(activity, timeout);
        loop {
            match self.attempt(&watch, pattern.clone(), Mode::Check, ATTEMPT_TIMEOUT)? {
                Ok(report) => {
                    self.check_results(&report)?;
                    if let Some(value) = find(&report) {
                        return Ok(value);
                    }
                    watch.record_answer(&report);
                }
                Err(source) if source.is_temporary() => watch.last_attempt = source.to_string(),
                Err(source) => {
                    let console_tail = self.vm.console_tail(CONSOLE_TAIL_LINES);
                    return Err(GuestError::Push { activity, source, console_tail });
                }
            }
            self.check_limits(&watch)?;
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Sends one push and watches the VM meanwhile, because a guest that panics leaves the connection
    /// open.
    fn attempt(
        &mut self,
        watch: &Watch,
        pattern: Pattern,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Result<Report, PushError>, GuestError> {
        let (sender, answer) = mpsc::channel();
        let client = self.client.clone();
        // After an early return, the thread ends at its own timeout or when QEMU exits.
        thread::spawn(move || {
            let _ = sender.send(client.push(&pattern, mode, timeout));
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
        let activity = watch.activity;
        if self.cancel.is_cancelled() {
            return Err(GuestError::Cancelled(activity));
        }
        let problem = if self.allows_panics { self.vm.exit_report() } else { self.vm.problem() };
        if let Some(problem) = problem {
            // The lines after the first fatal line explain it.
            thread::sleep(RETRY_INTERVAL);
            let (after, console_tail) =
                (watch.start.elapsed(), self.vm.console_tail(CONSOLE_TAIL_LINES));
            return Err(GuestError::Failed { activity, after, problem, console_tail });
        }
        if watch.progress_is_due() {
            let line = self.vm.console().last_line().unwrap_or_else(|| "(no output yet)".into());
            (self.progress)(&format!("{} s: {line}", watch.start.elapsed().as_secs()));
        }
        Ok(())
    }

    fn check_limits(&mut self, watch: &Watch) -> Result<(), GuestError> {
        self.check_alive(watch)?;
        let inactivity = self.vm.console().silent_for().min(watch.last_answer.elapsed());
        let reason = if watch.start.elapsed() > watch.timeout {
            watch.limit_reached()
        } else if inactivity > self.timeouts.inactivity {
            format!(
                "no console output and no answer from the listener for {} s",
                inactivity.as_secs()
            )
        } else {
            return Ok(());
        };
        Err(self.timed_out(watch, reason))
    }

    fn timed_out(&mut self, watch: &Watch, reason: String) -> GuestError {
        let qmp = self.vm.qmp();
        let [state, instruction] = [qmp.status(), qmp.instruction()]
            .map(|answer| answer.unwrap_or_else(|error| error.to_string()));
        GuestError::TimedOut {
            activity: watch.activity,
            after: watch.start.elapsed(),
            reason: format!("{reason} (machine state: {state}; processor: {instruction})"),
            last_attempt: watch.last_attempt.clone(),
            console_tail: self.vm.console_tail(CONSOLE_TAIL_LINES),
        }
    }

    fn check_results(&self, report: &Report) -> Result<(), GuestError> {
        let commands: Vec<CommandResult> = report.unmet().cloned().collect();
        if commands.is_empty() {
            return Ok(());
        }
        Err(GuestError::Commands {
            commands,
            console_tail: self.vm.console_tail(CONSOLE_TAIL_LINES),
        })
    }
}

fn boot_id(report: &Report) -> Option<String> {
    let output = output_of(report, actions::BOOT_ID)?;
    Some(output.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Returns the output of the Command with this id.
fn output_of<'a>(report: &'a Report, id: &str) -> Option<&'a str> {
    let result = report.results.iter().find(|result| result.id == id)?;
    Some(&result.output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::pattern::Outcome;

    #[test]
    fn reads_boot_id_from_report() {
        let mut report = Report::default();
        assert_eq!(boot_id(&report), None);
        let (id, output) = (actions::BOOT_ID.to_owned(), "1234\n".to_owned());
        report.results.push(CommandResult { id, outcome: Outcome::Ok, output });
        assert_eq!(boot_id(&report).as_deref(), Some("1234"));
    }
}
