//! `check` and `update`

use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::compare::differences;
use protocol::esp::Slot;
use protocol::{Arch, Release, Target};
use serde_json::{Value, json};

use super::{Opened, answer, metrics, now, tell};
use crate::bootstate::{Grubenv, good_without_grubenv};
use crate::candidate::{Candidate, fetch};
use crate::cdn::Cdn;
use crate::cli::{Exit, Global, Update};
use crate::config::{Reboot, Settings};
use crate::date;
use crate::esp::Access;
use crate::host::Host;
use crate::install::{Installed, Job, install, put_on_trial};
use crate::plan::{Facts, Permissions, Slots, Step, next};
use crate::reboot::{self, Decision};
use crate::record::{self, Waiting};
use crate::slots::inspect;

pub(super) fn check(global: &Global) -> Result<Exit> {
    let mut opened = Opened::new(global, Access::Read)?;
    let offer = Offer::get(&mut opened)?;
    opened.reopen(global, Access::Read)?;
    let poll = Poll::new(&opened, offer, None, Permissions::default())?;
    poll.record(global, &opened);
    metrics::refresh(global, &opened);
    poll.refuse_downgrade()?;
    answer(global, &poll.json(), || poll.text())?;
    Ok(match poll.step {
        Step::UpToDate => Exit::Ok,
        Step::Unconfirmed { .. } | Step::FailedBefore(_) => Exit::NotNow,
        _ => Exit::Available,
    })
}

pub(super) fn update(global: &Global, arguments: &Update) -> Result<Exit> {
    let mut opened = Opened::new(global, Access::Read)?;
    // A window that systemd cannot read is better told before anything is installed.
    decide_reboot(&opened, global, arguments)?;
    let offer = Offer::get(&mut opened)?;
    opened.reopen(global, Access::Read)?;
    let unconfirmed = unconfirmed(&opened)?;
    let allow =
        Permissions { downgrade: arguments.allow_downgrade, retry_failed: arguments.retry_failed };
    if arguments.dry_run {
        return dry_run(global, &Poll::new(&opened, offer, unconfirmed, allow)?);
    }
    if unconfirmed.is_none() {
        opened.reopen(global, Access::Write { wait: Duration::ZERO })?;
    }
    let mut poll = Poll::new(&opened, offer, unconfirmed, allow)?;
    poll.record(global, &opened);
    poll.heal_grubenv(&opened)?;
    poll.refuse_downgrade()?;
    poll.log();
    let wants_reboot = poll.carry_out(&opened)?;
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

/// What the CDN offers.
struct Offer {
    cdn: Cdn,
    candidate: Candidate,
}

impl Offer {
    /// Asks for it with the ESP closed: a server may take its time, and others want to write.
    fn get(opened: &mut Opened) -> Result<Self> {
        opened.esp()?;
        opened.close();
        let cdn = Cdn::default();
        let candidate = candidate(&cdn, &opened.settings)?;
        Ok(Self { cdn, candidate })
    }
}

/// All that is known, and what follows.
struct Poll {
    running: Option<Slot>,
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
        let running = opened.running;
        let grubenv = match known {
            Some(grubenv) => grubenv,
            None => Grubenv::read(opened.esp()?, good_without_grubenv(running, &slots)),
        };
        let step = next(&Facts {
            running,
            boot: grubenv.state,
            slots: &slots,
            candidate: candidate.release(),
            allow,
        });
        Ok(Self { running, slots, grubenv, cdn, candidate, step })
    }

    /// For `status`.
    fn record(&self, global: &Global, opened: &Opened) {
        let release = self.candidate.release();
        let poll = record::Poll {
            time: now(),
            outcome: step_name(&self.step).to_owned(),
            version: release.version.clone(),
            build: release.build,
            cdn: opened.settings.cdn.first().cloned().unwrap_or_default(),
        };
        record::write(&Host::new(&global.host_root), &poll);
    }

    fn exit(&self) -> Exit {
        match self.step {
            Step::Unconfirmed { .. } | Step::FailedBefore(_) => Exit::NotNow,
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

    /// Without grubenv the boot loader takes slot a for good, whatever runs.
    fn heal_grubenv(&mut self, opened: &Opened) -> Result<()> {
        if let (Some(problem), Some(_)) = (self.grubenv.problem.clone(), self.running) {
            log::warn!("{problem}: it is made anew, with slot {} as good", self.grubenv.state.good);
            self.grubenv.write(opened.esp()?, self.grubenv.state)?;
        }
        Ok(())
    }

    /// Whether the host has to be rebooted after it.
    fn carry_out(&mut self, opened: &Opened) -> Result<bool> {
        let esp = opened.esp()?;
        let job = |slot| Job {
            esp,
            slot,
            candidate: &self.candidate,
            cdn: &self.cdn,
            allowed_origins: &opened.settings.allowed_origins,
        };
        match self.step {
            Step::UpToDate | Step::Unconfirmed { .. } | Step::FailedBefore(_) | Step::Downgrade => {
                Ok(false)
            }
            Step::Pending(_) => Ok(true),
            Step::Repair(slot) => {
                install(job(slot), &mut self.grubenv)?;
                Ok(false)
            }
            Step::Install(slot) => {
                let installed = install(job(slot), &mut self.grubenv)?;
                put_on_trial(esp, &installed, &mut self.grubenv)?;
                Ok(true)
            }
            Step::Activate(slot) => {
                let installed = Installed::found(&self.slots, slot)
                    .with_context(|| format!("slot {slot} is not whole any more"))?;
                put_on_trial(esp, &installed, &mut self.grubenv)?;
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
            Step::FailedBefore(slot) => format!(
                "{new} failed its trial in slot {slot}: waiting for a newer one; \"update --retry-failed\" tries it again"
            ),
            Step::Downgrade => format!("{new} is older than what runs"),
            Step::Install(slot) => {
                format!("{new} is to be installed in slot {slot}{}", self.changes())
            }
            Step::Activate(slot) => format!("{new} is whole in slot {slot} and to be tried"),
            Step::Repair(slot) => format!("slot {slot} is damaged and to be repaired with {new}"),
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
            Step::Repair(slot) => format!("slot {slot} was damaged and repaired with {new}"),
            _ => self.text(),
        }
    }

    fn changes(&self) -> String {
        let Some(here) = self.here() else { return String::new() };
        let lines = differences(here, self.candidate.release());
        lines.iter().map(|line| format!("\n{line}")).collect()
    }
}

fn candidate(cdn: &Cdn, settings: &Settings) -> Result<Candidate> {
    let base = settings.cdn.first().context(
        "no CDN is configured: set \"cdn\", for example in etchaos/config.json on the ESP",
    )?;
    let variant = settings.variant.clone().context(
        "the variant is not known: /etc/os-release has no VARIANT_ID; set \"variant\", such as \"deb\"",
    )?;
    let arch = Arch::native().context("EtchaOS is not made for this processor architecture")?;
    if settings.keys.is_empty() {
        bail!(
            "no key is trusted, so no release can be verified: the image has none in /usr/lib/etchaos/keys, and \"keys\" is not set"
        );
    }
    Ok(fetch(cdn, base, &Target { variant, arch }, &settings.keys, now())?)
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
        Step::FailedBefore(_) => "failedBefore",
        Step::Downgrade => "downgrade",
        Step::Install(_) => "install",
        Step::Activate(_) => "activate",
        Step::Repair(_) => "repair",
    }
}
