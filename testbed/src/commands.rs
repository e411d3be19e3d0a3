//! Runs the subcommands.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use protocol::Arch;

use crate::cancel::Cancel;
use crate::cli::{Boot, Cli, Command, Probe, Replay};
use crate::console::{ConsoleFilter, Sink};
use crate::firmware::Firmware;
use crate::inspect::files::boot_loaders;
use crate::machine::{Boot as BootSource, Machine};
use crate::scenarios::powercut;
use crate::vm::Vm;
use crate::work::{Work, default_work};
use crate::{disk, host, probe};

/// Time between two looks at a VM that was started by `boot`.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The reason why a subcommand failed; it is only printed.
type Error = Box<dyn std::error::Error>;

/// Runs the subcommand of `cli` until it ends or `cancel` requests a stop.
///
/// # Errors
/// Fails if the subcommand fails or is stopped.
pub fn dispatch(cli: Cli, cancel: Cancel) -> Result<(), Error> {
    match cli.command {
        Command::Probe(options) => probe(&options, &cancel),
        Command::Boot(options) => boot(&options, &cancel),
        Command::Scenario(scenario) => scenario.execute(cancel),
        Command::Replay(options) => replay(&options, &cancel),
        Command::Shell(options) => Ok(crate::shell::shell(&options, &cancel)?),
        Command::Push(options) => Ok(crate::push::push(&options, &cancel)?),
    }
}

fn probe(options: &Probe, cancel: &Cancel) -> Result<(), Error> {
    let arch = options.arch.or_else(Arch::native);
    let arch = arch.ok_or("EtchaOS does not support the architecture of this host; use --arch")?;
    host::check(arch)?;
    let work = Work::new(&default_work(), cancel)?;
    let kernel = options.kernel.as_deref();
    let selection = probe::select(options.accel, arch, kernel, work.path())?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&selection)?)?;
    } else {
        writeln!(out, "{selection}")?;
    }
    Ok(())
}

fn boot(options: &Boot, cancel: &Cancel) -> Result<(), Error> {
    let work = Work::new(&options.vm.work, cancel)?;
    let logs = options.logs.clone().unwrap_or_else(|| work.path().to_owned());
    std::fs::create_dir_all(&logs)
        .map_err(|error| format!("cannot create the directory {}: {error}", logs.display()))?;
    let copy = work.path().join("disk.raw");
    disk::copy_sparse(&options.disk, &copy)?;
    let arch = architecture(options, &copy)?;
    host::check(arch)?;
    let accel = probe::select(options.vm.accel, arch, None, work.path())?;
    eprintln!("{arch}, {}, {accel}", options.firmware);
    let machine = Machine {
        name: "boot".into(),
        arch,
        boot: BootSource::Disk(copy),
        sector_size: options.vm.sector_size,
        firmware: options.firmware,
        accel: accel.accel,
        memory: options.vm.memory,
        cpus: options.vm.cpus.unwrap_or(accel.accel.cpus()),
        tpm: options.has_tpm(),
        config: options.config.clone(),
        forward: Some(crate::push::PORT),
    };
    let vm = Vm::start(
        &machine,
        &work.path().join("boot"),
        &logs,
        Some(print_console(options.console)),
    )?;
    if let Some(port) = vm.port() {
        eprintln!(
            "127.0.0.1:{port} forwards to the guest's port {}; press Ctrl-C to stop",
            crate::push::PORT
        );
    }
    loop {
        if cancel.is_cancelled() {
            return Err("stopped by a signal".into());
        }
        if let Some(status) = vm.wait(POLL_INTERVAL) {
            return if status.success() {
                Ok(())
            } else {
                Err(vm.exit_report().unwrap_or_default().into())
            };
        }
    }
}

/// Returns the architecture of the machine that boots `disk`, the copy of the image.
fn architecture(options: &Boot, disk: &Path) -> Result<Arch, Error> {
    let arch = match options.arch {
        Some(arch) => arch,
        None if options.firmware == Firmware::Bios => Arch::Amd64,
        None => boot_loader(disk).map_err(|problem| {
            let disk = options.disk.display();
            format!("cannot tell the architecture of {disk}: {problem}; use --arch")
        })?,
    };
    match options.firmware.missing_on(arch, options.vm.sector_size) {
        Some(reason) => Err(format!("{reason}; use --firmware uefi-secureboot").into()),
        None => Ok(arch),
    }
}

/// Returns the architecture of the only boot loader on `disk`.
fn boot_loader(disk: &Path) -> Result<Arch, String> {
    let found = File::open(disk).and_then(|disk| boot_loaders(&disk));
    match found.map_err(|error| error.to_string())?[..] {
        [arch] => Ok(arch),
        [] => Err("EFI/BOOT has no boot loader".to_owned()),
        [_, ..] => Err("EFI/BOOT has boot loaders of several architectures".to_owned()),
    }
}

/// Returns a sink that prints the console, either raw or as plain text.
fn print_console(raw: bool) -> Sink {
    let mut cleaned = ConsoleFilter::default();
    Box::new(move |bytes| {
        let mut out = std::io::stdout().lock();
        let bytes = if raw { bytes.to_vec() } else { cleaned.clean(bytes) };
        // A closed standard output must not stop the VM.
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
    })
}

fn replay(options: &Replay, cancel: &Cancel) -> Result<(), Error> {
    let tally = powercut::replay_kept(&options.recording, &options.base, &options.search, cancel)?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&tally)?)?;
    } else {
        write!(out, "{tally}")?;
    }
    Ok(tally.require_no_bad_states()?)
}
