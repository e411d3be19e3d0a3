//! `check` and `update`

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::compare::differences;
use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::{BootId, BootState};
use protocol::{Arch, Release, Target};
use serde_json::{Value, json};

use super::{Opened, answer, now, tell};
use crate::bootstate::{Grubenv, good_without_grubenv};
use crate::candidate::{Candidate, Wanted, fetch};
use crate::cdn::{Cdn, Times};
use crate::cli::{Exit, Global, Update};
use crate::config::{Network, Reboot, Settings};
use crate::esp::Access;
use crate::host::Host;
use crate::install::{Installed, Job, install, put_on_trial};
use crate::interrupt;
use crate::plan::{Facts, Permissions, Slots, Step, next};
use crate::slots::inspect;
use crate::trial::{offered, settled};

/// Where manifests are remembered until the next reboot.
const MANIFESTS: &str = "/run/etchaos/manifests";

pub(super) fn check(global: &Global) -> Result<Exit> {
    let mut opened = Opened::new(global, Access::Read)?;
    let offer = Offer::get(global, &mut opened)?;
    opened.reopen(global, Access::Read)?;
    let poll = Poll::new(&opened, offer, None, Permissions::default())?;
    poll.refuse_downgrade()?;
    answer(global, &poll.json(), || poll.text())?;
    Ok(match poll.step {
        Step::UpToDate => Exit::Ok,
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NotNow,
        _ => Exit::Available,
    })
}

pub(super) fn update(global: &Global, arguments: &Update) -> Result<Exit> {
    let mut opened = Opened::new(global, Access::Read)?;
    let offer = Offer::get(global, &mut opened)?;
    opened.reopen(global, Access::Read)?;
    let unconfirmed = unconfirmed(&opened)?;
    if unconfirmed.is_none() {
        opened.reopen(global, Access::Write { wait: Duration::ZERO })?;
    }
    let allow =
        Permissions { downgrade: arguments.allow_downgrade, retry_failed: arguments.retry_failed };
    let mut poll = Poll::new(&opened, offer, unconfirmed, allow)?;
    poll.refuse_downgrade()?;
    poll.remember(&opened, allow)?;
    poll.log();
    // What came before may end at any moment.
    interrupt::catch().context("cannot catch signals")?;
    let wants_reboot = poll.carry_out(&opened)?;
    let why_not = wants_reboot.then(|| why_no_reboot(&opened, arguments)).flatten();
    let reboot = wants_reboot && why_not.is_none();
    let mut json = poll.json();
    json["reboot"] = json!(reboot);
    // What was put on trial is booted whether anybody reads this or not.
    tell(global, &json, || match why_not {
        Some(why) => format!("{}\n{why}", poll.done()),
        None => poll.done(),
    });
    let exit = match poll.step {
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NotNow,
        _ => Exit::Ok,
    };
    // Unmounted before the reboot, not by it.
    drop(opened);
    if reboot {
        reboot_now(poll.candidate.release())?;
    }
    Ok(exit)
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
    fn get(global: &Global, opened: &mut Opened) -> Result<Self> {
        opened.esp()?;
        opened.close();
        let times = Times::default().with_longest_pause(global.longest_pause());
        let cdn = Cdn::new(&Network::default(), &opened.settings.allowed_origins, times)?;
        let cache = Host::new(&global.host_root).path(MANIFESTS);
        let candidate = candidate(&cdn, &opened.settings, &cache)?;
        Ok(Self { cdn, candidate })
    }
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
            None => Grubenv::read(opened.esp()?, good_without_grubenv(running, &slots)),
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
    fn carry_out(&mut self, opened: &Opened) -> Result<bool> {
        let esp = opened.esp()?;
        let job = |slot| Job {
            esp,
            slot,
            candidate: &self.candidate,
            cdn: &self.cdn,
            allowed_origins: &opened.settings.allowed_origins,
            keys: &opened.settings.keys,
        };
        match self.step {
            Step::UpToDate | Step::Unconfirmed { .. } | Step::FailedBefore | Step::Downgrade => {
                Ok(false)
            }
            Step::NotTried(slot) => bail!(
                "slot {slot} was to be tried at the last boot, and the boot loader did not: it cannot write {GRUBENV} on the ESP (is the file whole, and the disk writable for the firmware?); \"update --retry-failed\" tries once more"
            ),
            Step::Withdraw(_) => {
                let state = BootState { trial: None, ..self.grubenv.state.clone() };
                self.grubenv.write(esp, state)?;
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

fn candidate(cdn: &Cdn, settings: &Settings, cache: &Path) -> Result<Candidate> {
    let base = settings.cdn.as_ref().context(
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
    Ok(fetch(
        cdn,
        &Wanted {
            bases: std::slice::from_ref(base),
            target: &Target { variant, arch },
            keys: &settings.keys,
            now: now(),
            newest: None,
            cache: Some(cache),
        },
    )?)
}

fn why_no_reboot(opened: &Opened, arguments: &Update) -> Option<&'static str> {
    if opened.running.is_none() {
        return Some("this system does not run from this ESP, so it is not rebooted");
    }
    if arguments.no_reboot {
        return Some("reboot to try it: --no-reboot was given");
    }
    match opened.settings.reboot {
        Reboot::Never => Some("reboot to try it: the configuration says \"reboot\": \"never\""),
        Reboot::Now => None,
    }
}

fn reboot_now(release: &Release) -> Result<()> {
    log::info!(version = release.version.as_str(); "rebooting into {} as configured", named(release));
    // systemctl takes a mount namespace and few capabilities for a chroot, in which it does nothing.
    let status = Command::new("systemctl").arg("reboot").env("SYSTEMD_IGNORE_CHROOT", "1").status();
    let status = status.context("the release is installed, but systemctl reboot cannot be run")?;
    if !status.success() {
        bail!("the release is installed, but systemctl reboot failed ({status}): reboot by hand");
    }
    Ok(())
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
