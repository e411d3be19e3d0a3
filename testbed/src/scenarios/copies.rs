//! A host that has two disks with the same ESP, as if an installation stick was left in, or a snapshot
//! attached.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use protocol::pattern::Mode;

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::ScenarioArgs;
use crate::artifacts::Artifacts;
use crate::disk::copy_sparse;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::machine::Boot;
use crate::report::Step;
use crate::scenario::{Outcome, ScenarioError, Steps};
use crate::updates::Disk;

/// The names of the disks in the guest.
const NAMES: [&str; 2] = ["vda", "vdb"];

/// Boot one of two disks with the same content
///
/// Boots the first of two new copies of the disk image; then the second one, which was never booted, beside
/// the first; then the second of two copies of a used disk. Each time, the host must use the disk that was
/// booted and must not write to the other. Repeats this under BIOS, if the machine has one.
#[derive(Debug, Args)]
pub(crate) struct Copies {
    /// Options of every scenario
    #[command(flatten)]
    common: ScenarioArgs,
}

impl Scenario for Copies {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let environment = TestEnvironment::prepare(artifacts, &[], steps)?;
        let uefi = Firmware::uefi(&artifacts.release);
        Self::boot_under(uefi, ["uefi-new", "uefi-beside", "uefi-used"], &environment, steps)?;
        match steps.options.missing(Firmware::Bios) {
            Some(reason) => steps.report.skipped.push(format!("the copies under BIOS: {reason}")),
            None => {
                let names = ["bios-new", "bios-beside", "bios-used"];
                Self::boot_under(Firmware::Bios, names, &environment, steps)?;
            }
        }
        Ok(Passed)
    }
}

impl Copies {
    /// Boots new copies of the disk in three ways. `names` are those of the steps and of the logs.
    fn boot_under(
        firmware: Firmware,
        names: [&'static str; 3],
        environment: &TestEnvironment<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<(), ScenarioError> {
        let pair = Pair { firmware, environment, disks: new_pair(environment, names[0])? };
        let [new, beside, used] = names;
        let step = Step::new(new, "boot the first of two new copies");
        steps.run(step, || pair.boot(new, 0))?;
        let step = Step::new(beside, "boot a new copy beside a disk in use");
        steps.run(step, || pair.boot(beside, 1))?;
        let remove =
            |source| ScenarioError::File { doing: "remove", path: pair.disks[1].clone(), source };
        fs::remove_file(&pair.disks[1]).map_err(remove)?;
        copy_sparse(&pair.disks[0], &pair.disks[1])?;
        let step = Step::new(used, "boot the second of two copies of a disk in use");
        steps.run(step, || pair.boot(used, 1))?;
        Ok(())
    }
}

/// Returns two copies of the disk that was never booted.
fn new_pair(environment: &TestEnvironment<'_>, name: &str) -> Result<[PathBuf; 2], ScenarioError> {
    let disks = NAMES.map(|disk| environment.work.path().join(format!("{name}-{disk}.raw")));
    for disk in &disks {
        copy_sparse(&environment.disk, disk)?;
    }
    Ok(disks)
}

/// Two disks with the same ESP.
struct Pair<'a> {
    firmware: Firmware,
    environment: &'a TestEnvironment<'a>,
    disks: [PathBuf; 2],
}

impl Pair<'_> {
    /// Boots one of the disks, and checks that the host uses it and leaves the other one alone.
    fn boot(&self, name: &str, booted: usize) -> Outcome<()> {
        let other = &self.disks[1 - booted];
        let before = modified(other)?;
        let boot = Boot::Copies { disks: self.disks.clone(), booted };
        let config = Some(self.environment.guest_config());
        let (mut guest, _) = self.environment.start(name, self.firmware, boot, config)?;
        let pattern = actions::expect_boot_disk(NAMES[booted]);
        guest.push("looking for the disk that was booted", pattern, Mode::Check)?;
        let disk = Disk::open(&self.disks[booted])?;
        guest.wait_until("waiting for the reset of the boot counter", |_| {
            Ok(disk.environment().filter(|found| found.boots == "0"))
        })?;
        let power_off = guest.power_off()?;
        if modified(other)? != before {
            return Err(ScenarioError::Disk {
                expected: format!("no write to {}, which was not booted", NAMES[1 - booted]),
                found: "a write".into(),
            });
        }
        Ok(((), format!("{}, {}, {power_off}", self.firmware, NAMES[booted])))
    }
}

/// Returns the time of the last write to a disk image.
fn modified(disk: &Path) -> Result<SystemTime, ScenarioError> {
    let data = fs::metadata(disk).and_then(|data| data.modified());
    data.map_err(|source| ScenarioError::File { doing: "read", path: disk.into(), source })
}
