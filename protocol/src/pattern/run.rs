//! Runs Commands in order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::command::{COMMANDS_MAX, Command, DEPTH_MAX, Entry, PatternError};

/// The id in `onChange` that adds the output of a build's Command to the claim `etchaBuildManifest`.
const BUILD_MANIFEST: &str = "etcha:buildManifest";
/// The prefix of an id in `onChange` that sets `etchaRunVars.NAME` to the output of a build's Command.
const RUN_VAR: &str = "etcha:runVar_";

/// The result of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 0 means success.
    pub code: i32,
    /// Standard output and standard error.
    pub text: String,
}

/// Runs the scripts of Commands.
pub trait Shell {
    /// Why a script could not be run.
    type Error;

    /// Runs `script` with these environment variables and waits for it to exit.
    ///
    /// # Errors
    /// Fails if the script could not be run. A script that exits with a non-zero code is not an error.
    fn run(&mut self, script: &str, env: &BTreeMap<String, String>) -> Result<Output, Self::Error>;
}

/// Whether Commands may make changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Run `check` only.
    Check,
    /// Run `check`, and `change` if it is needed.
    Change,
}

/// The outcome of a Command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its check succeeded, so no change was needed.
    Ok,
    /// Its change ran.
    Changed,
    /// Its change failed, or its check failed and there is no change to run.
    Failed,
    /// Nothing required it to run.
    Skipped,
}

/// The result of a Command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The id of the Command.
    pub id: String,
    /// The outcome.
    pub outcome: Outcome,
    /// The output of its change, or of its check if the change did not run.
    pub output: String,
}

/// The results of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The results in the order of the Pattern. In [`Mode::Change`] they end with the first failure
    /// and the Commands that it triggers.
    pub results: Vec<CommandResult>,
    /// The output of Commands with `onChange: ["etcha:buildManifest"]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_manifest: String,
    /// The output of Commands with `onChange: ["etcha:runVar_NAME"]`, by NAME.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub run_vars: BTreeMap<String, String>,
}

impl Report {
    /// Returns the results of the Commands that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CommandResult> {
        self.results.iter().filter(|result| result.outcome == Outcome::Failed)
    }
}

/// Runs Commands in order.
///
/// After a failure in [`Mode::Change`], only Commands run that a failed Command names in `onFail`. In
/// [`Mode::Check`] all checks run.
///
/// # Errors
/// Fails if the Pattern is not valid or if the shell cannot run a script. The failure of a Command is
/// part of the report instead.
pub fn run<S: Shell>(
    commands: &[Entry],
    mode: Mode,
    shell: &mut S,
) -> Result<Report, RunError<S::Error>> {
    let mut run = Run {
        mode,
        shell,
        report: Report::default(),
        triggered: BTreeSet::new(),
        env: BTreeMap::new(),
        failed: false,
    };
    for step in flatten(commands)? {
        run.step(&step)?;
    }
    Ok(run.report)
}

/// Why a run was aborted.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The Pattern is not valid.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The shell could not run a script.
    #[error("the Command {id:?} could not be run")]
    Shell {
        /// The id of the Command.
        id: String,
        /// The error of the shell.
        source: E,
    },
}

/// A Command and the triggers of the groups that contain it.
struct Step<'a> {
    command: &'a Command,
    on_change: Vec<&'a str>,
    on_fail: Vec<&'a str>,
    /// The ids that trigger it: its own and those of its groups.
    ids: Vec<&'a str>,
}

fn flatten(entries: &[Entry]) -> Result<Vec<Step<'_>>, PatternError> {
    let mut steps = Vec::new();
    collect_steps(entries, &mut Vec::new(), &mut steps, 0)?;
    Ok(steps)
}

