//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use protocol::Arch;

use crate::accel::Preference;
use crate::args::VmArgs;
use crate::firmware::Firmware;
use crate::push::Push;
use crate::replay::SearchOptions;
use crate::scenarios::Scenarios;
use crate::shell::Shell;

/// Boot EtchaOS in a VM, take a release through updates, power cuts and faults, or push to a host
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

Exit codes: 0 passed, 1 failed, 2 wrong usage, 128+N ended by signal N; push and shell have more, see
their --help.
RUST_LOG=debug logs every command line and every request."
)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Report which accelerator works on this host, and why
    Probe(Probe),
    /// Boot a copy of a disk image and show its console, until Ctrl-C or power-off
    Boot(Boot),
    /// The scenarios, each one a subcommand.
    #[command(flatten)]
    Scenario(Scenarios),
    /// Judge a recording of "powercut" again
    Replay(Replay),
    /// Push a shell command or a Pattern to a host of EtchaOS or Etcha
    Push(Push),
    /// Open a root shell on a host of EtchaOS, through its listener
    Shell(Shell),
}

/// Options of `probe`.
#[derive(Debug, Args)]
pub(crate) struct Probe {
    /// Run this kernel under KVM instead of the firmware
    #[arg(long, value_name = "VMLINUZ")]
    pub(crate) kernel: Option<PathBuf>,
    /// Architecture of the guest [default: that of this host]
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<Arch>,
    /// Accelerator
    #[arg(long, value_enum, default_value_t)]
    pub(crate) accel: Preference,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `boot`.
#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// Raw disk image; it is not modified
    #[arg(long, value_name = "RAW")]
    pub(crate) disk: PathBuf,
    /// Architecture of the machine [default: that of the UEFI boot loader on the disk]
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<Arch>,
    /// Firmware that boots it
    #[arg(long, value_enum, default_value = "uefi-secureboot")]
    pub(crate) firmware: Firmware,
    /// Attach a TPM 2.0 (the default for UEFI)
    #[arg(long, overrides_with = "no_tpm")]
    pub(crate) tpm: bool,
    /// Attach no TPM
    #[arg(long)]
    pub(crate) no_tpm: bool,
    /// Configuration of the updater in the guest, as JSON (SMBIOS type 11)
    #[arg(long, value_name = "JSON")]
    pub(crate) config: Option<String>,
    /// Show the raw console, with escape sequences, instead of plain text
    #[arg(long)]
    pub(crate) console: bool,
    /// Keep the logs in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
    /// Options of the VM
    #[command(flatten)]
    pub(crate) vm: VmArgs,
}

impl Boot {
    /// Returns whether the VM has a TPM.
    pub(crate) fn has_tpm(&self) -> bool {
        self.tpm || (!self.no_tpm && self.firmware != Firmware::Bios)
    }
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Directory written by "testbed powercut --keep-recording"
    #[arg(long, value_name = "DIR")]
    pub(crate) recording: PathBuf,
    /// Disk image that was booted for the recording
    #[arg(long, value_name = "RAW")]
    pub(crate) base: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// How to search for bad states
    #[command(flatten)]
    pub(crate) search: SearchOptions,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn accepts_valid_options_and_derives_the_tpm() {
        Cli::command().debug_assert();
        let boot = |more: &[&str]| {
            let arguments = ["testbed", "boot", "--disk", "x"].iter().chain(more);
            match Cli::try_parse_from(arguments).unwrap().command {
                Command::Boot(boot) => boot.has_tpm(),
                other => panic!("{other:?}"),
            }
        };
        assert!(boot(&[]) && !boot(&["--no-tpm"]) && !boot(&["--firmware", "bios"]));
        assert!(boot(&["--firmware", "bios", "--tpm"]));
    }
}
