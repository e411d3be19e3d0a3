//! What the binary does for each verb of its command line.

use std::fmt::{self, Display};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::accel::{self, Choice};
use serde::Serialize;
use serde_json::json;

use crate::cli::{
    Boot, Cli, Faults, Kill, Powercut, Probe, Replay, Run, ScenarioArgs, Verb, VmArgs, default_work,
};
use crate::console::{Cleaned, Sink};
use crate::cycle::{self, Options};
use crate::guest::Cancel;
use crate::machine::{Boot as Medium, Machine};
use crate::powercut::{self, PowerCut};
use crate::report::{Event, Report};
use crate::scenario::Failure;
use crate::vm::Vm;
use crate::work::Work;
use crate::{disk, faults, host, kill};

/// How often a VM that is only looked at is looked after.
const POLL: Duration = Duration::from_millis(200);

/// Why a verb failed; printed and gone.
type Error = Box<dyn std::error::Error>;

/// Does it.
pub fn dispatch(cli: Cli, cancel: Cancel) -> Result<(), Error> {
    match cli.command {
        Verb::Probe(options) => probe(&options),
        Verb::Boot(options) => boot(&options, &cancel),
        Verb::Run(options) => run(options, cancel),
        Verb::Powercut(options) => powercut(options, cancel),
        Verb::Replay(options) => replay(options, &cancel),
        Verb::Kill(options) => kill(options, cancel),
        Verb::Faults(options) => faults(options, cancel),
    }
}

fn probe(options: &Probe) -> Result<(), Error> {
    host::check()?;
    let work = Work::new(&default_work())?;
    let choice = accel::choose(options.accel, options.kernel.as_deref(), work.path());
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string(&choice)?)?;
    } else {
        writeln!(out, "{choice}")?;
    }
    Ok(())
}

fn boot(options: &Boot, cancel: &Cancel) -> Result<(), Error> {
    host::check()?;
    let work = Work::new(&options.vm.work)?;
    let logs = options.logs.clone().unwrap_or_else(|| work.path().to_owned());
    std::fs::create_dir_all(&logs)
        .map_err(|error| format!("cannot make the directory {}: {error}", logs.display()))?;
    let copy = work.path().join("disk.raw");
    disk::copy_sparse(&options.disk, &copy)?;
    let accel = choose(&options.vm, &work);
    eprintln!("{}, {accel}", options.firmware);
    let machine = Machine {
        name: "boot".into(),
        boot: Medium::Disk(copy),
        firmware: options.firmware,
        accel: accel.accel,
        memory: options.vm.memory,
        cpus: options.vm.cpus.unwrap_or(accel.accel.cpus()),
        tpm: options.has_tpm(),
        config: options.config.clone(),
        forward: Some(crate::push::PORT),
    };
    let vm = Vm::start(&machine, &work.path().join("boot"), &logs, Some(screen(options.console)))?;
    if let Some(port) = vm.port() {
        eprintln!("127.0.0.1:{port} leads to the guest's port {}; Ctrl-C ends", crate::push::PORT);
    }
    while !cancel.is_cancelled() {
        if let Some(status) = vm.wait(POLL) {
            return if status.success() {
                Ok(())
            } else {
                Err(vm.exit_report().unwrap_or_default().into())
            };
        }
    }
    Ok(())
}

fn choose(options: &VmArgs, work: &Work) -> Choice {
    accel::choose(options.accel, None, work.path())
}

/// Prints the console.
fn screen(raw: bool) -> Sink {
    let mut cleaned = Cleaned::default();
    Box::new(move |bytes| {
        let mut out = std::io::stdout().lock();
        let bytes = if raw { bytes.to_vec() } else { cleaned.clean(bytes) };
        // A reader that went away is no reason to stop a VM.
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
    })
}

fn run(options: Run, cancel: Cancel) -> Result<(), Error> {
    let json = options.scenario.json;
    let version = options.updater_version;
    let options = Options { updater_version: version, ..scenario(options.scenario, cancel)? };
    finish(json, cycle::run(&options, &tell).map(|report| (Passed, report)))
}

/// All that the full cycle has to say besides its report.
#[derive(Serialize)]
struct Passed;

impl Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("passed\n")
    }
}

fn powercut(options: Powercut, cancel: Cancel) -> Result<(), Error> {
    let json = options.scenario.json;
    let cut = PowerCut {
        firmware: options.firmware,
        rollback: !options.without_rollback,
        crash_at: options.crash_at,
        keep_recording: options.keep_recording,
        effort: options.effort.into(),
    };
    let options = scenario(options.scenario, cancel)?;
    let result = powercut::run(&options, &cut, &tell);
    let bad = result.as_ref().map_or(0, |(tally, _)| tally.bad());
    finish(json, result)?;
    no_bad_states(bad)
}

fn replay(options: Replay, cancel: &Cancel) -> Result<(), Error> {
    let tally = powercut::again(&options.recording, &options.base, &options.effort.into(), cancel)?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&tally)?)?;
    } else {
        write!(out, "{tally}")?;
    }
    no_bad_states(tally.bad())
}

fn kill(options: Kill, cancel: Cancel) -> Result<(), Error> {
    let json = options.scenario.json;
    let Kill { firmware, times, seed, .. } = options;
    let kill = kill::Kill { firmware, times, seed };
    let options = scenario(options.scenario, cancel)?;
    finish(json, kill::run(&options, &kill, &tell))
}

fn faults(options: Faults, cancel: Cancel) -> Result<(), Error> {
    let json = options.scenario.json;
    let Faults { firmware, only, .. } = options;
    let options = scenario(options.scenario, cancel)?;
    let passed = faults::run(&options, firmware, &only, &tell);
    finish(json, passed.map(|((), report)| (Passed, report)))
}

fn no_bad_states(bad: usize) -> Result<(), Error> {
    match bad {
        0 => Ok(()),
        bad => Err(format!("{bad} states would not boot a complete and verified release").into()),
    }
}

/// What every scenario needs to know.
fn scenario(options: ScenarioArgs, cancel: Cancel) -> Result<Options, Error> {
    Ok(Options {
        artifacts: absolute(options.artifacts)?,
        target: options.target,
        keys: options.keys,
        work: options.vm.work,
        logs: absolute(options.logs)?,
        accel: options.vm.accel,
        memory: options.vm.memory,
        cpus: options.vm.cpus,
        updater_version: Options::UPDATER_VERSION.into(),
        cancel,
    })
}

/// Prints what came of a scenario: its report, and what it found.
fn finish<T: Display + Serialize>(
    json: bool,
    result: Result<(T, Report), Box<Failure>>,
) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let failure = match result {
        Ok((found, report)) => {
            if json {
                let mut report = serde_json::to_value(&report)?;
                let found = serde_json::to_value(&found)?;
                if !found.is_null() {
                    report["found"] = found;
                }
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                write!(out, "{report}\n{found}")?;
            }
            return Ok(());
        }
        Err(failure) => failure,
    };
    if json {
        let error = failure.source.to_string();
        let value = json!({"failed": failure.step, "error": error, "report": failure.report});
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
    } else {
        writeln!(out, "{}", failure.report)?;
    }
    Err(failure)
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Plain lines, on standard error: standard output is for the result.
fn tell(event: Event<'_>) {
    match event {
        Event::Started(step) => eprintln!("→ {step}"),
        Event::Progress(_, line) => eprintln!("  … {line}"),
        Event::Finished(_, took) => eprintln!("  done in {:.1} s", took.as_secs_f32()),
    }
}
