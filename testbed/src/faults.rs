//! Releases that nobody wants are offered, one after the other, to a host that trusts them. Each time it
//! has to come back to what it ran before, by itself, and to remember.

use std::collections::BTreeSet;

use protocol::Role;
use protocol::esp::Slot;
use protocol::pattern::Mode;

use crate::actions;
use crate::artifacts::Artifacts;
use crate::derived::{Changes, Extra};
use crate::environment::{self, TestEnvironment};
use crate::firmware::Firmware;
use crate::guest::GuestError;
use crate::report::{Event, Report, Step};
use crate::scenario::{self, Failure, Options, Outcome, ScenarioError, Steps};
use crate::updates::{Disk, Host, Offers};

/// The tries with which a trial begins.
const FIRST: &str = "3";

/// What is wrong with a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// Its kernel panics, because the first process ends
    Panic,
    /// Its initrd is cut short, before the manifest was made
    Truncated,
    /// It boots, and a unit fails
    Unhealthy,
    /// systemd stops in the middle of the boot
    Hang,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Panic, Self::Truncated, Self::Unhealthy, Self::Hang];

    fn step(self) -> Step {
        match self {
            Self::Panic => Step::Panic,
            Self::Truncated => Step::Truncated,
            Self::Unhealthy => Step::Unhealthy,
            Self::Hang => Step::Hang,
        }
    }

    /// What makes a release have it.
    fn changes(self, base: &Artifacts) -> Changes {
        let extra = match self {
            Self::Panic => {
                // The kernel runs it as the first process, and panics when that ends.
                let mut init = Extra::file("", 0o755, "#!/bin/busybox sh\nexit 1\n");
                init.path = "init".into();
                vec![init]
            }
            Self::Truncated => Vec::new(),
            Self::Unhealthy => unit("/bin/false"),
            // The freezer of its control group: signals cannot stop the first process.
            Self::Hang => unit("/bin/sh -c 'echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze'"),
        };
        let initrd = base.release.artifact(Role::Initrd).map(|initrd| initrd.size);
        let initrd_bytes = initrd.filter(|_| self == Self::Truncated).map(|size| size / 10 * 6);
        Changes { extra, initrd_bytes, ..Changes::default() }
    }

    /// Where a try takes minutes, one is enough: that they are counted is shown by the others.
    fn has_all_tries(self) -> bool {
        matches!(self, Self::Panic | Self::Truncated)
    }
}

/// A service that runs this at boot.
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

/// Offers a release with each of `faults`.
pub fn run(
    options: &Options,
    firmware: Firmware,
    faults: &[Fault],
    events: &dyn Fn(Event<'_>),
) -> Result<((), Report), Box<Failure>> {
    scenario::run(options, events, |steps, say| play(options, firmware, faults, steps, say))
}

fn play(
    options: &Options,
    firmware: Firmware,
    faults: &[Fault],
    steps: &mut Steps<'_>,
    say: &dyn Fn(&str),
) -> Result<(), ScenarioError> {
    let artifacts = steps.run(Step::VerifyArtifacts, || environment::verify(options))?;
    let work = TestEnvironment::directories(options)?;
    let changes: Vec<Changes> = faults.iter().map(|fault| fault.changes(&artifacts)).collect();
    let offers = steps.run(Step::DeriveReleases, || Offers::make(&artifacts, &changes, &work))?;
    let bench = steps.run(Step::PrepareBench, || offers.bench(options, &artifacts, work, say))?;
    steps.report.accel = Some(bench.accel.clone());

    let mut host = steps.run(Step::Boot, || {
        Ok((Host::boot(&bench, "faults", firmware, None)?, firmware.to_string()))
    })?;
    for (number, fault) in faults.iter().enumerate() {
        offers.publish(number)?;
        steps.run(fault.step(), || survive(&mut host, *fault, &bench))?;
    }
    steps.run(Step::PowerOff, || Ok(((), host.guest.power_off()?.to_owned())))
}

/// From the order to update to the good release, which refuses to do it again.
fn survive(host: &mut Host<'_>, fault: Fault, bench: &TestEnvironment<'_>) -> Outcome<()> {
    let disk = Disk::open(&bench.disk)?;
    if fault.has_all_tries() {
        host.start_update()?;
    } else {
        host.guest.push_last("starting the update", actions::update_for_one_try())?;
    }
    host.guest.may_panic(true);
    let tries = wait_for_the_end(host, &disk)?;
    host.boot = host.guest.wait_for_boot(&host.boot)?;
    host.guest.may_panic(false);
    host.guest.push("looking at what runs", actions::identify(Slot::A, 0), Mode::Check)?;
    host.guest.push("updating once more", actions::refuse_again(), Mode::Check)?;

    let expected: &[&str] = if fault.has_all_tries() { &["0", "1", "2"] } else { &["0", "1"] };
    let found: Vec<&str> = tries.iter().map(String::as_str).collect();
    if found != expected {
        return Err(ScenarioError::Disk {
            expected: format!("these tries left, one after the other: {}", expected.join(", ")),
            found: found.join(", "),
        });
    }
    let note = if fault.has_all_tries() { "after three tries" } else { "after one try" };
    Ok(((), note.to_owned()))
}

/// Waits until GRUB has tried the other slot, and the host has come back and written that down. Returns
/// the numbers of tries that were left meanwhile, but the first.
fn wait_for_the_end(host: &mut Host<'_>, disk: &Disk) -> Result<BTreeSet<String>, GuestError> {
    let mut counted = BTreeSet::new();
    host.guest.wait_until("waiting for the host to come back by itself", |_| {
        let Some(now) = disk.environment() else { return Ok(None) };
        if now.trial == Slot::B.to_string() {
            if now.tries != FIRST {
                counted.insert(now.tries);
            }
            return Ok(None);
        }
        let over = !counted.is_empty() && now.trial.is_empty() && now.is_confirmed(Slot::A);
        Ok(over.then(|| counted.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_step_of_its_own() {
        let steps: BTreeSet<String> = Fault::ALL.map(|fault| fault.step().to_string()).into();
        assert_eq!(steps.len(), Fault::ALL.len());
    }
}
