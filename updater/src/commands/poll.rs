//! `check` and `update`

use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::Release;
use protocol::compare::differences;
use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::BootId;
use serde_json::{Value, json};

use super::offer::Offer;
use super::{Opened, answer, metrics, now, tell};
use crate::bootstate::Grubenv;
use crate::candidate::Candidate;
use crate::cdn::Cdn;
use crate::cli::{Exit, Global, Update};
use crate::config::Reboot;
use crate::date;
use crate::esp::Access;
use crate::host::Host;
use crate::install::{Installed, Job, install, put_on_trial};
use crate::interrupt;
use crate::plan::{Facts, Permissions, Slots, Step, next};
use crate::progress::Progress;
use crate::reboot::{self, Decision};
use crate::record::{self, Waiting};
use crate::slots::inspect;
use crate::trial::{called_off, offered, settled};

pub(super) fn check(global: &Global) -> Result<Exit> {
    let mut opened = Opened::new(global, Access::Read)?;
    let offer = Offer::get(global, &mut opened, Permissions::default())?;
    opened.reopen(global, Access::Read)?;
    let poll = Poll::new(&opened, offer, None, Permissions::default())?;
    poll.record(global);
    metrics::refresh(global, &opened);
    poll.refuse_downgrade()?;
    answer(global, &poll.json(), || poll.text())?;
    Ok(match poll.step {
        Step::UpToDate => Exit::Ok,
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NotNow,
        _ => Exit::Available,
    })
}

pub(super) fn update(global: &Global, arguments: &Update) -> Result<Exit> {
    let allow =
        Permissions { downgrade: arguments.allow_downgrade, retry_failed: arguments.retry_failed };
    let mut opened = Opened::new(global, Access::Read)?;
    // A window that systemd cannot read is better told before anything is installed.
    decide_reboot(&opened, global, arguments)?;
    let offer = Offer::get(global, &mut opened, allow)?;
    opened.reopen(global, Access::Read)?;
    let unconfirmed = unconfirmed(&opened)?;
    if arguments.dry_run {
        return dry_run(global, &Poll::new(&opened, offer, unconfirmed, allow)?);
    }
    if unconfirmed.is_none() {
        opened.reopen(global, Access::Write { wait: Duration::ZERO })?;
    }
    let mut poll = Poll::new(&opened, offer, unconfirmed, allow)?;
    poll.record(global);
    poll.refuse_downgrade()?;
    poll.remember(&opened, allow)?;
    poll.log();
    // What came before may end at any moment.
    interrupt::catch().context("cannot catch signals")?;
    let wants_reboot = poll.carry_out(global, &opened)?;
    let decision = wants_reboot.then(|| decide_reboot(&opened, global, arguments)).transpose()?;
    let reboot = decision == Some(Decision::Now);
    record_waiting(global, decision.as_ref());
    metrics::refresh(global, &opened);
    let why_not = match decision {
        None | Some(Decision::Now) => None,
        Some(Decision::Never { why }) => Some(format!("reboot to try it: {why}")),
        Some(Decision::Later { why, wake }) => {
            wake.arrange()
                .context("the release is installed, and its reboot could not be arranged")?;
            let again = date::text(wake.at);
            Some(format!("the reboot has to wait: {why}; it is decided again at {again}"))
        }
    };
    let mut json = poll.json();
    json["event"] = json!("result");
    json["reboot"] = json!(reboot);
    // What was put on trial is booted whether anybody reads this or not.
    tell(global, &json, || match why_not {
        Some(why) => format!("{}\n{why}", poll.done()),
        None => poll.done(),
    });
    let exit = poll.exit();
    // Unmounted before the reboot, not by it.
    opened.close();
    if reboot {
        reboot_now(poll.candidate.release(), &opened.settings.reboot)?;
    }
    Ok(exit)
}

/// What [`update`] would do, and how it would end.
fn dry_run(global: &Global, poll: &Poll) -> Result<Exit> {
    poll.refuse_downgrade()?;
    let mut json = poll.json();
    json["event"] = json!("result");
    json["dryRun"] = json!(true);
    json["reboot"] = json!(false);
    answer(global, &json, || format!("dry run: {}", poll.text()))?;
    Ok(poll.exit())
}

/// For `status`: what the reboot waits for, if it does.
fn record_waiting(global: &Global, decision: Option<&Decision>) {
    let host = Host::new(&global.host_root);
    let (why, next) = match decision {
        None | Some(Decision::Now) => return record::forget::<Waiting>(&host),
        Some(Decision::Never { why }) => (why.clone(), None),
        Some(Decision::Later { why, wake }) => (why.clone(), Some(wake.at)),
    };
    record::write(&host, &Waiting { time: now(), why, next });
}

