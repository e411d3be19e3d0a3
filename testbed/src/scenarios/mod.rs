//! The scenarios. Each one is a file that reads as the list of its steps.
//!
//! To add a scenario:
//!
//! 1. Create `scenarios/NAME.rs` with a [`clap::Args`] struct, whose doc comment is the help of the
//!    subcommand and which flattens [`ScenarioArgs`](crate::args::ScenarioArgs); with its own [`Step`](crate::report::Step)
//!    constants; and with an implementation of [`Scenario`] for the struct.
//! 2. Add the line `Variant(module::Struct)` to the list below. It declares the module, adds the
//!    subcommand `variant`, runs the scenario and prints its report.
//! 3. Run `rustfmt --edition 2024 testbed/src/scenarios/*.rs`. `cargo fmt` does not find modules that a
//!    macro declares.

use std::fmt::{self, Display};
use std::io::Write;

use serde::Serialize;
use serde_json::json;

use self::interface::Scenario;
use crate::cancel::Cancel;
use crate::environment;
use crate::report::{Event, Report};
use crate::scenario::{self, Failure};

mod interface;

/// Declares the modules of the scenarios and the subcommands that run them.
macro_rules! scenarios {
    ($($variant:ident($module:ident::$options:ident)),* $(,)?) => {
        $(pub(crate) mod $module;)*

        /// The subcommands of the scenarios.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Scenarios {
            $($variant($module::$options)),*
        }

        impl Scenarios {
            /// Runs the scenario and prints its report.
            pub(crate) fn execute(
                &self,
                cancel: Cancel,
            ) -> Result<(), Box<dyn std::error::Error>> {
                match self { $(Self::$variant(scenario) => execute(scenario, cancel)),* }
            }
        }
    };
}

scenarios! {
    Run(cycle::Cycle),
    Powercut(powercut::PowerCut),
    Kill(kill::Kill),
    Faults(faults::Faults),
    Netboot(netboot::Netboot),
    Switch(switch::Switch),
    Copies(copies::Copies),
    Data(data::Data),
    HostSettings(host_settings::HostSettings),
    Sources(sources::Sources),
}

/// Runs a scenario and prints its report.
fn execute<S: Scenario>(scenario: &S, cancel: Cancel) -> Result<(), Box<dyn std::error::Error>> {
    let json = scenario.common().json;
    let options = scenario.options(cancel)?;
    if let Some(reason) = scenario.firmware().and_then(|firmware| options.missing(firmware)) {
        let (skipped, logs) = (vec![format!("the whole scenario: {reason}")], options.logs);
        return print(json, Ok((Skipped, Report { skipped, logs, ..Report::default() })));
    }
    let result = scenario::run(&options, &print_event, |steps| {
        let artifacts = environment::verify(steps)?;
        scenario.play(&artifacts, steps)
    });
    let judged = result.as_ref().map_or(Ok(()), |(findings, _)| S::judge(findings));
    print(json, result)?;
    Ok(judged?)
}

/// The findings of a scenario that was skipped.
#[derive(Serialize)]
struct Skipped;

impl Display for Skipped {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Prints the report of a scenario and its findings.
fn print<T: Display + Serialize>(
    json: bool,
    result: Result<(T, Report), Box<Failure>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    let failure = match result {
        Ok((findings, report)) => {
            if json {
                let mut report = serde_json::to_value(&report)?;
                let findings = serde_json::to_value(&findings)?;
                if !findings.is_null() {
                    report["found"] = findings;
                }
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                write!(out, "{report}\n{findings}")?;
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

/// Prints an event as a plain line to standard error; standard output is for the result.
fn print_event(event: Event<'_>) {
    match event {
        Event::Started(step) => eprintln!("→ {step}"),
        Event::Progress(_, line) => eprintln!("  … {line}"),
        Event::Finished(_, took) => eprintln!("  done in {:.1} s", took.as_secs_f32()),
    }
}
