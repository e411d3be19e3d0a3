//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps an EtchaOS host up to date.
///
/// A host has two slots, a and b. An update goes into the one that is not needed, gets three tries to
/// boot, and is confirmed when a boot was healthy; else the host reboots by itself, the boot loader
/// falls back to the other slot, and the release is not installed again until there is a newer one.
#[derive(Debug, Parser)]
#[command(name = "etchaos-updater", bin_name = "etchaos-updater", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
}

const AFTER_HELP: &str = "\
Configuration is JSON, merged in this order, the later over the earlier: built-in defaults,
/usr/lib/etchaos/updater.json, etchaos/config.json on the ESP, etchaos.config= on the kernel command
line, SMBIOS type 11 strings that begin with etchaos=, user-data on a volume labelled cidata, --config.
The command line and SMBIOS also take base64 of it. For example:

  {\"cdn\": [\"https://cdn.example/etchaos\", \"/mnt/mirror\"], \"reboot\": \"never\",
   \"listen\": {\"sources\": {\"ci\": {\"keys\": [\"ed25519public:…\"]}}}}

  cdn             where releases are: https://…, http://… (they are signed) or an absolute directory; or
                  a list of these, mirrors in the order in which they are asked
  variant         the variant to follow; default: the one that runs
  keys            whom to trust, besides /usr/lib/etchaos/keys of the image; all sources add up
  allowedOrigins  https://host[:port] that a manifest may name besides the CDN's
  proxy           http://[user:password@]host:port; default: as https_proxy and http_proxy say
  noProxy         hosts that are reached without it: names, .suffixes or *
  ca              PEM files of certificates to trust besides the public ones
  rateLimit       bytes per second, or such as \"500K\", \"2M\"
  health.units    units that have to be active before a new release is confirmed
  health.checks   shell commands that have to end with 0 before that
  health.deadline how long after the boot that may take; default: 15min
  reboot          when to boot what was installed: idle (default: nobody is logged in or holds an
                  inhibitor), now, never, or {\"window\": \"Sat 02:00\", \"duration\": \"2h\"}, in which
                  the window is a calendar expression of systemd, and \"idle\": false does not wait
  metrics         a file that ends with .prom, for node-exporter's textfile collector
  listen          answers pushed Patterns, on address (default 0.0.0.0:4000), from sources

A later source replaces a value of an earlier one, and a list as a whole; only keys add up.

Exit codes: 0 done, or nothing to do; 1 error; 2 wrong usage; 3 nothing was done for a reason that is
not an error (the running release is not confirmed, the offered one failed its trial or was rolled
back, listening is off); 10 check only: there is something to do (install, repair, reboot).
verify: 0 whole, 1 damaged. health: 0 healthy, 1 not. rollback: 1 also if there is no way back.
config --require: 0 it is set, 1 it is not, 255 it cannot be read (the unit fails, or is tried again);
a broken configuration is 255 for cdn, and 1 for listen (it is skipped). SIGINT, SIGTERM and
SIGHUP end an update in order; the next one goes on.";

// For each command those that it has.
const CHECK_EXITS: &str = "\
Exit codes: 0 the host is up to date; 1 error; 2 wrong usage; 3 what is offered has to wait (the
running release is not confirmed, or the offered one failed its trial or was rolled back); 10 there is
something to do (install, repair, reboot, or call a trial off).";
const UPDATE_EXITS: &str = "\
Exit codes: 0 done, or nothing to do; 1 error, and what runs is as it was; 2 wrong usage; 3 what is
offered has to wait (the running release is not confirmed, or the offered one failed its trial or was
rolled back); 129, 130, 143 ended by SIGHUP, SIGINT or SIGTERM, and the next update goes on.";
const STATUS_EXITS: &str =
    "Exit codes: 0 it is shown; 1 error, or the configuration is broken; 2 wrong usage.";
const VERIFY_EXITS: &str = "\
Exit codes: 0 everything is whole; 1 something is damaged, the configuration is broken, or another
error; 2 wrong usage.";
const CONFIRM_EXITS: &str =
    "Exit codes: 0 the running slot is good, or was rolled back; 1 error; 2 wrong usage.";
const HEALTH_EXITS: &str = "Exit codes: 0 healthy; 1 not healthy, or error; 2 wrong usage.";
const ROLLBACK_EXITS: &str = "\
Exit codes: 0 the way back is set, or a trial that had not begun is called off; 1 there is no way back,
or error; 2 wrong usage.";
const LISTEN_EXITS: &str = "\
Exit codes: 1 error; 2 wrong usage; 3 nobody may push, since no source with a key is configured. Else it
does not end by itself.";
const CONFIG_EXITS: &str = "\
Exit codes: 0 it is shown; 1 error; 2 wrong usage. With --require: 0 it is set; 1 it is not, or the
configuration is broken (listen); 255 it cannot be read, or the configuration is broken (cdn).";

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Use this directory as ESP instead of mounting the one that was booted from
    #[arg(long, global = true, value_name = "DIR")]
    pub esp: Option<PathBuf>,
    /// One more source of configuration, over all others; may be given again
    #[arg(long = "config", global = true, value_name = "FILE")]
    pub configs: Vec<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Log debug messages, such as every command that is run; RUST_LOG=debug does the same
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Look for /proc, /etc, /usr, /sys, /dev and /run below this directory
    #[arg(long, global = true, hide = true, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
    /// Pause no longer than this between two attempts to reach the CDN, unless it asks for it
    #[arg(long, global = true, hide = true, value_name = "MILLISECONDS")]
    pub longest_pause: Option<u64>,
}

