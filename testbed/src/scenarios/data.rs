//! A host that keeps its data: over reboots, updates and a rollback, on a disk that grows, and after the data
//! partition was damaged.

mod encrypted;

use std::fs::File;
use std::os::unix::fs::FileExt;

use clap::Args;
use protocol::esp::Slot;
use protocol::pattern::Mode;
use serde_json::json;

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::{FirmwareArgs, ScenarioArgs};
use crate::artifacts::Artifacts;
use crate::derived::Changes;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::inspect::disk::SECTOR;
use crate::inspect::gpt::partitions;
use crate::report::Step;
use crate::scenario::{Outcome, ScenarioError, Steps};
use crate::updates::{Host, ReleaseSeries};

/// The free space of the disk behind the image, in bytes.
const ROOM: u64 = 768 << 20;
/// By how much the disk grows.
const GROWTH: u64 = 512 << 20;
/// How much of the data partition is overwritten, in bytes: the superblock and several of its copies.
const DAMAGE: u64 = 300 << 20;

const FILL: Step = Step::new("fill", "make an image, a volume and files");
const REBOOT: Step = Step::new("reboot", "reboot, and find them");
const ROLL_BACK: Step = Step::new("roll-back", "roll back, and find them");
const GROW: Step = Step::new("grow", "boot with a larger disk, and find them");
const LOSE: Step = Step::new("lose", "boot with a damaged data partition");
const UPDATE_WITHOUT: Step = Step::new("update-without", "update without data");

/// Keep data on the disk, and lose them
///
/// The configuration asks for a data partition, and the disk has free space. What Docker and other programs store
/// must survive a reboot, an update and a rollback; the partition must grow with the disk. Then the partition is
/// overwritten: the host must boot and update, Docker must not start, and the status must say why.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// Options of every scenario
    #[command(flatten)]
    pub(crate) common: ScenarioArgs,
    /// Firmware that boots the disk
    #[command(flatten)]
    pub(crate) firmware: FirmwareArgs,
    /// Encrypt the data partition. Then a machine with another TPM boots the disk, and the recovery key unlocks the
    /// data, which are not damaged. A machine with a BIOS has no TPM: it must store nothing
    #[arg(long)]
    pub(crate) encrypted: bool,
}

impl Scenario for Data {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn firmware(&self) -> Option<Firmware> {
        Some(self.firmware.of(&self.common))
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let changes = [Changes::default(), Changes::default()];
        let (releases, mut environment) = ReleaseSeries::prepare(artifacts, &changes, steps)?;
        let mut data = json!({"paths": ["/var/lib/kept"]});
        if self.encrypted {
            data["encrypt"] = "tpm".into();
        }
        environment.configured.insert("data".into(), data);
        environment.enlarge_disk(ROOM)?;
        let firmware = self.firmware.of(&self.common);
        if self.encrypted && !firmware.has_tpm() {
            encrypted::boot_without_tpm(&environment, firmware, steps)?;
            return Ok(Passed);
        }
        keep(&environment, &releases, firmware, self.encrypted, steps)?;
        if self.encrypted {
            environment.enlarge_disk(GROWTH)?;
            encrypted::replace_machine(&environment, firmware, steps)?;
            return Ok(Passed);
        }
        steps.run(GROW, || grow(&environment, firmware))?;
        lose(&environment, &releases, firmware, steps)?;
        Ok(Passed)
    }
}

/// Fills the data partition, and looks for its content after a reboot, an update and a rollback.
fn keep(
    environment: &TestEnvironment<'_>,
    releases: &ReleaseSeries,
    firmware: Firmware,
    is_encrypted: bool,
    steps: &mut Steps<'_>,
) -> Result<(), ScenarioError> {
    let mut host = steps.run(Step::BOOT, || {
        Ok((Host::boot(environment, "data", firmware, None)?, firmware.to_string()))
    })?;
    steps.run(FILL, || {
        host.guest.push("filling", actions::run_script("fill", FILL_DATA), Mode::Change)?;
        if is_encrypted {
            encrypted::give_recovery_key(&mut host)?;
        }
        expect_data(&mut host)
    })?;
    steps.run(REBOOT, || {
        restart(&mut host)?;
        expect_data(&mut host)
    })?;
    let build = releases.publish(0)?.build;
    steps.run(Step::UPDATE, || {
        host.update(Slot::B, build)?;
        expect_data(&mut host)
    })?;
    steps.run(ROLL_BACK, || {
        host.roll_back(Slot::A, 0)?;
        expect_data(&mut host)
    })?;
    steps.power_off(host.guest)
}

/// Makes the disk larger and boots it.
fn grow(environment: &TestEnvironment<'_>, firmware: Firmware) -> Outcome<()> {
    environment.enlarge_disk(GROWTH)?;
    let mut host = Host::boot(environment, "data-grown", firmware, None)?;
    expect_data(&mut host)?;
    expect_size(&mut host)?;
    Ok(((), host.guest.power_off()?.to_owned()))
}

/// Fails unless the file system has grown with the disk.
fn expect_size(host: &mut Host<'_>) -> Result<(), ScenarioError> {
    let script = format!("least={}\n{EXPECT_SIZE}", (ROOM + GROWTH) >> 21);
    host.guest.push("measuring", actions::check_script("size", &script), Mode::Check)?;
    Ok(())
}

/// Damages the data partition, boots, and updates.
fn lose(
    environment: &TestEnvironment<'_>,
    releases: &ReleaseSeries,
    firmware: Firmware,
    steps: &mut Steps<'_>,
) -> Result<(), ScenarioError> {
    let mut host = steps.run(LOSE, || {
        damage(environment)?;
        let mut host = Host::boot(environment, "data-lost", firmware, None)?;
        expect_loss(&mut host)?;
        Ok((host, "Docker does not start".to_owned()))
    })?;
    let build = releases.publish(1)?.build;
    steps.run(UPDATE_WITHOUT, || {
        host.update(Slot::B, build)?;
        expect_loss(&mut host)
    })?;
    steps.power_off(host.guest)
}

