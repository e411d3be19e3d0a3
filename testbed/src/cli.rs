//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use protocol::{KeyRing, Target};

use crate::accel::Request;
use crate::cycle::Options;
use crate::faults::Fault;
use crate::firmware::Firmware;
use crate::replay::Effort;

/// Boots EtchaOS in a VM: to look at it, or to put a release through a full update
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  testbed boot --disk out/deb_amd64/etchaos_deb_amd64.raw
  testbed run --artifacts out/deb_amd64 --target deb_amd64 --keys out/keys/signing.pub
  testbed powercut --artifacts out/deb_amd64 --target deb_amd64 --keys out/keys/signing.pub
  testbed kill --times 10 --artifacts out/deb_amd64 --target deb_amd64 --keys out/keys/signing.pub
  testbed faults --artifacts out/deb_amd64 --target deb_amd64 --keys out/keys/signing.pub

Exit codes: 0 passed, 1 failed, 2 wrong usage.
RUST_LOG=debug shows every command line and every request."
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say which accelerator works here, and why
    Probe(Probe),
    /// Boot a copy of a disk image and show its console, until Ctrl-C or power-off
    Boot(Boot),
    /// Put a release through the full update cycle
    ///
    /// Boots the disk image under UEFI Secure Boot with a TPM, checks it from inside, deletes kernel
    /// and initrd, lets it update itself from a CDN on the loopback, checks it again, and boots it by
    /// BIOS. The image is copied first. Nothing but the loopback is listened on.
    Run(Run),
    /// Record every write of updates, and judge what a power cut could have left of them
    ///
    /// In one VM: an update, a rollback, an update that crashes, an update after that. Then every
    /// prefix of the writes, and subsets of what was not flushed, torn at 512 bytes, have to boot a
    /// complete and verified release. The recording needs about 0.4 GiB in the work directory.
    Powercut(Powercut),
    /// Judge a recording of "powercut" again
    Replay(Replay),
    /// Kill QEMU at random moments of updates, again and again
    ///
    /// The disk stays as it is left. The host has to boot each time, and to run the newest release,
    /// confirmed, in the end. The work directory needs room for a release more than there are kills.
    Kill(Kill),
    /// Offer releases that must not stay, one after the other
    ///
    /// A kernel that panics, an initrd that is cut short, a unit that fails, a systemd that hangs. The
    /// host has to come back to what it ran before, by itself, and to refuse the same again.
    Faults(Faults),
}

/// Options of `probe`.
#[derive(Debug, Args)]
pub struct Probe {
    /// Run this kernel under KVM; without it, the firmware
    #[arg(long, value_name = "VMLINUZ")]
    pub kernel: Option<PathBuf>,
    /// Which accelerator
    #[arg(long, value_enum, default_value_t)]
    pub accel: Request,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of the VM.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Which accelerator
    #[arg(long, value_enum, default_value_t)]
    pub accel: Request,
    /// Memory in MiB
    #[arg(long, default_value_t = Options::MEMORY, value_name = "MIB",
          value_parser = clap::value_parser!(u32).range(256..))]
    pub memory: u32,
    /// Virtual processors [default: 2 by KVM, 1 by TCG]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: Option<u32>,
    /// Where disk copies and sockets are kept while a VM runs; needs room for one disk image
    #[arg(long, value_name = "DIR", default_value_os_t = default_work())]
    pub work: PathBuf,
}

/// Options of `boot`.
#[derive(Debug, Args)]
pub struct Boot {
    /// The raw disk image; it is not modified
    #[arg(long, value_name = "RAW")]
    pub disk: PathBuf,
    /// What boots it
    #[arg(long, value_enum, default_value = "uefi-secureboot")]
    pub firmware: Firmware,
    /// With a TPM 2.0 (the default for UEFI)
    #[arg(long, overrides_with = "no_tpm")]
    pub tpm: bool,
    /// Without a TPM
    #[arg(long)]
    pub no_tpm: bool,
    /// Configuration for the updater in the guest, as JSON (SMBIOS type 11)
    #[arg(long, value_name = "JSON")]
    pub config: Option<String>,
    /// Show the console as it comes, escape sequences and all, instead of clean lines
    #[arg(long)]
    pub console: bool,
    /// Keep the logs here
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// The VM
    #[command(flatten)]
    pub vm: VmArgs,
}

impl Boot {
    /// Whether the VM gets a TPM.
    pub fn has_tpm(&self) -> bool {
        self.tpm || (!self.no_tpm && self.firmware != Firmware::Bios)
    }
}

