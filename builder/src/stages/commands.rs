//! Runs parts of the variant's Pattern in the sandbox.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use protocol::pattern::{
    Entry, Invocation, List, Mode, Options, Output, Pattern, Report, RunError, Shell, Stream, run,
};
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
    let Pattern { exec, build_exec, .. } = build.variant.pattern.clone();
    let part = Pattern { exec, build_exec, build: commands.to_vec(), ..Pattern::default() };
    let options = Options { list: List::Build, ..Options::new(Mode::Change, "build") };
    let mut shell = SandboxShell { sandbox, env, log };
    let report = run(&part, None, &options, &mut shell);
    let report = report.map_err(|error| match error {
        RunError::Pattern(error) => error.into(),
        RunError::Shell { id, source } => source.context(format!("running the Command {id:?}")),
    })?;
    if let Some(failure) = report.failures().next() {
        bail!(
            "the Command {:?} of the variant {} failed:\n    {}",
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
    sandbox: &'a dyn Sandbox,
    env: &'a BTreeMap<String, String>,
    log: &'a mut LogFile,
}

impl Shell for SandboxShell<'_> {
    type Error = anyhow::Error;

    fn run(&mut self, invocation: &Invocation<'_>) -> Result<Output> {
        let Invocation { id, script: text, exec, stdin, env } = invocation;
        ensure!(stdin.is_none(), "\"stdin\" is not supported in a build");
        ensure!(exec.work_dir.is_none(), "\"workDir\" is not supported in a build");
        let mut all = self.env.clone();
        // The results of all earlier Commands, `_CHANGE_OUT` and so on, are left out. The image would depend on
        // them if a program of the distribution recorded its environment.
        let variables = env.iter().filter(|(name, _)| !name.starts_with('_'));
        all.extend(variables.map(|(name, value)| (name.clone(), value.clone())));
        self.log.forget_tail();
        self.log.quote(text);
        let script = Script { exec, text, env: &all };
        let sandbox = self.sandbox;
        let finished = self.log.timed(id, Origin::Built, |log| sandbox.run(&script, log))?;
        // The last lines of both streams explain a failure best.
        let text = if finished.code == 0 { finished.stdout } else { self.log.tail() };
        Ok(Output { code: finished.code, text })
    }

    fn print(&mut self, id: &str, _: Stream, output: &str) {
        self.log.line(&format!("{id}: {output}"));
    }
}
