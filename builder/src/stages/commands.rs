//! Runs parts of the variant's Pattern in the sandbox.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use protocol::pattern::{Entry, Exec, Mode, Output, Report, RunError, Shell, run};
use serde_json::json;

use super::build::Build;
use crate::cache::Key;
use crate::log_file::{LogFile, Origin};
use crate::mirror::Mirror;
use crate::sandbox::{Sandbox, Script, WORK};

/// Runs the Commands of one part of the build; see [`crate::variant::PARTS`].
pub(super) fn run_part(
    build: &Build<'_>,
    part: &str,
    sandbox: &dyn Sandbox,
    env: &BTreeMap<String, String>,
    log: &mut LogFile,
) -> Result<Report> {
    run_commands(build, build.variant.part(part), sandbox, env, log)
}

/// Runs Commands of the build.
pub(super) fn run_commands(
    build: &Build<'_>,
    commands: &[Entry],
    sandbox: &dyn Sandbox,
    env: &BTreeMap<String, String>,
    log: &mut LogFile,
) -> Result<Report> {
    let exec = &build.variant.pattern.exec;
    let mut shell = SandboxShell { commands, sandbox, exec, env, log };
    let report = run(commands, Mode::Change, &mut shell);
    let report = report.map_err(|error| match error {
        RunError::Pattern(error) => error.into(),
        RunError::Shell { id, source } => source.context(format!("running the Command {id:?}")),
    })?;
    if let Some(failure) = report.failures().next() {
        bail!(
            "the Command {:?} of the variant {} failed:\n{}",
            failure.id,
            build.variant.variant,
            failure.output
        );
    }
    Ok(report)
}

/// Returns the environment of every Command.
pub(super) fn environment(build: &Build<'_>) -> BTreeMap<String, String> {
    let units = &build.variant.content.units;
    let work = |name: &str| format!("{WORK}/{name}");
    let fixed = [
        ("ROOT", work("root")),
        ("FILES", work("files")),
        ("OUT", work("out")),
        ("ARCH", build.target.arch.to_string()),
        ("VARIANT", build.target.variant.to_string()),
        ("MIRROR", build.mirror.as_ref().map(Mirror::to_string).unwrap_or_default()),
        ("WITHOUT_SECURITY", if build.without_security { "1" } else { "" }.to_owned()),
        ("UNITS_ENABLE", units.enable.join(" ")),
        ("UNITS_DISABLE", units.disable.join(" ")),
        ("UNITS_MASK", units.mask.join(" ")),
        // The result must not depend on the build host's settings.
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("HOME", "/root".to_owned()),
        ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
    ];
    let all = fixed.into_iter().chain(build.proxies.variables());
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns a key for results of a part of the build: a digest of its Commands, their environment, and other
/// inputs.
pub(super) fn cache_key(
    build: &Build,
    part: &'static str,
    env: &BTreeMap<String, String>,
    inputs: &[&str],
) -> Key {
    let commands = build.variant.part(part);
    let exec = &build.variant.pattern.exec;
    let target = build.target.to_string();
    let inputs = json!({
        "target": target, "exec": exec, "commands": commands, "env": env, "inputs": inputs,
    });
    Key::new(part, &inputs).of_target(&build.target)
}

/// Returns a run variable that a Command of the part has set.
///
/// # Errors
/// Fails if the variable is missing or empty.
pub(super) fn run_var(report: &Report, name: &str) -> Result<String> {
    let value = report.run_vars.get(name).filter(|value| !value.is_empty());
    let missing = || format!("no Command of the variant set the run variable {name:?}");
    value.cloned().with_context(missing)
}

struct SandboxShell<'a> {
    commands: &'a [Entry],
    sandbox: &'a dyn Sandbox,
    exec: &'a Exec,
    env: &'a BTreeMap<String, String>,
    log: &'a mut LogFile,
}

impl Shell for SandboxShell<'_> {
    type Error = anyhow::Error;

    fn run(&mut self, text: &str, env: &BTreeMap<String, String>) -> Result<Output> {
        let mut all = self.env.clone();
        all.extend(env.clone());
        self.log.forget_tail();
        self.log.quote(text);
        let script = Script { exec: self.exec, text, env: &all };
        let sandbox = self.sandbox;
        let finished = self
            .log
            .timed(name_of(self.commands, text), Origin::Built, |log| sandbox.run(&script, log))?;
        // The last lines of both streams explain a failure best.
        let text = if finished.code == 0 { finished.stdout } else { self.log.tail() };
        Ok(Output { code: finished.code, text })
    }
}

/// Returns the id of the Command that has this script, for display.
fn name_of<'a>(commands: &'a [Entry], script: &str) -> &'a str {
    let named = commands.iter().find_map(|entry| match entry {
        Entry::Command(command) if command.change.as_deref() == Some(script) => {
            Some(command.id.as_str())
        }
        _ => None,
    });
    named.unwrap_or("another Command")
}
