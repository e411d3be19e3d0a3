//! The TPM of the machine.

use std::fs;
use std::time::{Duration, Instant};

use super::error::DataError;
use crate::host::Host;

/// The variable that names the TPM for programs of systemd. It is not set on hosts.
const VARIABLE: &str = "SYSTEMD_TPM2_DEVICE";
/// The table in which firmware describes its TPM 2.0 (TCG ACPI Specification).
const TABLE: &str = "/sys/firmware/acpi/tables/TPM2";
/// The class of TPMs of version 2 in sysfs.
const CLASS: &str = "/sys/class/tpmrm";
/// How long udev may take to load the driver of a TPM that the firmware has.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Waits for the driver of the TPM.
///
/// # Errors
/// Fails if there is no TPM 2.0.
pub(super) fn wait(host: &Host) -> Result<(), DataError> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let since = Instant::now();
    while !has_driver(host) {
        if !host.path(TABLE).exists() || since.elapsed() > DRIVER_TIMEOUT {
            return Err(DataError::NoTpm);
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    Ok(())
}

fn has_driver(host: &Host) -> bool {
    let entries = fs::read_dir(host.path(CLASS)).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| host.path("/dev").join(entry.file_name()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tpm_has_a_driver_and_a_node() {
        if std::env::var_os(VARIABLE).is_some() {
            return eprintln!("SKIPPED: {VARIABLE} is set");
        }
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        assert!(matches!(wait(&host), Err(DataError::NoTpm)));
        fs::create_dir_all(root.path().join("sys/class/tpmrm/tpmrm0")).unwrap();
        assert!(matches!(wait(&host), Err(DataError::NoTpm)));
        fs::create_dir(root.path().join("dev")).unwrap();
        fs::write(root.path().join("dev/tpmrm0"), "").unwrap();
        wait(&host).unwrap();
    }
}
