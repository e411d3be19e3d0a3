//! The subcommands.

mod config;
mod confirm;
mod listen;
mod poll;
mod status;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use protocol::esp::Slot;
use serde_json::{Value, json};

use crate::cli::{Cli, Command, Exit, Global};
use crate::config::{Merged, Settings, load};
use crate::esp::{Access, Esp};
use crate::host::Host;

/// Runs what the command line says, and tells what went wrong.
pub fn run(cli: &Cli) -> Exit {
    let global = &cli.global;
    let result = match &cli.command {
        Command::Check => poll::check(global),
        Command::Update(arguments) => poll::update(global, arguments),
        Command::Status => status::status(global),
        Command::Confirm => confirm::confirm(global),
        Command::Listen => listen::listen(global),
        Command::Config(arguments) => config::config(global, arguments),
    };
    result.unwrap_or_else(|error| {
        log::error!("{error:#}");
        if global.json {
            println!("{}", json!({"error": format!("{error:#}")}));
        }
        let asked = matches!(&cli.command, Command::Config(config) if config.require.is_some());
        if asked { Exit::Broken } else { Exit::Error }
    })
}

/// What most commands begin with.
struct Opened {
    running: Option<Slot>,
    merged: Merged,
    settings: Settings,
    /// Last, so that it is unmounted last.
    esp: Option<Esp>,
}

impl Opened {
    fn new(global: &Global, access: Access) -> Result<Self> {
        let host = Host::new(&global.host_root);
        let esp = Esp::open(&host, global.esp.as_deref(), access)?;
        let merged = load(&host, esp.as_ref(), &global.configs)?;
        let settings = Settings::try_from(&merged)?;
        let running = host.running().context("cannot read the kernel command line")?;
        Ok(Self { running, merged, settings, esp })
    }

    fn esp(&self) -> Result<&Esp> {
        need_esp(self.esp.as_ref())
    }
}

fn need_esp(esp: Option<&Esp>) -> Result<&Esp> {
    esp.context(
        "this system was not booted from an EtchaOS disk (the kernel command line has no etchaos.esp=): give --esp DIR to use a folder",
    )
}

/// Now, in Unix seconds. A clock before 1970 counts as 1970, when nothing is valid yet.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Prints the answer: JSON, or text for people.
fn answer(global: &Global, json: &Value, text: impl FnOnce() -> String) {
    match global.json {
        true => println!("{json}"),
        false => println!("{}", text()),
    }
}
