//! The command line.

mod help;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::help::{
    AFTER_HELP, CHECK_HELP, CONFIG_HELP, CONFIRM_HELP, DATA_HELP, HEALTH_HELP, HOST_SETTINGS_HELP,
    LISTEN_HELP, ROLLBACK_HELP, SOURCES_HELP, STATUS_HELP, UPDATE_HELP, VERIFY_HELP,
};

/// Keeps an EtchaOS host up to date
///
/// A host has two slots, a and b, on its EFI system partition (ESP). The good slot holds the release
/// that was confirmed last; the other one is the spare slot. An update installs a release into the spare
/// slot and puts that slot on trial: the boot loader tries to boot it, up to three times. After a healthy
/// boot the release is confirmed, and its slot becomes the good slot. Otherwise the boot loader falls
/// back to the good slot, and the failed release is not installed again.
#[derive(Debug, Parser)]
#[command(name = "etchaos-updater", bin_name = "etchaos-updater", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
}

impl Cli {
    /// Whether debug messages are logged.
    pub fn is_verbose(&self) -> bool {
        self.global.verbose
    }
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Use this directory as the ESP instead of mounting the ESP that the host was booted from
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) esp: Option<PathBuf>,
    /// Read one more configuration file, which overrides all other sources; may be repeated
    #[arg(long = "config", global = true, value_name = "FILE")]
    pub(crate) configs: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log debug messages, such as every command that is run; RUST_LOG=debug does the same
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
    /// Look for /proc, /etc, /usr, /sys, /dev and /run below this directory
    #[arg(long, global = true, hide = true, value_name = "DIR", default_value = "/")]
    pub(crate) host_root: PathBuf,
    /// Wait at most this long between two attempts to reach the CDN, unless the CDN asks for more
    #[arg(long, global = true, hide = true, value_name = "MILLISECONDS")]
    longest_pause: Option<u64>,
}

impl Global {
    /// Returns the maximum wait between two attempts to reach the CDN.
    pub(crate) fn longest_pause(&self) -> Duration {
        self.longest_pause.map_or(Duration::MAX, Duration::from_millis)
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show whether the CDN offers another release, and how it differs
    ///
    /// Downloads the manifest from the CDN and compares it with the running release. Does not write to
    /// the ESP.
    #[command(after_help = CHECK_HELP)]
    Check,
    /// Install the release that the CDN offers, repair damaged slots, and reboot
    ///
    /// Downloads the release into the spare slot, verifies it, and puts it on trial. Resumes a download
    /// that was interrupted. Reboots the host when the configured reboot policy allows. Does nothing if
    /// the host is up to date.
    #[command(after_help = UPDATE_HELP)]
    Update(Update),
    /// Show the running release, both slots, health, polls, errors and outstanding actions
    ///
    /// Reads only the manifests and file sizes of the slots, which is fast; `verify` also hashes the
    /// files. Without root, shows only what does not require mounting the ESP.
    #[command(after_help = STATUS_HELP)]
    Status,
    /// Check the files of both slots against the hashes in their manifests
    ///
    /// Reads both slots completely. Use `update` to repair damaged files.
    #[command(after_help = VERIFY_HELP)]
    Verify,
    /// Make the running slot the good slot, after a healthy boot
    ///
    /// etchaos-confirm.service runs this command after `health` has succeeded. The command itself does
    /// not check the health of the host.
    #[command(after_help = CONFIRM_HELP)]
    Confirm,
    /// Check whether the host is healthy according to its configuration
    ///
    /// The host is healthy if all units in health.units are active and all commands in health.checks
    /// exit with 0. Checks once, unless --wait is given.
    #[command(after_help = HEALTH_HELP)]
    Health(Health),
    /// Return to the release in the other slot, and record the running one as failed
    ///
    /// Puts the other slot on trial and reboots: if that release is not healthy, the host returns to the
    /// current one. If the running release is on trial, ends the trial and reboots into the good slot.
    /// If a trial has not been booted yet, cancels it without a reboot. The reboot does not wait for
    /// windows, users or inhibitors.
    #[command(after_help = ROLLBACK_HELP)]
    Rollback(Rollback),
    /// Reboot if the running slot is on trial and not confirmed
    #[command(hide = true)]
    Fallback(Fallback),
    /// Record that the host has started, and tag the disk that it was booted from
    #[command(hide = true)]
    Started,
    /// Mount what the host keeps over reboots, or manage the keys of an encrypted data partition
    ///
    /// etchaos-data.service runs this command without a subcommand.
    #[command(after_help = DATA_HELP)]
    Data(Data),
    /// Apply the host name, the network interfaces and the time servers of the configuration
    ///
    /// Writes files for systemd-networkd and systemd-timesyncd below /run, and sets the host name. Reloads
    /// what has changed. Units run this command at each boot; run it by hand after a change of the
    /// configuration.
    #[command(name = "host-settings", after_help = HOST_SETTINGS_HELP)]
    HostSettings(HostSettings),
    /// Listen for pushes, and run their commands as root
    ///
    /// A push is an HTTP POST request whose body is a signed token with a Pattern, a list of shell
    /// commands. The signing key must belong to a source in listen.sources. Runs until it is stopped.
    /// Exits immediately if no source with a key is configured.
    #[command(after_help = LISTEN_HELP)]
    Listen,
    /// Run the Patterns and Commands of the sources that are due
    ///
    /// Runs the last Pattern that each source pushed, or that was pulled from it, and its Commands in the
    /// configuration. Removes what they no longer have. etchaos-sources.service runs this command after each
    /// boot and at the interval of each source.
    #[command(after_help = SOURCES_HELP)]
    Sources(Sources),
    /// Apply a delta to a file
    #[command(hide = true)]
    ApplyDelta(ApplyDelta),
    /// Become a shell in a session of its own, for another process of this program
    #[command(hide = true)]
    ShellChild,
    /// Show every value of the configuration and its source
    ///
    /// Shows public keys by their ID, and a proxy without user name and password.
    #[command(after_help = CONFIG_HELP)]
    Config(Config),
}

/// Arguments of `update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Do not reboot, regardless of the configuration
    #[arg(long)]
    pub(crate) no_reboot: bool,
    /// Also install a release that is older than the running one, or than one offered before
    #[arg(long)]
    pub(crate) allow_downgrade: bool,
    /// Also install a release that failed its trial on this host or was rolled back, and retry files that
    /// were wrong and deltas that failed before
    #[arg(long)]
    pub(crate) retry_failed: bool,
    /// Show what would be done: download only the manifest, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Repeat the checks until the host is healthy, or until health.deadline after the kernel started
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// Do not reboot: reboot the host yourself, before the next update
    #[arg(long)]
    pub(crate) no_reboot: bool,
}