/// grubenv, if the running slot is not confirmed. By it [`next`] never writes, so an update needs no
/// lock, and leaves it to `confirm`.
fn unconfirmed(opened: &Opened) -> Result<Option<Grubenv>> {
    let Some(running) = opened.running else { return Ok(None) };
    let grubenv = Grubenv::read(opened.esp()?, running);
    Ok(Some(grubenv).filter(|grubenv| grubenv.problem.is_none() && grubenv.state.good != running))
}

/// All that is known, and what follows.
struct Poll {
    running: Option<Slot>,
    boot: Option<BootId>,
    slots: Slots,
    grubenv: Grubenv,
    cdn: Cdn,
    candidate: Candidate,
    step: Step,
}

impl Poll {
    /// `known` is grubenv where the decision must go by what was read before: it may have been
    /// confirmed since.
    fn new(
        opened: &Opened,
        offer: Offer,
        known: Option<Grubenv>,
        allow: Permissions,
    ) -> Result<Self> {
        let Offer { cdn, candidate } = offer;
        let slots = inspect(opened.esp()?, &opened.settings.keys);
        let (running, boot) = (opened.running, opened.boot);
        let grubenv = match known {
            Some(grubenv) => grubenv,
            None => opened.grubenv(&slots)?,
        };
        let step = next(&Facts {
            running,
            state: &settled(&grubenv.state, running),
            boot,
            slots: &slots,
            candidate: candidate.release(),
            allow,
        });
        Ok(Self { running, boot, slots, grubenv, cdn, candidate, step })
    }

    /// For `status`.
    fn record(&self, global: &Global) {
        let release = self.candidate.release();
        let poll = record::Poll {
            time: now(),
            outcome: step_name(&self.step).to_owned(),
            version: release.version.clone(),
            build: release.build,
            cdn: self.candidate.base().to_owned(),
        };
        record::write(&Host::new(&global.host_root), &poll);
    }

    fn exit(&self) -> Exit {
        match self.step {
            Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NotNow,
            _ => Exit::Ok,
        }
    }

    /// What the decision compared the candidate with.
    fn here(&self) -> Option<&Release> {
        self.slots.get(self.running.unwrap_or(self.grubenv.state.good)).release()
    }

    fn refuse_downgrade(&self) -> Result<()> {
        match (&self.step, self.here()) {
            (Step::Downgrade, Some(here)) => bail!(
                "the CDN offers {}, which is older than {}: refused; \"update --allow-downgrade\" installs it",
                named(self.candidate.release()),
                named(here)
            ),
            _ => Ok(()),
        }
    }

    /// Writes down what must not be forgotten, if grubenv does not say it yet: that a trial has failed,
    /// and what the CDN offered. Without grubenv the boot loader takes slot a for good, whatever runs.
    fn remember(&mut self, opened: &Opened, allow: Permissions) -> Result<()> {
        let Grubenv { state, problem, .. } = &self.grubenv;
        if self.running.is_some_and(|running| running != state.good) {
            // Left to `confirm`.
            return Ok(());
        }
        let offer = self.candidate.release();
        let known = offered(&settled(state, self.running), offer, allow.downgrade);
        match (problem, self.running) {
            (Some(problem), Some(_)) => {
                log::warn!("{problem}: it is made anew, with slot {} as good", state.good);
            }
            // Who runs from elsewhere does not know what is good here.
            (Some(_), None) => return Ok(()),
            (None, _) if known == *state => return Ok(()),
            (None, _) => {}
        }
        if let (Some(failed), true) = (known.failed, known.failed != state.failed) {
            log::warn!(release = failed.to_string().as_str(); "release {failed} failed its trial");
        }
        Ok(self.grubenv.write(opened.esp()?, known)?)
    }

    /// Whether the host has to be rebooted after it.
    fn carry_out(&mut self, global: &Global, opened: &Opened) -> Result<bool> {
        let esp = opened.esp()?;
        let progress = Progress::for_update(global.json, &Host::new(&global.host_root));
        let job = |slot| Job {
            esp,
            slot,
            candidate: &self.candidate,
            cdn: &self.cdn,
            allowed_origins: &opened.settings.allowed_origins,
            keys: &opened.settings.keys,
            progress: &progress,
        };
        match self.step {
            Step::UpToDate | Step::Unconfirmed { .. } | Step::FailedBefore | Step::Downgrade => {
                Ok(false)
            }
            Step::NotTried(slot) => bail!(
                "slot {slot} was to be tried at the last boot, and the boot loader did not: it cannot write {GRUBENV} on the ESP (is the file whole, and the disk writable for the firmware?); \"update --retry-failed\" tries once more"
            ),
            Step::Withdraw(_) => {
                self.grubenv.write(esp, called_off(&self.grubenv.state))?;
                Ok(false)
            }
            Step::Pending(_) => Ok(true),
            Step::Repair(slot) => {
                install(job(slot), &mut self.grubenv)?;
                Ok(false)
            }
            Step::Install(slot) => {
                let installed = install(job(slot), &mut self.grubenv)?;
                put_on_trial(esp, &installed, &mut self.grubenv, self.boot)?;
                Ok(true)
            }
            Step::Activate(slot) => {
                let installed = Installed::found(&self.slots, slot)
                    .with_context(|| format!("slot {slot} is not whole any more"))?;
                put_on_trial(esp, &installed, &mut self.grubenv, self.boot)?;
                Ok(true)
            }
        }
    }

