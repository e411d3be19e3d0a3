//! Encrypts the data partition with LUKS2 (cryptsetup(8)).
//!
//! A new partition is encrypted with a random key, which is not stored. The TPM gets the only key slot. The operator
//! can add a recovery key on the running host, so the configuration never has one.
//!
//! Nothing has to be resized when the partition grows: it grows before it is unlocked, and a LUKS2 header does not
//! say how large the partition is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::DataError;
use super::key::Key;
use super::layout::LABEL;
use super::tpm;
use crate::host::Host;
use crate::process::{Process, ProcessError};

/// The name of the decrypted device below /dev/mapper.
const NAME: &str = "etchaos-data";
/// The type of the token with which systemd-cryptenroll describes the key slot of a TPM.
const TOKEN: &str = "systemd-tpm2";
/// The register that the key is bound to: the state of Secure Boot, and the certificates of what was booted. All
/// others change with an update. docs/operators.md says what this protects.
const PCRS: &str = "--tpm2-pcrs=7";
/// The key slot of a new partition.
const FIRST_SLOT: &str = "0";
/// AES-256 in XTS mode, which has two keys.
const CIPHER: [&str; 4] = ["--cipher", "aes-xts-plain64", "--key-size", "512"];
/// A random key need not be protected from guesses. This is the minimum of cryptsetup.
const FAST: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
/// A recovery key is protected from guesses, with an amount of memory that every host has. The unit is KiB.
const SLOW: [&str; 4] = ["--pbkdf", "argon2id", "--pbkdf-memory", "65536"];
/// Takes only the key on standard input: without the first option, cryptsetup lets the TPM unlock the partition
/// before it reads the key, so that any key seems to be right (cryptsetup-open(8)).
const KEY_ONLY: [&str; 3] = ["--disable-external-tokens", "--key-file", "-"];
/// The timeout of a command. A TPM may take several seconds, and a key derivation on a busy host too.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The exit code of cryptsetup for a wrong key.
const WRONG_KEY: i32 = 2;

/// Encrypts an empty partition, and lets the TPM unlock it. Flushes it.
pub(super) fn create(host: &Host, device: &Path) -> Result<(), DataError> {
    tpm::wait(host)?;
    let key = Key::random().map_err(DataError::io("read", Path::new("/dev/random")))?;
    log::info!("encrypting {}", device.display());
    let format = ["luksFormat", "--batch-mode", "--type", "luks2", "--label", LABEL];
    let key_file = ["--key-file", "-"];
    let process = cryptsetup(&[&format[..], &CIPHER, &FAST, &key_file].concat());
    with_key(process.args([device.as_os_str()]), &key)?.stdout()?;
    enroll(device, &key)?;
    wipe(device, FIRST_SLOT)?;
    let flushed = File::open(device).and_then(|file| file.sync_all());
    flushed.map_err(DataError::io("flush", device))
}

/// Unlocks the partition with the TPM, unless it is unlocked. Returns the decrypted device.
pub(super) fn open(host: &Host, device: &Path) -> Result<PathBuf, DataError> {
    if let Some(mapping) = mapping(host, device)? {
        return Ok(mapping);
    }
    let locked = |reason: String| DataError::Locked { node: device.to_owned(), reason };
    tpm::wait(host).map_err(|_| locked("no TPM 2.0 was found".to_owned()))?;
    let process = cryptsetup(&["open", "--token-only", "--token-type", TOKEN]);
    let opened = process.args([device.as_os_str(), NAME.as_ref()]).stdout();
    opened.map_err(|error| locked(error.to_string()))?;
    mapping(host, device)?.ok_or_else(|| locked("its decrypted device is missing".to_owned()))
}

/// Fails if the key does not unlock the partition.
pub(super) fn check_key(device: &Path, key: &Key) -> Result<(), DataError> {
    let test = cryptsetup(&["open", "--test-passphrase"]).args(KEY_ONLY);
    let tested = with_key(test.args([device.as_os_str()]), key)?.stdout();
    let code = |status: &ExitStatus| status.code();
    match tested {
        Err(ProcessError::Failed { status, .. }) if code(&status) == Some(WRONG_KEY) => {
            Err(DataError::WrongKey(device.to_owned()))
        }
        result => Ok(result.map(drop)?),
    }
}

/// Unlocks the partition with a recovery key, unless it is unlocked.
pub(super) fn open_with_key(host: &Host, device: &Path, key: &Key) -> Result<(), DataError> {
    if mapping(host, device)?.is_none() {
        let open = cryptsetup(&["open"]).args(KEY_ONLY);
        with_key(open.args([device.as_os_str(), NAME.as_ref()]), key)?.stdout()?;
    }
    Ok(())
}

/// Lets the TPM of this machine unlock the partition, in place of the TPM that did so before.
pub(super) fn enroll_again(host: &Host, device: &Path, key: &Key) -> Result<(), DataError> {
    tpm::wait(host)?;
    // systemd-cryptenroll does nothing if there is a key slot for the same state of Secure Boot, even if that is one of
    // another TPM. It does not remove the last key slot.
    wipe(device, "tpm2")?;
    enroll(device, key)
}

/// Returns whether a recovery key unlocks the partition.
pub(super) fn has_recovery_key(device: &Path) -> Result<bool, DataError> {
    Ok(!Header::read(device)?.recovery_slots().is_empty())
}