fn collect_steps<'a>(
    entries: &'a [Entry],
    groups: &mut Vec<&'a Command>,
    steps: &mut Vec<Step<'a>>,
    depth: usize,
) -> Result<(), PatternError> {
    if depth > DEPTH_MAX {
        return Err(PatternError::TooDeep);
    }
    for entry in entries {
        match entry {
            Entry::List(list) => collect_steps(list, groups, steps, depth + 1)?,
            Entry::Command(group) if !group.commands.is_empty() => {
                if group.check.is_some() || group.change.is_some() || group.always {
                    return Err(PatternError::GroupWithAction(group.id.clone()));
                }
                groups.push(group);
                collect_steps(&group.commands, groups, steps, depth + 1)?;
                groups.pop();
            }
            Entry::Command(command) => {
                let with_groups = || groups.iter().copied().chain([&**command]);
                steps.push(Step {
                    command,
                    on_change: with_groups()
                        .flat_map(|c| &c.on_change)
                        .map(String::as_str)
                        .collect(),
                    on_fail: with_groups().flat_map(|c| &c.on_fail).map(String::as_str).collect(),
                    ids: with_groups().map(|c| c.id.as_str()).collect(),
                });
                if steps.len() > COMMANDS_MAX {
                    return Err(PatternError::TooMany);
                }
            }
        }
    }
    Ok(())
}

struct Run<'s, S> {
    mode: Mode,
    shell: &'s mut S,
    report: Report,
    triggered: BTreeSet<String>,
    env: BTreeMap<String, String>,
    failed: bool,
}

impl<S: Shell> Run<'_, S> {
    fn step(&mut self, step: &Step<'_>) -> Result<(), RunError<S::Error>> {
        let command = step.command;
        let triggered = step.ids.iter().any(|id| self.triggered.contains(*id));
        if self.failed && self.mode == Mode::Change && !triggered {
            return Ok(());
        }
        let (outcome, output) = self.outcome(command, triggered)?;
        match outcome {
            Outcome::Changed => self.apply_on_change(step, &output),
            Outcome::Failed => {
                self.failed = true;
                self.triggered.extend(step.on_fail.iter().map(ToString::to_string));
            }
            Outcome::Ok | Outcome::Skipped => {}
        }
        self.report.results.push(CommandResult { id: command.id.clone(), outcome, output });
        Ok(())
    }

    fn outcome(
        &mut self,
        command: &Command,
        triggered: bool,
    ) -> Result<(Outcome, String), RunError<S::Error>> {
        let mut needed = command.always || triggered;
        let mut check_output = String::new();
        if let Some(check) = &command.check
            && !needed
        {
            let output = self.shell(command, check)?;
            self.export(command, "CHECK", &output.code.to_string());
            if output.code == 0 {
                return Ok((Outcome::Ok, output.text));
            }
            needed = true;
            check_output = output.text;
        }
        match &command.change {
            _ if !needed => Ok((Outcome::Skipped, String::new())),
            // Without a check, check mode cannot tell whether the change is needed.
            _ if self.mode == Mode::Check && command.check.is_none() => {
                Ok((Outcome::Skipped, String::new()))
            }
            Some(change) if self.mode == Mode::Change => {
                let output = self.shell(command, change)?;
                self.export(command, "CHANGE", &output.code.to_string());
                self.export(command, "CHANGE_OUT", &output.text);
                let failed = output.code != 0;
                Ok((if failed { Outcome::Failed } else { Outcome::Changed }, output.text))
            }
            _ => Ok((Outcome::Failed, check_output)),
        }
    }

    fn shell(&mut self, command: &Command, script: &str) -> Result<Output, RunError<S::Error>> {
        self.shell
            .run(script, &self.env)
            .map_err(|source| RunError::Shell { id: command.id.clone(), source })
    }

    fn export(&mut self, command: &Command, what: &str, value: &str) {
        if let Some(prefix) = &command.env_prefix {
            self.env.insert(format!("{prefix}_{what}"), value.to_owned());
        }
    }

    fn apply_on_change(&mut self, step: &Step<'_>, output: &str) {
        for target in &step.on_change {
            if *target == BUILD_MANIFEST {
                self.report.build_manifest.push_str(output);
            } else if let Some(name) = target.strip_prefix(RUN_VAR) {
                self.report.run_vars.insert(name.to_owned(), output.trim().to_owned());
            } else {
                self.triggered.insert((*target).to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests;
