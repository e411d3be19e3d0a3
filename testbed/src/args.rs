//! The command-line options that scenarios and `boot` share.

use std::path::{Path, PathBuf};

use clap::Args;
use protocol::{Arch, KeyRing, Target};

use crate::accel::Preference;
use crate::cancel::Cancel;
use crate::firmware::Firmware;
use crate::scenario::Options;
use crate::sector_size::SectorSize;
use crate::work::default_work;

/// Options of the VM.
#[derive(Debug, Args)]
pub(crate) struct VmArgs {
    /// The accelerator
    #[arg(long, value_enum, default_value_t)]
    pub accel: Preference,
    /// Memory in MiB
    #[arg(long, default_value_t = Options::MEMORY, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(256..))]
    pub memory: u32,
    /// Virtual processors [default: 2 by KVM, 1 by TCG]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: Option<u32>,
    /// Logical sector size of the disk; scenarios use the disk image that was built for it [default: 512]
    #[arg(long, value_enum, default_value_t, hide_default_value = true, value_name = "BYTES")]
    pub sector_size: SectorSize,
    /// Private directory for disk copies and sockets while a VM runs; needs room for one disk image
    #[arg(long, value_name = "DIR", default_value_os_t = default_work())]
    pub work: PathBuf,
}

/// Options of every scenario.
#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs {
    /// Directory with etchaos_TARGET.jwt, .raw.zst, .vmlinuz and .initrd
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Target, such as deb_amd64
    #[arg(long, value_name = "TARGET")]
    pub target: Target,
    /// Public keys that may have signed the manifest: a file with one key per line, or a key
    #[arg(long, value_name = "FILE_OR_KEY", value_parser = keys)]
    pub keys: KeyRing,
    /// Directory for the logs of the VMs
    #[arg(long, value_name = "DIR", default_value = "testbed-logs")]
    pub logs: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Options of the VM
    #[command(flatten)]
    pub vm: VmArgs,
}

impl ScenarioArgs {
    /// Returns the options of a scenario, with absolute paths.
    ///
    /// # Errors
    /// Fails if the current directory cannot be determined.
    pub(crate) fn options(&self, cancel: Cancel) -> Result<Options, String> {
        Ok(Options {
            artifacts: absolute(&self.artifacts)?,
            previous: None,
            target: self.target.clone(),
            keys: self.keys.clone(),
            work: self.vm.work.clone(),
            logs: absolute(&self.logs)?,
            accel: self.vm.accel,
            memory: self.vm.memory,
            cpus: self.vm.cpus,
            sector_size: self.vm.sector_size,
            updater_version: Options::UPDATER_VERSION.into(),
            must_patch: false,
            cancel,
        })
    }
}

/// The option of scenarios that use one firmware.
#[derive(Debug, Args)]
pub(crate) struct FirmwareArgs {
    /// Firmware that boots the disk [default: bios, or uefi-secureboot if BIOS cannot boot the disk]
    #[arg(long, value_enum)]
    firmware: Option<Firmware>,
}

impl FirmwareArgs {
    /// Returns the firmware of a scenario.
    pub(crate) fn of(&self, common: &ScenarioArgs) -> Firmware {
        self.or_default(common.target.arch, common.vm.sector_size)
    }

    /// Returns the firmware for a machine. BIOS is the default because it is faster.
    fn or_default(&self, arch: Arch, sector_size: SectorSize) -> Firmware {
        self.firmware.unwrap_or(match Firmware::Bios.missing_on(arch, sector_size) {
            Some(_) => Firmware::UefiSecureboot,
            None => Firmware::Bios,
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Parses the value of `--keys`: a key, which has colons, or the path of a file.
fn keys(text: &str) -> Result<KeyRing, String> {
    let keys = if text.contains("public:") || text.contains("private:") {
        KeyRing::parse(text)
    } else {
        let content = std::fs::read_to_string(text)
            .map_err(|error| format!("cannot read the key file {text:?}: {error}"))?;
        KeyRing::parse(&content)
    };
    let keys = keys.map_err(|error| error.to_string())?;
    if keys.is_empty() {
        return Err(format!("no key in {text:?}"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::PrivateKey;

    #[test]
    fn uses_bios_by_default_where_there_is_one() {
        let firmware =
            |firmware, arch, sectors| FirmwareArgs { firmware }.or_default(arch, sectors);
        let (small, large) = (SectorSize::B512, SectorSize::B4096);
        assert_eq!(firmware(None, Arch::Amd64, small), Firmware::Bios);
        assert_eq!(firmware(None, Arch::Amd64, large), Firmware::UefiSecureboot);
        assert_eq!(firmware(None, Arch::Arm64, small), Firmware::UefiSecureboot);
        assert_eq!(firmware(Some(Firmware::Uefi), Arch::Amd64, small), Firmware::Uefi);
    }

    #[test]
    fn parses_keys_from_text_and_files() {
        let key = PrivateKey::generate();
        let text = key.public().to_string();
        assert!(keys(&text).unwrap().get(key.id()).is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(keys(path).unwrap_err().contains("no key"));
        std::fs::write(path, format!("# ours\n{text}\n")).unwrap();
        assert!(keys(path).unwrap().get(key.id()).is_some());
        assert!(keys("/no/such").unwrap_err().contains("/no/such"));
        let secret = key.reveal();
        assert!(!keys(&secret).unwrap_err().contains(secret.split(':').nth(1).unwrap()));
    }
}
