//! The steps of a data partition that is encrypted.

use std::fs::File;
use std::os::unix::fs::FileExt;

use protocol::pattern::{Mode, Pattern};

use super::{expect_data, expect_size, restart};
use crate::actions;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::inspect::disk::SECTOR;
use crate::inspect::gpt::partitions;
use crate::report::Step;
use crate::scenario::{Outcome, ScenarioError, Steps};
use crate::updates::Host;

/// The recovery key of the guest.
const KEY: &str = "recovery key of the testbed";
/// The beginning of a LUKS2 header: the magic number and the version.
const LUKS2: &[u8] = b"LUKS\xba\xbe\0\x02";

const OTHER_TPM: Step = Step::new("other-tpm", "boot with another TPM, and unlock with the key");
const NO_TPM: Step = Step::new("no-tpm", "boot without a TPM");

/// Gives the guest a recovery key, after the status has asked for one.
pub(super) fn give_recovery_key(host: &mut Host<'_>) -> Outcome<()> {
    host.guest.push("giving a recovery key", script(GIVE_KEY), Mode::Change)?;
    Ok(((), "given".to_owned()))
}

/// Boots a copy of the machine that has another TPM, unlocks the data, and reboots.
pub(super) fn replace_machine(
    environment: &TestEnvironment<'_>,
    firmware: Firmware,
    steps: &mut Steps<'_>,
) -> Result<(), ScenarioError> {
    expect_luks(environment)?;
    let host = steps.run(OTHER_TPM, || {
        // Each machine of the testbed has a TPM of its own.
        let mut host = Host::boot(environment, "data-other-tpm", firmware, None)?;
        host.guest.push("unlocking the data", script(UNLOCK), Mode::Change)?;
        expect_data(&mut host)?;
        expect_size(&mut host)?;
        restart(&mut host)?;
        expect_data(&mut host)?;
        Ok((host, "unlocked by the key, then by the TPM".to_owned()))
    })?;
    steps.power_off(host.guest)
}

/// Boots a machine without a TPM, which must not store data without encryption.
pub(super) fn boot_without_tpm(
    environment: &TestEnvironment<'_>,
    firmware: Firmware,
    steps: &mut Steps<'_>,
) -> Result<(), ScenarioError> {
    let host = steps.run(NO_TPM, || {
        let mut host = Host::boot(environment, "data-no-tpm", firmware, None)?;
        let pattern = actions::check_script("no TPM", EXPECT_NO_TPM);
        host.guest.push("looking at a host without a TPM", pattern, Mode::Check)?;
        Ok((host, "Docker does not start".to_owned()))
    })?;
    steps.power_off(host.guest)
}

/// Fails unless the data partition begins with a LUKS2 header.
fn expect_luks(environment: &TestEnvironment<'_>) -> Result<(), ScenarioError> {
    let path = &environment.disk;
    let failed = |source| ScenarioError::File { doing: "read", path: path.clone(), source };
    let disk = |found: &str| ScenarioError::Disk {
        expected: "a finished data partition with LUKS2".into(),
        found: found.into(),
    };
    let file = File::open(path).map_err(failed)?;
    let sectors = file.metadata().map_err(failed)?.len() / SECTOR as u64;
    let data = partitions(&file, sectors).ok().and_then(|found| found.data);
    let start = data.ok_or_else(|| disk("no partition"))?.start;
    let mut header = [0; LUKS2.len()];
    file.read_exact_at(&mut header, start * SECTOR as u64).map_err(failed)?;
    if header == LUKS2 { Ok(()) } else { Err(disk("another format")) }
}

fn script(text: &str) -> Pattern {
    actions::run_script("recovery key", &format!("key='{KEY}'\n{FUNCTIONS}{text}"))
}

const FUNCTIONS: &str = r#"
fail() { echo "$*"; journalctl -b --no-pager -o cat -n 30 -u etchaos-data.service; etchaos-updater status; exit 1; }
"#;

const GIVE_KEY: &str = r#"
etchaos-updater status | grep -q '^data .* encrypted' || fail "the data are not encrypted"
etchaos-updater status | grep -q 'has no recovery key' || fail "the status does not ask for a recovery key"
printf '%s\n' "$key" | etchaos-updater data recovery-key || fail "the recovery key was not taken"
! etchaos-updater status | grep -q 'has no recovery key' || fail "the status still asks for a recovery key"
! printf 'a wrong key of the testbed' | etchaos-updater data unlock || fail "a wrong key is accepted while the TPM unlocks the data"
printf '%s\n' "$key" | etchaos-updater data unlock || fail "the key does not unlock data that are unlocked"
"#;

const UNLOCK: &str = r#"
timeout 300 systemctl is-system-running --wait >/dev/null
! systemctl is-active docker.service || fail "docker runs although the data are locked"
[ -z "$(ls /var/lib/docker 2>/dev/null)" ] || fail "docker has stored something in memory"
etchaos-updater status | grep -q 'the TPM does not unlock it' || fail "the status does not say it"
[ -z "$(systemctl --failed --plain --no-legend)" ] || fail "a unit failed"
! printf 'a wrong key of the testbed' | etchaos-updater data unlock || fail "a wrong key unlocks the data"
printf '%s\n' "$key" | etchaos-updater data unlock || fail "the key does not unlock the data"
systemctl start docker.service || fail "docker does not start"
! journalctl -b --no-pager -o cat | grep -qF "$key" || fail "the key is in the journal"
"#;

const EXPECT_NO_TPM: &str = r#"
timeout 300 systemctl is-system-running --wait >/dev/null
fail() { echo "$*"; journalctl -b --no-pager -o cat -n 30 -u etchaos-data.service; etchaos-updater status; exit 1; }
! systemctl is-active docker.service || fail "docker runs"
! grep -q ' /var/lib/etchaos/data ' /proc/self/mountinfo || fail "data are stored without encryption"
etchaos-updater status | grep -q 'needs a TPM 2.0' || fail "the status does not say it"
[ -z "$(systemctl --failed --plain --no-legend)" ] || fail "a unit failed"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_valid_posix_shell() {
        for script in [GIVE_KEY, UNLOCK, EXPECT_NO_TPM] {
            let script = format!("key='{KEY}'\n{FUNCTIONS}{script}");
            let output =
                std::process::Command::new("/bin/sh").args(["-n", "-c", &script]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
}