impl Global {
    /// See [`Global::longest_pause`].
    pub fn longest_pause(&self) -> Duration {
        self.longest_pause.map_or(Duration::MAX, Duration::from_millis)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether the CDN has another release, and what differs
    ///
    /// The ESP is not written to.
    #[command(after_help = CHECK_EXITS)]
    Check,
    /// Install the CDN's release if it is another one, heal what is damaged, and reboot
    ///
    /// The release is downloaded into the slot that is not needed, verified, and put on trial. A download
    /// that was cut is gone on with. The host reboots when "reboot" of the configuration allows.
    #[command(after_help = UPDATE_EXITS)]
    Update(Update),
    /// Show what runs, both slots, health, the last and the next poll, and what is outstanding
    ///
    /// It is quick: of the slots it looks at manifests and sizes. `verify` reads and hashes them. Who is
    /// not root sees what can be seen without mounting the ESP.
    #[command(after_help = STATUS_EXITS)]
    Status,
    /// Read both slots, and compare every byte with the manifests by its hash
    ///
    /// `update` repairs what is damaged.
    #[command(after_help = VERIFY_EXITS)]
    Verify,
    /// After a healthy boot: make the running slot the good one
    ///
    /// etchaos-confirm.service does it. It asks nobody whether the host is healthy: that was `health`.
    #[command(after_help = CONFIRM_EXITS)]
    Confirm,
    /// Say whether the host is healthy, as the configuration has it
    ///
    /// Asks health.units and health.checks once.
    #[command(after_help = HEALTH_EXITS)]
    Health(Health),
    /// Go back to the release in the other slot, and remember this one as failed
    ///
    /// The other release is tried like a new one: if it is not healthy, the host returns to this one. Where
    /// a trial runs, it is ended, and the host reboots into the good slot. Where one has not begun, it is
    /// called off, and nothing is rebooted. The reboot waits for nobody.
    #[command(after_help = ROLLBACK_EXITS)]
    Rollback(Rollback),
    /// Reboot, if the running slot is on trial and not confirmed
    #[command(hide = true)]
    Fallback(Fallback),
    /// Run Patterns that are pushed by the configured sources
    #[command(after_help = LISTEN_EXITS)]
    Listen,
    /// Show every value of the configuration and where it comes from
    #[command(after_help = CONFIG_EXITS)]
    Config(Config),
}

/// Arguments of `update`.
#[derive(Debug, Args)]
pub struct Update {
    /// Do not reboot, whatever the configuration says
    #[arg(long)]
    pub no_reboot: bool,
    /// Install also a release that is older than the running one, or than one that was offered before
    #[arg(long)]
    pub allow_downgrade: bool,
    /// Install also a release that failed its trial on this host, or that was rolled back
    #[arg(long)]
    pub retry_failed: bool,
    /// Say what would be done: nothing but the manifest is downloaded, and nothing is written
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Ask again until it is, or until health.deadline after the start of the kernel
    #[arg(long)]
    pub wait: bool,
}

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Do not reboot: somebody has to, before the next update
    #[arg(long)]
    pub no_reboot: bool,
}

/// Arguments of `fallback`.
#[derive(Debug, Args)]
pub struct Fallback {
    /// Wait until the configured deadline after the boot
    #[arg(long)]
    pub at_deadline: bool,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Say by the exit code alone whether this is configured
    #[arg(long, value_name = "WHAT")]
    pub require: Option<Require>,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Require {
    /// A CDN to update from
    Cdn,
    /// Somebody who may push
    Listen,
}

/// How this program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// It did not work.
    Error,
    /// Nothing was done, for a reason that is not an error.
    NotNow,
    /// `check`: there is something to install, or to reboot into.
    Available,
    /// `config --require`: it is not known whether this is configured. systemd takes codes from 1 to
    /// 254 of an ExecCondition for "skip".
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::NotNow => 3,
            Exit::Available => 10,
            Exit::Unknown => 255,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