/// Lets this recovery key unlock the partition, and removes others. The TPM has to unlock it now.
pub(super) fn set_recovery_key(host: &Host, device: &Path, key: &Key) -> Result<(), DataError> {
    let locked = |reason: String| DataError::Locked { node: device.to_owned(), reason };
    tpm::wait(host).map_err(|_| locked("no TPM 2.0 was found".to_owned()))?;
    let before = Header::read(device)?;
    let add = ["luksAddKey", "--batch-mode", "--token-only", "--token-type", TOKEN];
    let process = cryptsetup(&[&add[..], &SLOW].concat());
    let added = with_key(process.args([device.as_os_str(), "-".as_ref()]), key)?.stdout();
    added.map_err(|error| locked(error.to_string()))?;
    before.recovery_slots().into_iter().try_for_each(|slot| wipe(device, slot))
}

/// Locks the partition, if it is unlocked.
pub(super) fn close(host: &Host) -> Result<(), DataError> {
    if host.path("/dev/mapper").join(NAME).exists() {
        cryptsetup(&["close"]).args([NAME]).stdout()?;
    }
    Ok(())
}

/// Lets the TPM unlock the partition too.
fn enroll(device: &Path, key: &Key) -> Result<(), DataError> {
    let process = Process::new("systemd-cryptenroll", TIMEOUT)
        .args(["--tpm2-device=auto", PCRS, "--unlock-key-file=/dev/stdin"])
        .args([device.as_os_str()]);
    with_key(process, key)?.stdout()?;
    Ok(())
}

/// Removes key slots: a number, or a kind (systemd-cryptenroll(1)).
fn wipe(device: &Path, slots: &str) -> Result<(), DataError> {
    let process = Process::new("systemd-cryptenroll", TIMEOUT);
    let process = process.args([format!("--wipe-slot={slots}")]);
    process.args([device.as_os_str()]).stdout()?;
    Ok(())
}

/// Returns the decrypted device, or `None` if the partition is locked.
fn mapping(host: &Host, device: &Path) -> Result<Option<PathBuf>, DataError> {
    let mapping = host.path("/dev/mapper").join(NAME);
    if !mapping.exists() {
        return Ok(None);
    }
    let target = fs::canonicalize(&mapping).map_err(DataError::io("find", &mapping))?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
    let slaves = host.path("/sys/class/block").join(name(&target)).join("slaves");
    if !slaves.join(name(device)).exists() {
        return Err(DataError::OtherMapping { mapping, node: device.to_owned() });
    }
    Ok(Some(mapping))
}

fn cryptsetup(arguments: &[&str]) -> Process {
    Process::new("cryptsetup", TIMEOUT).args(arguments)
}

fn with_key(process: Process, key: &Key) -> Result<Process, DataError> {
    process.input(key.bytes()).map_err(DataError::io("pass a key to", "a program".as_ref()))
}

/// The parts of a LUKS2 header that are needed here.
#[derive(Debug, Deserialize)]
struct Header {
    keyslots: BTreeMap<String, IgnoredAny>,
    tokens: BTreeMap<String, Token>,
}

/// The description of key slots.
#[derive(Debug, Deserialize)]
struct Token {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
}

impl Header {
    fn read(device: &Path) -> Result<Self, DataError> {
        let process = cryptsetup(&["luksDump", "--dump-json-metadata"]);
        let json = process.args([device.as_os_str()]).stdout()?;
        let node = device.to_owned();
        serde_json::from_str(&json).map_err(|error| DataError::Header { node, error })
    }

    /// Returns the key slots that are not those of a TPM.
    fn recovery_slots(&self) -> Vec<&str> {
        let of_tpm = |slot: &&str| {
            let mut tokens = self.tokens.values().filter(|token| token.kind == TOKEN);
            tokens.any(|token| token.keyslots.iter().any(|found| found == slot))
        };
        self.keyslots.keys().map(String::as_str).filter(|slot| !of_tpm(slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(json: &str) -> Vec<String> {
        let header: Header = serde_json::from_str(json).unwrap();
        header.recovery_slots().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn slots_without_a_tpm_belong_to_recovery_keys() {
        let tpm = r#""0": {"type": "systemd-tpm2", "keyslots": ["1"], "tpm2-pcrs": [7]}"#;
        let with = |slots: &str, tokens: &str| {
            format!(r#"{{"keyslots": {{{slots}}}, "tokens": {{{tokens}}}, "config": {{}}}}"#)
        };
        assert!(slots(&with(r#""1": {"type": "luks2"}"#, tpm)).is_empty());
        assert_eq!(slots(&with(r#""0": {}, "1": {}, "2": {}"#, tpm)), ["0", "2"]);
        let other = r#""0": {"type": "systemd-recovery", "keyslots": ["0"]}"#;
        assert_eq!(slots(&with(r#""0": {}"#, other)), ["0"]);
    }

    #[test]
    fn a_mapping_of_another_device_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let device = Path::new("/dev/vda3");
        assert_eq!(mapping(&host, device).unwrap(), None);
        for directory in ["dev/mapper", "sys/class/block/dm-0/slaves/vda3"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("dev/dm-0"), "").unwrap();
        let link = root.path().join("dev/mapper/etchaos-data");
        std::os::unix::fs::symlink("../dm-0", &link).unwrap();
        assert_eq!(mapping(&host, device).unwrap(), Some(link));
        let other = mapping(&host, Path::new("/dev/vdb1"));
        assert!(matches!(other, Err(DataError::OtherMapping { .. })), "{other:?}");
    }
}
