//! Offers faulty releases, one after the other, to a host that trusts their key. Each time the host
//! must return to its previous release without intervention, and must refuse the faulty one afterwards.

use std::collections::BTreeSet;

use clap::Args;
use protocol::Role;
use protocol::boot_order::GOOD_BOOTS;
use protocol::esp::Slot;
use protocol::pattern::Mode;

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::{FirmwareArgs, ScenarioArgs};
use crate::artifacts::Artifacts;
use crate::derived::{Changes, Extra};
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::guest::GuestError;
use crate::report::Step;
use crate::scenario::{Outcome, ScenarioError, Steps};
use crate::updates::{Disk, Host, ReleaseSeries};

/// The number of tries at the start of a trial.
const INITIAL_TRIES: &str = "3";

/// A fault of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// The kernel panics, because the first process ends
    Panic,
    /// The initrd is truncated before the manifest is signed
    Truncated,
    /// The system boots, but a unit fails
    Unhealthy,
    /// systemd hangs in the middle of the boot
    Hang,
    /// The release is confirmed, and later its kernel panics
    Broken,
}

impl Fault {
    /// All faults.
    pub(crate) const ALL: [Self; 5] =
        [Self::Panic, Self::Truncated, Self::Unhealthy, Self::Hang, Self::Broken];

    fn step(self) -> Step {
        match self {
            Self::Panic => Step::new("panic", "recover from a kernel panic"),
            Self::Truncated => Step::new("truncated", "recover from a truncated initrd"),
            Self::Unhealthy => Step::new("unhealthy", "recover from a failed unit"),
            Self::Hang => Step::new("hang", "recover from a hanging systemd"),
            Self::Broken => Step::new("broken", "recover from a confirmed release that panics"),
        }
    }

    /// Returns the changes that give a release this fault.
    fn changes(self, base: &Artifacts) -> Changes {
        let extra = match self {
            Self::Panic => {
                // The kernel runs it as the first process, and panics when it ends.
                let mut init = Extra::file("", 0o755, "#!/bin/busybox sh\nexit 1\n");
                init.path = "init".into();
                vec![init]
            }
            Self::Truncated | Self::Broken => Vec::new(),
            Self::Unhealthy => unit("/bin/false"),
            // Signals cannot stop the first process, but the freezer of its control group can.
            Self::Hang => unit("/bin/sh -c 'echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze'"),
        };
        let initrd = base.release.artifact(Role::Initrd).map(|initrd| initrd.size);
        let initrd_bytes = initrd.filter(|_| self == Self::Truncated).map(|size| size / 10 * 6);
        Changes { extra, initrd_bytes, ..Changes::default() }
    }

    /// Returns whether the trial starts with all of its tries. A fault whose tries take minutes gets a
    /// single one, because the other faults already test the counting.
    fn uses_all_tries(self) -> bool {
        matches!(self, Self::Panic | Self::Truncated)
    }
}

/// Returns a service that runs `command` at boot.
fn unit(command: &str) -> Vec<Extra> {
    let text = format!(
        "[Unit]\nDescription=A fault of the testbed\n\n[Service]\nType=oneshot\nExecStart={command}\n"
    );
    vec![
        Extra::file("etc/systemd/system/testbed-fault.service", 0o644, text),
        Extra::link(
            "etc/systemd/system/multi-user.target.wants/testbed-fault.service",
            "../testbed-fault.service",
        ),
    ]
}

/// Offer faulty releases, one after the other
///
/// Offers a release whose kernel panics, one with a truncated initrd, one with a unit that fails, and one in
/// which systemd hangs. Each time, the host must return to its previous release without intervention, and then
/// refuse the faulty one. Also breaks a release after it was confirmed: the host must then boot the previous
/// one.
#[derive(Debug, Args)]
pub(crate) struct Faults {
    /// Options of every scenario
    #[command(flatten)]
    pub(crate) common: ScenarioArgs,
    /// Firmware that boots the disk
    #[command(flatten)]
    pub(crate) firmware: FirmwareArgs,
    /// Only these faults
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::ALL)]
    only: Vec<Fault>,
}

impl Scenario for Faults {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn firmware(&self) -> Option<Firmware> {
        Some(self.firmware.of(&self.common))
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let firmware = self.firmware.of(&self.common);
        let changes: Vec<Changes> =
            self.only.iter().map(|fault| fault.changes(artifacts)).collect();
        let (releases, environment) = ReleaseSeries::prepare(artifacts, &changes, steps)?;