fn restart(host: &mut Host<'_>) -> Result<(), ScenarioError> {
    host.guest.push_last("rebooting", actions::run_script("reboot", RESTART))?;
    host.boot = host.guest.wait_for_boot(&host.boot)?;
    Ok(())
}

fn expect_data(host: &mut Host<'_>) -> Outcome<()> {
    let pattern = actions::check_script("data", EXPECT_DATA);
    host.guest.push("looking for the data", pattern, Mode::Check)?;
    Ok(((), "found".to_owned()))
}

fn expect_loss(host: &mut Host<'_>) -> Outcome<()> {
    let pattern = actions::check_script("lost data", EXPECT_LOSS);
    host.guest.push("looking at a host without data", pattern, Mode::Check)?;
    Ok(((), "Docker does not start".to_owned()))
}

/// Overwrites the beginning of the data partition.
fn damage(environment: &TestEnvironment<'_>) -> Result<(), ScenarioError> {
    let path = &environment.disk;
    let failed = |source| ScenarioError::File {
        doing: "damage the data partition on",
        path: path.clone(),
        source,
    };
    let file = File::options().read(true).write(true).open(path).map_err(failed)?;
    let sectors = file.metadata().map_err(failed)?.len() / SECTOR as u64;
    let data = partitions(&file, sectors).map(|found| found.data);
    let data = data.ok().flatten().ok_or_else(|| ScenarioError::Disk {
        expected: "a finished data partition".into(),
        found: "none".into(),
    })?;
    let block = vec![0xa5; 1 << 20];
    for number in 0..DAMAGE >> 20 {
        let offset = data.start * SECTOR as u64 + (number << 20);
        // The magic number stays, so that the partition still seems to have an ext4.
        let skipped = if number == 0 { 4096 } else { 0 };
        file.write_all_at(&block[skipped..], offset + skipped as u64).map_err(failed)?;
    }
    Ok(())
}

// The image has a static program, so the container needs no other file.
const FILL_DATA: &str = r#"
set -e
dir=$(mktemp -d /run/testbed.XXXXXX)
mkdir "$dir/bin"
cp /usr/bin/etchaos-updater "$dir/bin/updater"
tar -C "$dir" -c bin | docker import - testbed:kept
rm -r "$dir"
docker volume create kept
echo volume >/var/lib/docker/volumes/kept/_data/file
docker create --name kept --network none --volume kept:/volume testbed:kept /bin/updater --version
echo path >/var/lib/kept/file
sync
"#;

const RESTART: &str = "systemctl reboot --no-block && sleep 1";

const EXPECT_DATA: &str = r#"
timeout 300 systemctl is-system-running --wait >/dev/null
fail() { echo "$*"; systemctl --no-pager --failed; journalctl -b --no-pager -o cat -n 30 -u etchaos-data.service; etchaos-updater status; exit 1; }
for path in /var/lib/etchaos/data /var/lib/docker /var/lib/containerd /var/lib/kept; do
  grep -q " $path .* - ext4 " /proc/self/mountinfo || fail "$path is not on the data partition"
done
systemctl is-active docker.service || fail "docker does not run"
[ ! -e /run/etchaos/data-missing ] || fail "there is a mark that the data are missing"
[ "$(cat /var/lib/kept/file)" = path ] || fail "the file in /var/lib/kept is lost"
[ "$(cat /var/lib/docker/volumes/kept/_data/file)" = volume ] || fail "the file in the volume is lost"
docker image inspect testbed:kept >/dev/null || fail "the image is lost"
docker start --attach kept || fail "the container does not start"
journalctl --header --quiet | grep -q 'File path: /var/log/journal/' || fail "the journal is not kept"
etchaos-updater status | grep '^data .* ext4' || fail "the status does not name the data partition"
"#;

const EXPECT_SIZE: &str = r#"
size=$(($(stat --file-system --format='%b * %S' /var/lib/docker) / 1048576))
[ "$size" -ge "$least" ] || { echo "expected $least MiB or more, found $size"; journalctl -b --no-pager -u etchaos-data; exit 1; }
[ "$size" -gt 1000 ] || { echo "the file system was not grown: $size MiB"; journalctl -b --no-pager -u etchaos-data; exit 1; }
"#;

const EXPECT_LOSS: &str = r#"
timeout 300 systemctl is-system-running --wait >/dev/null
fail() { echo "$*"; systemctl --no-pager --failed; journalctl -b --no-pager -o cat -n 30 -u etchaos-data.service; etchaos-updater status; exit 1; }
! systemctl is-active docker.service || fail "docker runs"
! systemctl start docker.service || fail "docker starts"
! grep -q ' /var/lib/docker ' /proc/self/mountinfo || fail "/var/lib/docker is mounted"
[ -z "$(ls /var/lib/docker 2>/dev/null)" ] || fail "docker has stored something in memory"
etchaos-updater status | grep -q 'not mounted, so Docker does not start' || fail "the status does not say it"
journalctl -b --no-pager -o cat -u etchaos-data.service | grep 'is damaged' || fail "the journal does not say it"
[ -z "$(systemctl --failed --plain --no-legend)" ] || fail "a unit failed"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_valid_posix_shell() {
        for script in [FILL_DATA, RESTART, EXPECT_DATA, EXPECT_SIZE, EXPECT_LOSS] {
            let output =
                std::process::Command::new("/bin/sh").args(["-n", "-c", script]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
}