    fn log(&self) {
        let release = self.candidate.release();
        log::info!(
            step = step_name(&self.step),
            candidate = release.version.as_str(),
            build = release.build,
            key = self.candidate.key_id();
            "{}", self.text().lines().next().unwrap_or_default()
        );
    }

    fn json(&self) -> Value {
        let release =
            |r: &Release| json!({"version": r.version, "build": r.build, "kernel": r.kernel});
        let differences = self.here().map(|here| differences(here, self.candidate.release()));
        json!({
            "step": step_name(&self.step),
            "slot": self.step.slot(),
            "running": self.here().map(release),
            "candidate": release(self.candidate.release()),
            "key": self.candidate.key_id(),
            "differences": differences,
        })
    }

    /// What is to be done, for people.
    fn text(&self) -> String {
        let new = named(self.candidate.release());
        match self.step {
            Step::UpToDate => format!("up to date: {new}"),
            Step::Pending(slot) => format!("{new} is installed in slot {slot}: reboot to try it"),
            Step::Unconfirmed { running, good } => format!(
                "slot {running} runs and is not confirmed yet: nothing is installed until then, because slot {good} is the way back"
            ),
            Step::FailedBefore => format!(
                "{new} failed its trial, or was rolled back: waiting for a newer one; \"update --retry-failed\" tries it again"
            ),
            Step::NotTried(slot) => format!(
                "{new} is in slot {slot}, and the boot loader did not try it at the last boot: \"update --retry-failed\" asks it again"
            ),
            Step::Withdraw(slot) => format!(
                "the CDN offers what runs, {new}: the trial of slot {slot} is to be called off"
            ),
            Step::Downgrade => format!("{new} is older than what runs"),
            Step::Install(slot) => {
                format!("{new} is to be installed in slot {slot}{}", self.changes())
            }
            Step::Activate(slot) => format!("{new} is whole in slot {slot} and to be tried"),
            Step::Repair(slot) => format!("slot {slot} is not whole and to be repaired with {new}"),
        }
    }

    /// What was done, for people.
    fn done(&self) -> String {
        let new = named(self.candidate.release());
        match self.step {
            Step::Install(slot) => {
                format!("{new} was installed in slot {slot}, on trial{}", self.changes())
            }
            Step::Activate(slot) => format!("{new} is on trial in slot {slot}"),
            Step::Repair(slot) => format!("slot {slot} was not whole and is repaired with {new}"),
            Step::Withdraw(slot) => {
                format!("the CDN offers what runs, {new}: the trial of slot {slot} was called off")
            }
            _ => self.text(),
        }
    }

    fn changes(&self) -> String {
        let Some(here) = self.here() else { return String::new() };
        let lines = differences(here, self.candidate.release());
        lines.iter().map(|line| format!("\n{line}")).collect()
    }
}

/// What becomes of the reboot that a trial needs.
fn decide_reboot(opened: &Opened, global: &Global, arguments: &Update) -> Result<Decision> {
    let never = |why: &str| Ok(Decision::Never { why: why.to_owned() });
    if opened.running.is_none() {
        return never("this system does not run from this ESP, so it is not rebooted");
    }
    if arguments.no_reboot {
        return never("--no-reboot was given");
    }
    let policy = &opened.settings.reboot;
    let facts = reboot::Facts::look(&Host::new(&global.host_root), policy, now())?;
    Ok(reboot::decide(policy, &facts))
}

fn reboot_now(release: &Release, policy: &Reboot) -> Result<()> {
    log::info!(version = release.version.as_str(); "rebooting into {} as configured", named(release));
    reboot::reboot(policy)
        .context("the release is installed, and the reboot failed: reboot by hand")
}

fn named(release: &Release) -> String {
    format!("{} {} (build {})", release.target(), release.version, release.build)
}

fn step_name(step: &Step) -> &'static str {
    match step {
        Step::UpToDate => "upToDate",
        Step::Pending(_) => "pending",
        Step::Unconfirmed { .. } => "unconfirmed",
        Step::FailedBefore => "failedBefore",
        Step::NotTried(_) => "notTried",
        Step::Withdraw(_) => "withdraw",
        Step::Downgrade => "downgrade",
        Step::Install(_) => "install",
        Step::Activate(_) => "activate",
        Step::Repair(_) => "repair",
    }
}
