//! A host that switches to another variant and back.

use std::path::PathBuf;

use clap::Args;
use protocol::esp::Slot;
use protocol::pattern::Mode;
use protocol::{Release, Target, Variant};

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::ScenarioArgs;
use crate::artifacts::{self, Artifacts};
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::report::Step;
use crate::scenario::{Options, Outcome, ScenarioError, Steps};

const VERIFY_OTHER: Step = Step::new("verify-other", "verify the other variant");
const BOOT: Step = Step::new("boot", "boot by UEFI");
const VALIDATE: Step = Step::new("validate", "validate slot a");
const SWITCH: Step = Step::new("switch", "switch to the other variant and reboot");
const VALIDATE_OTHER: Step = Step::new("validate-other", "validate the other variant in slot b");
const SWITCH_BACK: Step = Step::new("switch-back", "switch back and reboot");
const VALIDATE_BACK: Step = Step::new("validate-back", "validate the first variant in slot a");

/// Switch a host to another variant and back
///
/// Boots the disk image under UEFI Secure Boot with a TPM, sets the other variant in the configuration
/// on the EFI system partition, and lets the host update itself, so that it runs the other variant. Then
/// switches back in the same way. The host is checked from inside before and after each switch.
#[derive(Debug, Args)]
pub(crate) struct Switch {
    /// Options of every scenario
    #[command(flatten)]
    common: ScenarioArgs,
    /// Directory with the manifest and the artifacts of the other variant
    #[arg(long, value_name = "DIR")]
    other: PathBuf,
    /// Name of the other variant, such as deb12
    #[arg(long, value_name = "VARIANT")]
    variant: Variant,
}

impl Scenario for Switch {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn play(&self, first: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let options = steps.options;
        let other = steps.run(VERIFY_OTHER, || self.verify_other(options))?;
        let environment = TestEnvironment::prepare(first, &other.served, steps)?;

        let mut host = steps.run(BOOT, || Host::boot(&environment, &first.release))?;
        steps.run(VALIDATE, || host.validate(first, Slot::A))?;
        steps.run(SWITCH, || host.switch_to(&other))?;
        steps.run(VALIDATE_OTHER, || host.validate(&other, Slot::B))?;
        // Slot a still holds the first variant, so nothing has to be downloaded.
        steps.run(SWITCH_BACK, || host.switch_to(first))?;
        steps.run(VALIDATE_BACK, || host.validate(first, Slot::A))?;
        steps.power_off(host.guest)?;
        Ok(Passed)
    }
}

impl Switch {
    fn verify_other(&self, options: &Options) -> Outcome<Artifacts> {
        let target = Target { variant: self.variant.clone(), arch: options.target.arch };
        let other = artifacts::verify(&self.other, &target, &options.keys, options.sector_size)?;
        let note = format!("{target} {}", other.release.version);
        Ok((other, note))
    }
}

/// A running host.
struct Host<'a> {
    environment: &'a TestEnvironment<'a>,
    guest: Guest<'a>,
    boot: String,
    firmware: Firmware,
}

impl<'a> Host<'a> {
    fn boot(environment: &'a TestEnvironment<'a>, release: &Release) -> Outcome<Self> {
        let firmware = Firmware::uefi(release);
        let (guest, boot) = environment.boot("switch", firmware, None)?;
        Ok((Self { environment, guest, boot, firmware }, format!("{firmware}, TPM 2.0")))
    }

    fn validate(&mut self, artifacts: &Artifacts, slot: Slot) -> Outcome<()> {
        let Self { environment, guest, firmware, .. } = self;
        let release = &artifacts.release;
        let ((), note) = environment.validate(guest, release, Some(slot), *firmware)?;
        Ok(((), format!("{}, {note}", release.target())))
    }

    /// Sets the variant that the host follows, and waits until the host has rebooted.
    fn switch_to(&mut self, artifacts: &Artifacts) -> Outcome<()> {
        let variant = &artifacts.release.variant;
        let pattern = actions::follow(variant);
        self.guest.push("setting the variant", pattern, Mode::Change)?;
        self.guest.push_last("starting the update", actions::update())?;
        self.boot = self.guest.wait_for_reboot(&self.boot)?;
        Ok(((), artifacts.release.version.clone()))
    }
}