/// Arguments of `fallback`.
#[derive(Debug, Args)]
pub(crate) struct Fallback {
    /// Wait until the configured deadline after the boot
    #[arg(long)]
    pub(crate) at_deadline: bool,
}

/// Arguments of `data`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Data {
    /// Unmount it
    #[arg(long)]
    pub(crate) stop: bool,
    /// What to do with the keys.
    #[command(subcommand)]
    pub(crate) keys: Option<DataKeys>,
}

/// What `data` can do with the keys of an encrypted data partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum DataKeys {
    /// Unlock the data partition with the recovery key, which is read from standard input
    ///
    /// Lets the TPM of this machine unlock the partition from now on, mounts it, and starts Docker.
    #[command(after_help = DATA_HELP)]
    Unlock,
    /// Give the data partition a recovery key, which is read from standard input
    ///
    /// The key is a line of 20 to 512 bytes. It replaces the earlier recovery key. The TPM has to be able
    /// to unlock the partition.
    #[command(after_help = DATA_HELP)]
    RecoveryKey,
}

/// Arguments of `host-settings`.
#[derive(Debug, Args)]
pub(crate) struct HostSettings {
    /// Run before the network: ask no metadata service, and reload nothing
    #[arg(long, hide = true)]
    pub(crate) early: bool,
}

/// Arguments of `sources`.
#[derive(Debug, Args)]
pub(crate) struct Sources {
    /// Run or pull all sources, also those that are not due
    #[arg(long)]
    pub(crate) all: bool,
    /// Only pull the Patterns, for the next run
    #[arg(long)]
    pub(crate) pull: bool,
}

/// Arguments of `apply-delta`.
#[derive(Debug, Args)]
pub(crate) struct ApplyDelta {
    /// The delta
    pub(crate) delta: PathBuf,
    /// The file that it patches
    pub(crate) source: PathBuf,
    /// The file to create
    pub(crate) target: PathBuf,
    /// The memory in bytes that applying it may take
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: u64,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Show nothing, and report by the exit code whether this value is configured
    #[arg(long, value_name = "WHAT")]
    pub(crate) require: Option<Require>,
}

/// What `config --require` can check for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Require {
    /// A CDN to update from
    Cdn,
    /// A push source with a key
    Listen,
}

/// The result of a command, as an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success, or nothing to do.
    Ok,
    /// An error.
    Error,
    /// Nothing was done, for a reason that is not an error.
    NothingDone,
    /// The command did what it could, but a source of the configuration is broken.
    BrokenConfig,
    /// `check`: an action is outstanding.
    ActionOutstanding,
    /// `config --require`: the value cannot be determined. The code is 255, because systemd skips a unit
    /// without an error if its ExecCondition exits with 1 to 254.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::NothingDone => 3,
            Exit::BrokenConfig => 4,
            Exit::ActionOutstanding => 10,
            Exit::Unknown => 255,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
