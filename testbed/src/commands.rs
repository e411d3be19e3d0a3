//! Runs the subcommands.

use std::io::Write;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::cli::{Boot, Cli, Command, Probe, Replay};
use crate::console::{ConsoleFilter, Sink};
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
    }
}

fn probe(options: &Probe, cancel: &Cancel) -> Result<(), Error> {
    host::check()?;
    let work = Work::new(&default_work(), cancel)?;
    let selection = probe::select(options.accel, options.kernel.as_deref(), work.path());
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&selection)?)?;
    } else {
        writeln!(out, "{selection}")?;
    }
    Ok(())
}

fn boot(options: &Boot, cancel: &Cancel) -> Result<(), Error> {
    host::check()?;
    let work = Work::new(&options.vm.work, cancel)?;
    let logs = options.logs.clone().unwrap_or_else(|| work.path().to_owned());
    std::fs::create_dir_all(&logs)
        .map_err(|error| format!("cannot create the directory {}: {error}", logs.display()))?;
    let copy = work.path().join("disk.raw");
    disk::copy_sparse(&options.disk, &copy)?;
    let accel = probe::select(options.vm.accel, None, work.path());
    eprintln!("{}, {accel}", options.firmware);
    let machine = Machine {
        name: "boot".into(),
        boot: BootSource::Disk(copy),
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
