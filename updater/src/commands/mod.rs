//! The subcommands.

mod confirm;
mod fallback;
mod gather;
mod health;
mod listen;
mod metrics_file;
mod offer;
mod output;
mod poll;
mod report;
mod rollback;
mod show_config;
mod status;
mod verify;

use anyhow::{Context as _, Result, anyhow};
use serde_json::json;

use self::output::{answer, tell};
use crate::cli::{Cli, Command, Exit, Global, Require};
use crate::clock::now;
use crate::config::{ConfigError, Merged, Settings, load, load_built_in};
use crate::confirm::booted;
use crate::esp::{Access, Esp, EspError};
use crate::grubenv_file::GrubenvFile;
use crate::host::{Booted, Host};
use crate::plan::Slots;
use crate::record::{self, Failure};

/// Runs what the command line says, and tells what went wrong.
pub fn run(cli: &Cli) -> Exit {
    let global = &cli.global;
    let result = match &cli.command {
        Command::Check => poll::check(global),
        Command::Update(arguments) => poll::update(global, arguments),
        Command::Status => status::status(global),
        Command::Verify => verify::verify(global),
        Command::Confirm => confirm::confirm(global),
        Command::Health(arguments) => health::health(global, arguments),
        Command::Rollback(arguments) => rollback::rollback(global, arguments),
        Command::Fallback(arguments) => fallback::fallback(global, arguments),
        Command::Listen => listen::listen(global),
        Command::Config(arguments) => show_config::config(global, arguments),
    };
    result.unwrap_or_else(|error| {
        let text = format!("{error:#}");
        log::error!("{text}");
        let name = recorded(&cli.command).filter(|_| !came_second(&cli.command, &error));
        if let Some(command) = name {
            let host = Host::new(&global.host_root);
            record::write(&host, &Failure::new(now(), command, &text));
            if matches!(&cli.command, Command::Check | Command::Update(_)) {
                metrics_file::after_error(global);
            }
        }
        if global.json {
            tell(global, &json!({"error": &text}), || text.clone());
        }
        match &cli.command {
            Command::Config(config) => unknown(config.require, &error),
            _ => Exit::Error,
        }
    })
}

/// The name of a command whose errors are shown by `status`: what runs by itself, and does something.
fn recorded(command: &Command) -> Option<&'static str> {
    match command {
        Command::Check => Some("check"),
        Command::Update(update) => (!update.dry_run).then_some("update"),
        Command::Confirm => Some("confirm"),
        Command::Verify => Some("verify"),
        // The unit of updates asks this first, and ends with it.
        Command::Config(config) if config.require == Some(Require::Cdn) => Some("update"),
        Command::Health(_) => Some("health"),
        Command::Rollback(_) => Some("rollback"),
        Command::Fallback(_) => Some("fallback"),
        Command::Status | Command::Listen | Command::Config(_) => None,
    }
}

/// Whether nothing was done because another one is at work, which records its own errors. But that a
/// healthy boot is not confirmed, after a wait that was long enough for anybody, is to be seen.
fn came_second(command: &Command, error: &anyhow::Error) -> bool {
    let is_busy = matches!(error.downcast_ref(), Some(EspError::Busy(_)));
    is_busy && !matches!(command, Command::Confirm)
}

/// How `config --require` ends where the answer is not known. The unit of updates is started by a timer,
/// so it may fail and be seen. The unit that listens is part of the boot: if it failed, the boot would
/// not be healthy, and an operator's typing error would undo an update. So of that it is skipped, and
/// the error is in the journal. Of what may pass, such as a disk that comes late, it is tried again.
fn unknown(require: Option<Require>, error: &anyhow::Error) -> Exit {
    let is_broken = error.downcast_ref().is_some_and(ConfigError::is_permanent);
    match require {
        Some(Require::Listen) if is_broken => Exit::Error,
        Some(Require::Cdn | Require::Listen) => Exit::Unknown,
        None => Exit::Error,
    }
}

/// What most commands begin with.
struct Opened {
    booted: Booted,
    merged: Merged,
    settings: Settings,
    /// Last, so that it is unmounted last.
    esp: Option<Esp>,
}

impl Opened {
    fn new(global: &Global, access: Access) -> Result<Self> {
        Self::with(global, access, |host, esp| load(host, esp, &global.configs))
    }

    /// For who only looks. Where the configuration is broken, the image's keys say what is in the slots,
    /// and what is wrong comes with it.
    fn to_look(global: &Global) -> Result<(Self, Option<String>)> {
        let is_broken = |error: &ConfigError| !matches!(error, ConfigError::NotRoot { .. });
        match Self::new(global, Access::Read) {
            Ok(opened) => Ok((opened, None)),
            Err(error) if error.downcast_ref().is_some_and(is_broken) => {
                match Self::with(global, Access::Read, |host, _| load_built_in(host)) {
                    Ok(opened) => Ok((opened, Some(format!("{error:#}")))),
                    // The first error is the one to be told.
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn with(
        global: &Global,
        access: Access,
        load: impl FnOnce(&Host, Option<&Esp>) -> Result<Merged, ConfigError>,
    ) -> Result<Self> {
        let host = Host::new(&global.host_root);
        let esp = Esp::open(&host, global.esp.as_deref(), access)?;
        let merged = load(&host, esp.as_ref())?;
        let settings = Settings::try_from(&merged)?;
        let booted = booted(&host).context("cannot read the kernel command line")?;
        Ok(Self { booted, merged, settings, esp })
    }

    fn grubenv(&self, slots: &Slots) -> Result<GrubenvFile> {
        Ok(GrubenvFile::of_host(self.esp()?, self.booted, slots))
    }

    fn esp(&self) -> Result<&Esp> {
        need_esp(self.esp.as_ref())
    }

    /// Lets go of the ESP: it is unmounted and unlocked, and others may write to it.
    fn close(&mut self) {
        self.esp = None;
    }

    /// Takes it again. What it holds may be another thing now; the configuration stays what it was.
    fn reopen(&mut self, global: &Global, access: Access) -> Result<()> {
        // First this one, or the two would wait for each other.
        self.close();
        self.esp = Esp::open(&Host::new(&global.host_root), global.esp.as_deref(), access)?;
        Ok(())
    }
}

/// Runs what mounts in a thread of its own: to mount is to leave the host's mount namespace, and what
/// this thread is going to run for the operator, checks and Patterns, belongs into it.
fn apart<T: Send>(mounts: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(mounts);
        thread.join().unwrap_or_else(|_| Err(anyhow!("reading the configuration panicked")))
    })
}

fn need_esp(esp: Option<&Esp>) -> Result<&Esp> {
    esp.context(
        "this system was not booted from an EtchaOS disk (the kernel command line has no etchaos.esp=): give --esp DIR to use a directory",
    )
}
