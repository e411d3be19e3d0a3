//! The full update cycle of a release: stage 5 of the builder.

use std::path::{Path, PathBuf};

use clap::Args;
use protocol::esp::Slot;
use protocol::pattern::Mode;
use protocol::{KeyRing, Release};

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::ScenarioArgs;
use crate::artifacts::{self, Artifacts};
use crate::cancel::Cancel;
use crate::environment::{self, Source, TestEnvironment};
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::report::{Event, Report, Step};
use crate::scenario::{self, Failure, Options, Outcome, ScenarioError, Steps};

const VERIFY_PREVIOUS: Step =
    Step::new("verify-previous", "verify the disk image of the published release");
const PREPARE_PREVIOUS: Step =
    Step::new("prepare-previous", "prepare its disk copy, CDN, accelerator");
const BOOT_PREVIOUS: Step = Step::new("boot-previous", "boot the published release");
const UPDATE_PREVIOUS: Step =
    Step::new("update-previous", "update the published release and reboot");
const VALIDATE_UPDATED: Step = Step::new("validate-updated", "validate the new release in slot b");
const POWER_OFF_UPDATED: Step = Step::new("power-off-updated", "power the updated host off");
const BOOT_UEFI: Step = Step::new("boot-uefi", "boot by UEFI");
const MEASURE_UEFI: Step = Step::new("measure-uefi", "measure the boot");
const VALIDATE_UEFI: Step = Step::new("validate-uefi", "validate slot a");
const DELETE_SLOT: Step = Step::new("delete-slot", "delete kernel and initrd of slot a");
const AUTO_UPDATE: Step = Step::new("auto-update", "auto-update and reboot");
const VALIDATE_UPDATE: Step = Step::new("validate-update", "validate slot b");
const BOOT_BIOS: Step = Step::new("boot-bios", "boot by BIOS");
const MEASURE_BIOS: Step = Step::new("measure-bios", "measure the boot by BIOS");
const VALIDATE_BIOS: Step = Step::new("validate-bios", "validate slot b under BIOS");
const POWER_OFF_BIOS: Step = Step::new("power-off-bios", "power off again");

/// Take a release through the full update cycle
///
/// With --previous, boots the disk image of the release that is published now, lets it update itself
/// to the release under test, and checks the result. It must use the deltas that the manifest has for it,
/// unless it has too little memory for them.
///
/// Then boots the new disk image under UEFI Secure Boot with a TPM, checks it from inside, deletes
/// kernel and initrd, lets it update itself from a CDN on the loopback, checks it again, and boots it
/// by BIOS, if the architecture has one. If the manifest says that Secure Boot would refuse the boot
/// loader, Secure Boot is disabled. The images are copied first. All ports are on the loopback.
///
/// With --sector-size 4096, boots the disk image for such disks, and nothing by BIOS.
///
/// The report has the time of each boot by phase, and the memory that the system uses after it.
#[derive(Debug, Args)]
pub(crate) struct Cycle {
    /// Options of every scenario
    #[command(flatten)]
    pub(crate) common: ScenarioArgs,
    /// Version that the updater in the image must have
    #[arg(long, value_name = "VERSION", default_value = Options::UPDATER_VERSION)]
    updater_version: String,
    /// Directory with the manifest and the disk image of the release that is published now
    #[arg(long, value_name = "DIR")]
    previous: Option<PathBuf>,
}

impl Scenario for Cycle {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn options(&self, cancel: Cancel) -> Result<Options, String> {
        let (updater_version, previous) = (self.updater_version.clone(), self.previous.clone());
        Ok(Options { updater_version, previous, ..self.common.options(cancel)? })
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        play(artifacts, steps)?;
        Ok(Passed)
    }
}