/// What every scenario needs to know.
#[derive(Debug, Args)]
pub struct ScenarioArgs {
    /// The directory with etchaos_TARGET.jwt, .raw, .vmlinuz and .initrd
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// The target, such as deb_amd64
    #[arg(long, value_name = "TARGET")]
    pub target: Target,
    /// The public keys that may have signed the manifest: a file of one key a line, or a key itself
    #[arg(long, value_name = "FILE_OR_KEY", value_parser = keys)]
    pub keys: KeyRing,
    /// Where the logs of the VMs go
    #[arg(long, value_name = "DIR", default_value = "testbed-logs")]
    pub logs: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// The VM
    #[command(flatten)]
    pub vm: VmArgs,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// What every scenario needs to know
    #[command(flatten)]
    pub scenario: ScenarioArgs,
    /// The version that the updater in the image must have
    #[arg(long, value_name = "VERSION", default_value = Options::UPDATER_VERSION)]
    pub updater_version: String,
}

/// Options of `powercut`.
#[derive(Debug, Args)]
pub struct Powercut {
    /// What every scenario needs to know
    #[command(flatten)]
    pub scenario: ScenarioArgs,
    /// What boots the disk
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: Firmware,
    /// Leave the rollback out: for images whose updater has none
    #[arg(long)]
    pub without_rollback: bool,
    /// Crash the second update when it has written this many thousandths of its download
    #[arg(long, default_value_t = 600, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..1000))]
    pub crash_at: u64,
    /// Copy the recording to this directory, for "testbed replay"
    #[arg(long, value_name = "DIR")]
    pub keep_recording: Option<PathBuf>,
    /// How hard is looked
    #[command(flatten)]
    pub effort: EffortArgs,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// What "testbed powercut --keep-recording" has left
    #[arg(long, value_name = "DIR")]
    pub recording: PathBuf,
    /// The disk image that was booted for it
    #[arg(long, value_name = "RAW")]
    pub base: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// How hard is looked
    #[command(flatten)]
    pub effort: EffortArgs,
}

/// Options of `faults`.
#[derive(Debug, Args)]
pub struct Faults {
    /// What every scenario needs to know
    #[command(flatten)]
    pub scenario: ScenarioArgs,
    /// What boots the disk
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: Firmware,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::ALL)]
    pub only: Vec<Fault>,
}

/// Options of `kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// What every scenario needs to know
    #[command(flatten)]
    pub scenario: ScenarioArgs,
    /// What boots the disk
    #[arg(long, value_enum, default_value = "bios")]
    pub firmware: Firmware,
    /// How often the machine is killed
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub times: usize,
    /// What decides when, so that a run can be repeated
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// How hard is looked for bad states.
#[derive(Debug, Args)]
pub struct EffortArgs {
    /// Judge at least this many states
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub states: usize,
    /// What decides by which tears and subsets, so that a run can be repeated
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Have mtools read this many of the states, too
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub crosschecks: usize,
    /// Write the disk of the first bad state to this directory
    #[arg(long, value_name = "DIR")]
    pub keep_bad: Option<PathBuf>,
}

impl From<EffortArgs> for Effort {
    fn from(args: EffortArgs) -> Self {
        let EffortArgs { states, seed, crosschecks, keep_bad } = args;
        Self { states, seed, crosschecks, keep_bad }
    }
}

/// A directory of our own: a lock file stays in it.
pub fn default_work() -> PathBuf {
    std::env::temp_dir().join("etchaos-testbed")
}

/// A key string has colons; a file is read.
fn keys(text: &str) -> Result<KeyRing, String> {
    let keys = if text.contains("public:") || text.contains("private:") {
        KeyRing::parse(text)
    } else {
        let content = std::fs::read_to_string(text)
            .map_err(|error| format!("cannot read the file of keys {text:?}: {error}"))?;
        KeyRing::parse(&content)
    };
    let keys = keys.map_err(|error| error.to_string())?;
    if keys.is_empty() {
        return Err(format!("there is no key in {text:?}"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use protocol::PrivateKey;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let boot = |more: &[&str]| {
            let words = ["testbed", "boot", "--disk", "x"].iter().chain(more);
            match Cli::try_parse_from(words).unwrap().command {
                Verb::Boot(boot) => boot.has_tpm(),
                other => panic!("{other:?}"),
            }
        };
        assert!(boot(&[]) && !boot(&["--no-tpm"]) && !boot(&["--firmware", "bios"]));
        assert!(boot(&["--firmware", "bios", "--tpm"]));
    }

    #[test]
    fn keys_are_given_as_text_or_file() {
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
