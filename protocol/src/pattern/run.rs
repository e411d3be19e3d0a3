//! Runs Commands in order, with somebody's [`Shell`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Command, Entry, PatternError};

/// How deep groups may nest.
pub(super) const DEPTH_MAX: usize = 8;
/// How many Commands a Pattern may have.
pub(super) const COMMANDS_MAX: usize = 1000;
/// `onChange` of a build: adds the output to the claim `etchaBuildManifest`.
const BUILD_MANIFEST: &str = "etcha:buildManifest";
/// `onChange` of a build: sets `etchaRunVars.NAME` to the output.
const RUN_VAR: &str = "etcha:runVar_";

/// What came of running a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; 0 is success.
    pub code: i32,
    /// Standard output and error.
    pub text: String,
}

/// Runs the text of a Command with these environment variables.
pub trait Shell {
    /// Why a text could not be run at all.
    type Error;

    /// Runs `text` and waits for its end.
    fn run(&mut self, text: &str, env: &BTreeMap<String, String>) -> Result<Output, Self::Error>;
}

/// Whether Commands may change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Run `check` alone.
    Check,
    /// Run `check`, and `change` where it is needed.
    Change,
}

/// What became of a Command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its check succeeded; nothing to do.
    Ok,
    /// Its change ran.
    Changed,
    /// Its change failed, or its check failed and there is no change to run.
    Failed,
    /// It had no reason to run.
    Skipped,
}

/// A Command's id, what became of it, and the output of what decided that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The id.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The output of its change, or else of its check.
    pub output: String,
}

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// In the order of the Pattern. In [`Mode::Change`] a run ends at the first failure and what it
    /// triggers.
    pub results: Vec<CommandResult>,
    /// What Commands with `onChange: ["etcha:buildManifest"]` printed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_manifest: String,
    /// What Commands with `onChange: ["etcha:runVar_NAME"]` printed, by NAME.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub run_vars: BTreeMap<String, String>,
}

impl Report {
    /// The Commands that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CommandResult> {
        self.results.iter().filter(|result| result.outcome == Outcome::Failed)
    }
}

/// Runs Commands in order.
///
/// After a failure in [`Mode::Change`], only Commands that a failed one named in `onFail` still
/// run; in [`Mode::Check`] all checks run.
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

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The Pattern itself.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A text could not be run.
    #[error("the Command {id:?} could not be run")]
    Shell {
        /// The Command's id.
        id: String,
        /// Why.
        source: E,
    },
}

/// A Command without groups around it, and what its groups trigger.
struct Step<'a> {
    command: &'a Command,
    on_change: Vec<&'a str>,
    on_fail: Vec<&'a str>,
    /// The ids that start it: its own and its groups'.
    ids: Vec<&'a str>,
}

fn flatten(entries: &[Entry]) -> Result<Vec<Step<'_>>, PatternError> {
    let mut steps = Vec::new();
    descend(entries, &mut Vec::new(), &mut steps, 0)?;
    Ok(steps)
}

fn descend<'a>(
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
            Entry::List(list) => descend(list, groups, steps, depth + 1)?,
            Entry::Command(group) if !group.commands.is_empty() => {
                if group.check.is_some() || group.change.is_some() || group.always {
                    return Err(PatternError::GroupWithAction(group.id.clone()));
                }
                groups.push(group);
                descend(&group.commands, groups, steps, depth + 1)?;
                groups.pop();
            }
            Entry::Command(command) => {
                let all = || groups.iter().copied().chain([&**command]);
                steps.push(Step {
                    command,
                    on_change: all().flat_map(|c| &c.on_change).map(String::as_str).collect(),
                    on_fail: all().flat_map(|c| &c.on_fail).map(String::as_str).collect(),
                    ids: all().map(|c| c.id.as_str()).collect(),
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
            Outcome::Changed => self.changed(step, &output),
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
        let mut shown = String::new();
        if let Some(check) = &command.check
            && !needed
        {
            let output = self.shell(command, check)?;
            self.hand_on(command, "CHECK", &output.code.to_string());
            if output.code == 0 {
                return Ok((Outcome::Ok, output.text));
            }
            needed = true;
            shown = output.text;
        }
        match &command.change {
            _ if !needed => Ok((Outcome::Skipped, String::new())),
            // A check that only needed to be asked has been answered: with no.
            _ if self.mode == Mode::Check && command.check.is_none() => {
                Ok((Outcome::Skipped, String::new()))
            }
            Some(change) if self.mode == Mode::Change => {
                let output = self.shell(command, change)?;
                self.hand_on(command, "CHANGE", &output.code.to_string());
                self.hand_on(command, "CHANGE_OUT", &output.text);
                let failed = output.code != 0;
                Ok((if failed { Outcome::Failed } else { Outcome::Changed }, output.text))
            }
            _ => Ok((Outcome::Failed, shown)),
        }
    }

    fn shell(&mut self, command: &Command, text: &str) -> Result<Output, RunError<S::Error>> {
        self.shell
            .run(text, &self.env)
            .map_err(|source| RunError::Shell { id: command.id.clone(), source })
    }

    fn hand_on(&mut self, command: &Command, what: &str, value: &str) {
        if let Some(prefix) = &command.env_prefix {
            self.env.insert(format!("{prefix}_{what}"), value.to_owned());
        }
    }

    fn changed(&mut self, step: &Step<'_>, output: &str) {
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