/// Boots the release, damages it, lets it update itself, and boots it by BIOS if the target has one.
///
/// # Errors
/// Fails at the first step that fails.
pub fn run(options: &Options, events: &dyn Fn(Event<'_>)) -> Result<Report, Box<Failure>> {
    let verify_and_play = |steps: &mut Steps<'_>| play(&environment::verify(steps)?, steps);
    scenario::run(options, events, verify_and_play).map(|((), report)| report)
}

fn play(artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<(), ScenarioError> {
    let options = steps.options;
    if let Some(previous) = &options.previous {
        update_previous(artifacts, previous, steps)?;
    }
    let environment = TestEnvironment::prepare(artifacts, &[], steps)?;

    let uefi = Firmware::uefi(&artifacts.release);
    let booted = steps.run(BOOT_UEFI, || boot(&environment, artifacts, "uefi", uefi))?;
    let booted = measure(booted, MEASURE_UEFI, "uefi", steps)?;
    let healthy = steps.run(VALIDATE_UEFI, || booted.validate(Slot::A))?;
    let damaged = steps.run(DELETE_SLOT, || healthy.delete_slot())?;
    let updated = steps.run(AUTO_UPDATE, || damaged.auto_update())?;
    let healthy = steps.run(VALIDATE_UPDATE, || updated.validate(Slot::B))?;
    steps.run(Step::POWER_OFF, || healthy.power_off())?;

    if let Some(reason) = options.missing(Firmware::Bios) {
        steps.skip(BOOT_BIOS, &reason);
        return Ok(());
    }
    let booted = steps.run(BOOT_BIOS, || boot(&environment, artifacts, "bios", Firmware::Bios))?;
    let booted = measure(booted, MEASURE_BIOS, "bios", steps)?;
    let healthy = steps.run(VALIDATE_BIOS, || booted.validate(Slot::B))?;
    steps.run(POWER_OFF_BIOS, || healthy.power_off())
}

/// Boots the release that is published now and updates it to the release under test.
fn update_previous(
    artifacts: &Artifacts,
    directory: &Path,
    steps: &mut Steps<'_>,
) -> Result<(), ScenarioError> {
    let Options { target, keys, sector_size, .. } = steps.options;
    let previous = steps.run(VERIFY_PREVIOUS, || {
        let previous = artifacts::verify_previous(directory, target, keys, *sector_size)?;
        let note = format!("build {}, {}", previous.release.build, previous.release.version);
        Ok((previous, note))
    })?;
    let Artifacts { kernel, served, .. } = artifacts;
    let source = Source { disk: &previous.disk, kernel, served };
    let work = TestEnvironment::directories(steps.options)?;
    let environment =
        TestEnvironment::with(PREPARE_PREVIOUS, &source, work, KeyRing::default(), steps)?;
    let uefi = Firmware::uefi(&previous.release);
    let booted = steps.run(BOOT_PREVIOUS, || boot(&environment, artifacts, "previous", uefi))?;
    let from = Some(&previous.release);
    let updated = steps.run(UPDATE_PREVIOUS, || booted.auto_update(from))?;
    let healthy = steps.run(VALIDATE_UPDATED, || updated.validate(Slot::B))?;
    steps.run(POWER_OFF_UPDATED, || healthy.power_off())
}

/// Boots the disk of the test environment. `name` is part of the names of log files.
fn boot<'a>(
    environment: &'a TestEnvironment<'a>,
    artifacts: &'a Artifacts,
    name: &str,
    firmware: Firmware,
) -> Outcome<Booted<'a>> {
    let (guest, boot) = environment.boot(name, firmware, None)?;
    let note = format!("{firmware}{}", if firmware.has_tpm() { ", TPM 2.0" } else { "" });
    Ok((Booted { environment, artifacts, guest, boot, firmware }, note))
}

/// Waits until the guest has booted completely, and adds the figures of the boot to the report.
fn measure<'a>(
    mut booted: Booted<'a>,
    step: Step,
    name: &str,
    steps: &mut Steps<'_>,
) -> Result<Booted<'a>, ScenarioError> {
    let figures = steps.run(step, || {
        let figures = booted.guest.measure(name)?;
        let note = match &figures {
            Some(figures) => format!("{} of {} MiB used", figures.memory_used, figures.memory),
            // The validation reports the units that have not started.
            None => "the boot did not finish".to_owned(),
        };
        Ok((figures, note))
    })?;
    steps.report.boots.extend(figures);
    Ok(booted)
}

/// A guest that answers pushes.
struct Booted<'a> {
    environment: &'a TestEnvironment<'a>,
    artifacts: &'a Artifacts,
    guest: Guest<'a>,
    boot: String,
    firmware: Firmware,
}

/// A guest that has passed every check.
struct Healthy<'a>(Booted<'a>);

/// A guest whose slot `a` no longer boots.
struct Damaged<'a>(Booted<'a>);

impl<'a> Booted<'a> {
    fn validate(mut self, slot: Slot) -> Outcome<Healthy<'a>> {
        let (release, firmware) = (&self.artifacts.release, self.firmware);
        let ((), note) =
            self.environment.validate(&mut self.guest, release, Some(slot), firmware)?;
        Ok((Healthy(self), note))
    }

    /// Starts an update and waits for the reboot into the release under test. `from` is the release in the slot
    /// that was booted, unless that slot is damaged.
    ///
    /// # Errors
    /// Fails if the guest downloaded a whole file that it could copy or patch.
    fn auto_update(mut self, from: Option<&Release>) -> Outcome<Booted<'a>> {
        self.guest.push_last("starting the update", actions::update())?;
        self.boot = self.guest.wait_for_reboot(&self.boot)?;
        let note = self.environment.describe_update(from, &self.artifacts.release)?;
        Ok((self, note))
    }
}

impl<'a> Healthy<'a> {
    fn delete_slot(mut self) -> Outcome<Damaged<'a>> {
        let activity = "deleting kernel and initrd";
        self.0.guest.push(activity, actions::damage(), Mode::Change)?;
        Ok((Damaged(self.0), String::new()))
    }

    fn power_off(self) -> Outcome<()> {
        let note = self.0.guest.power_off()?;
        Ok(((), note.to_owned()))
    }
}

impl<'a> Damaged<'a> {
    fn auto_update(self) -> Outcome<Booted<'a>> {
        self.0.auto_update(None)
    }
}
