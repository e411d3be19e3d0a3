//! The full update cycle of a release: stage 5 of the builder.

use protocol::esp::Slot;
use protocol::pattern::Mode;

use crate::actions;
use crate::artifacts::Artifacts;
use crate::checks::{self, Expected};
use crate::environment::{self, TestEnvironment};
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::report::{Event, Report, Step};
use crate::scenario::{self, Failure, Outcome, ScenarioError, Steps};

pub use crate::scenario::Options;

/// Boots the release, damages it, has it update itself, and boots it by BIOS.
pub fn run(options: &Options, events: &dyn Fn(Event<'_>)) -> Result<Report, Box<Failure>> {
    scenario::run(options, events, |steps, say| play(options, steps, say))
        .map(|((), report)| report)
}

/// The cycle, step by step.
fn play(options: &Options, steps: &mut Steps<'_>, say: &dyn Fn(&str)) -> Result<(), ScenarioError> {
    let artifacts = steps.run(Step::VerifyArtifacts, || environment::verify(options))?;
    let bench =
        steps.run(Step::PrepareBench, || TestEnvironment::prepare(options, &artifacts, say))?;
    steps.report.accel = Some(bench.accel.clone());

    let booted =
        steps.run(Step::BootUefi, || boot(&bench, &artifacts, Firmware::UefiSecureboot))?;
    let healthy = steps.run(Step::ValidateUefi, || booted.validate(Slot::A))?;
    let damaged = steps.run(Step::DeleteSlot, || healthy.delete_slot())?;
    let updated = steps.run(Step::AutoUpdate, || damaged.auto_update())?;
    let healthy = steps.run(Step::ValidateUpdate, || updated.validate(Slot::B))?;
    steps.run(Step::PowerOff, || healthy.power_off())?;

    let booted = steps.run(Step::BootBios, || boot(&bench, &artifacts, Firmware::Bios))?;
    let healthy = steps.run(Step::ValidateBios, || booted.validate(Slot::B))?;
    steps.run(Step::PowerOffBios, || healthy.power_off())
}

/// Boots the disk of the bench.
fn boot<'a>(
    bench: &'a TestEnvironment<'a>,
    artifacts: &'a Artifacts,
    firmware: Firmware,
) -> Outcome<Booted<'a>> {
    let name = if firmware == Firmware::Bios { "bios" } else { "uefi" };
    let tpm = firmware != Firmware::Bios;
    let (guest, boot) = bench.boot(name, firmware, None)?;
    let note = format!("{firmware}{}", if tpm { ", TPM 2.0" } else { "" });
    Ok((Booted { bench, artifacts, guest, boot, firmware, tpm }, note))
}

/// A guest that answers.
struct Booted<'a> {
    bench: &'a TestEnvironment<'a>,
    artifacts: &'a Artifacts,
    guest: Guest<'a>,
    boot: String,
    firmware: Firmware,
    tpm: bool,
}

/// A guest that passed every check.
struct Healthy<'a>(Booted<'a>);

/// A guest whose slot `a` would not boot again.
struct Damaged<'a>(Booted<'a>);

impl<'a> Booted<'a> {
    fn validate(mut self, slot: Slot) -> Outcome<Healthy<'a>> {
        let checks = checks::checks(&Expected {
            release: &self.artifacts.release,
            slot,
            firmware: self.firmware,
            tpm: self.tpm,
            updater_version: &self.bench.options.updater_version,
        });
        self.guest.push("validating the guest", checks::pattern(&checks), Mode::Check)?;
        Ok((Healthy(self), format!("{} checks", checks.len())))
    }
}

impl<'a> Healthy<'a> {
    fn delete_slot(mut self) -> Outcome<Damaged<'a>> {
        let waiting = "deleting kernel and initrd";
        self.0.guest.push(waiting, actions::damage(), Mode::Change)?;
        Ok((Damaged(self.0), String::new()))
    }

    fn power_off(self) -> Outcome<()> {
        let how = self.0.guest.power_off()?;
        Ok(((), how.to_owned()))
    }
}

impl<'a> Damaged<'a> {
    fn auto_update(self) -> Outcome<Booted<'a>> {
        let Self(mut host) = self;
        host.guest.push_last("starting the update", actions::update())?;
        host.boot = host.guest.wait_for_reboot(&host.boot)?;
        let fetched = host.bench.fetched(|role| host.artifacts.place(role).to_owned())?;
        Ok((host, fetched))
    }
}