        let mut host = steps.run(Step::BOOT, || {
            Ok((Host::boot(&environment, "faults", firmware, None)?, firmware.to_string()))
        })?;
        for (number, fault) in self.only.iter().enumerate() {
            let release = releases.publish(number)?;
            steps.run(fault.step(), || match fault {
                Fault::Broken => recover_from_broken(&mut host, release.build, &environment),
                _ => recover_from(&mut host, *fault, &environment),
            })?;
        }
        steps.power_off(host.guest)?;
        Ok(Passed)
    }
}

/// Starts the update to the faulty release, waits until the host runs the previous release again, and
/// checks that it refuses another attempt.
fn recover_from(
    host: &mut Host<'_>,
    fault: Fault,
    environment: &TestEnvironment<'_>,
) -> Outcome<()> {
    let disk = Disk::open(&environment.disk)?;
    if fault.uses_all_tries() {
        host.start_update()?;
    } else {
        host.guest.push_last("starting the update", actions::update_for_one_try())?;
    }
    host.guest.allow_panics(true);
    let tries = wait_for_return(host, &disk)?;
    expect_previous(host)?;
    host.guest.push(
        "updating to the failed release again",
        actions::refuse_failed(),
        Mode::Check,
    )?;

    let expected: &[&str] = if fault.uses_all_tries() { &["0", "1", "2"] } else { &["0", "1"] };
    let found: Vec<&str> = tries.iter().map(String::as_str).collect();
    if found != expected {
        return Err(ScenarioError::Disk {
            expected: format!("these numbers of remaining tries: {}", expected.join(", ")),
            found: found.join(", "),
        });
    }
    let note = if fault.uses_all_tries() { "after three tries" } else { "after one try" };
    Ok(((), note.to_owned()))
}

/// Waits for the end of the boot, and checks that the host runs the release under test.
fn expect_previous(host: &mut Host<'_>) -> Result<(), ScenarioError> {
    host.boot = host.guest.wait_for_boot(&host.boot)?;
    host.guest.allow_panics(false);
    host.guest.push(
        "identifying the running release",
        actions::identify(Slot::A, 0),
        Mode::Check,
    )?;
    Ok(())
}

/// Updates the host to a release that works, breaks that release, and waits until the host runs the previous
/// one, which GRUB boots after [`GOOD_BOOTS`] boots that panic.
fn recover_from_broken(
    host: &mut Host<'_>,
    build: u64,
    environment: &TestEnvironment<'_>,
) -> Outcome<()> {
    let disk = Disk::open(&environment.disk)?;
    host.update(Slot::B, build)?;
    host.guest.push_last("breaking the release", actions::break_release(Slot::B))?;
    host.guest.allow_panics(true);
    let mut boots = BTreeSet::new();
    host.guest.wait_until("waiting for the host to return to the previous release", |_| {
        let Some(environment) = disk.environment() else { return Ok(None) };
        let is_confirmed = environment.is_confirmed(Slot::A);
        boots.insert(environment.boots);
        Ok(is_confirmed.then_some(()))
    })?;
    expect_previous(host)?;
    let missing: Vec<String> = (1..=GOOD_BOOTS)
        .map(|boots| boots.to_string())
        .filter(|number| !boots.contains(number))
        .collect();
    if !missing.is_empty() {
        return Err(ScenarioError::Disk {
            expected: format!("boot counters from 1 to {GOOD_BOOTS}"),
            found: format!("no boot with the counter {}", missing.join(" or ")),
        });
    }
    Ok(((), format!("after {GOOD_BOOTS} boots")))
}

/// Waits until GRUB has tried the other slot and the host has returned and recorded the failure.
/// Returns the observed numbers of remaining tries, without the initial one.
fn wait_for_return(host: &mut Host<'_>, disk: &Disk) -> Result<BTreeSet<String>, GuestError> {
    let mut tries = BTreeSet::new();
    host.guest.wait_until("waiting for the host to return to the previous release", |_| {
        let Some(environment) = disk.environment() else { return Ok(None) };
        if environment.trial == Slot::B.to_string() {
            if environment.tries != INITIAL_TRIES {
                tries.insert(environment.tries);
            }
            return Ok(None);
        }
        let has_returned =
            !tries.is_empty() && environment.trial.is_empty() && environment.is_confirmed(Slot::A);
        Ok(has_returned.then(|| tries.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_every_fault_its_own_step() {
        let steps: BTreeSet<String> = Fault::ALL.map(|fault| fault.step().to_string()).into();
        assert_eq!(steps.len(), Fault::ALL.len());
    }
}
