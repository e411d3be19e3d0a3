//! Runs Commands in order.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{Command, Pattern, PatternError};
use super::exec::Exec;
use super::exports::{Exports, Phase};
use super::plan::{Event, Step, Targets, Triggers, plan};
use super::regex::Filter;
use super::removal::gone;
use super::report::{CommandResult, Mode, Outcome, Report};
use super::shell::{Invocation, Output, Shell, Stream};

/// A list of Commands of a Pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `build`, which the builder runs.
    Build,
    /// `run`, which a host runs.
    Run,
}

/// How to run a Pattern.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Whether changes are made.
    pub mode: Mode,
    /// Which of the two lists runs.
    pub list: List,
    /// The name of the source, with which the parent ids of all Commands begin.
    pub source: &'a str,
    /// The Commands that run; all if it is absent.
    pub filter: Option<&'a Filter>,
}

impl<'a> Options<'a> {
    /// Runs all Commands of the list `run`.
    pub fn new(mode: Mode, source: &'a str) -> Self {
        Self { mode, list: List::Run, source, filter: None }
    }

    fn selects(&self, step: &Step<'_>) -> bool {
        self.filter.is_none_or(|filter| filter.selects(&step.parent))
    }
}

/// Why a run was aborted.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The Pattern is not valid. Nothing was run.
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

/// Runs the Commands of a Pattern in their order, after the removal of what `previous` had and it has not.
///
/// What each Command does:
///
/// - Its `check` runs, unless the Command is `always` run or was triggered. If it fails, `change` runs. A Command
///   without `change` is then reported as [`Outcome::Needed`], and the run goes on.
/// - A change triggers the later Commands of the same list that `onChange` names.
/// - After a change failed, only the later Commands of the same list run that are `always` run, or that `onFail`
///   of a Command that failed names: their `change`, without their `check`. They trigger nothing by `onChange`.
/// - Removals run in reverse order, before the Commands, or after them with `removeAfter`. `check` runs first,
///   unless the Command is `always` run or its removal was triggered by `onRemove`. If it succeeds, `remove`
///   runs. A Command with neither is removed only if it is triggered. The scripts run with the exec of the
///   Pattern that they are from.
/// - After a removal failed, nothing else runs. After a change failed, no later removal runs.
/// - In [`Mode::Check`] only checks run, and nothing is triggered.
///
/// # Errors
/// Fails if the Pattern is not valid, before anything runs, or if the shell cannot run a script. The failure of
/// a Command is part of the report instead.
pub fn run<S: Shell>(
    pattern: &Pattern,
    previous: Option<&Pattern>,
    options: &Options<'_>,
    shell: &mut S,
) -> Result<Report, RunError<S::Error>> {
    let exec = pattern.exec_of(options.list)?;
    let steps = pattern.plan(options, &exec, Targets::MustExist)?;
    let (old_exec, old) = match previous {
        Some(previous) => {
            // What is refused now must not keep the new Pattern from running.
            let exec = previous.exec_of(options.list).unwrap_or_else(|_| previous.exec.clone());
            let steps = previous.plan(options, &exec, Targets::MayBeMissing)?;
            (exec, steps)
        }
        None => (Exec::default(), Vec::new()),
    };
    let gone = gone(&old, &steps);
    let (after, before): (Vec<usize>, Vec<usize>) =
        gone.into_iter().partition(|index| old[*index].command.remove_after);
    let report = Report::default();
    let mut run = Run { options, shell, report, exports: Exports::default(), failed_list: None };
    if !run.remove(&old, &before, &old_exec)? {
        return Ok(run.report);
    }
    if run.change(&steps, &exec)? {
        run.remove(&old, &after, &old_exec)?;
    }
    Ok(run.report)
}

impl Pattern {
    /// Returns the program that runs the Commands of a list.
    fn exec_of(&self, list: List) -> Result<Exec, PatternError> {
        let (name, exec) = match list {
            List::Build => ("buildExec", &self.build_exec),
            List::Run => ("runExec", &self.run_exec),
        };
        match exec {
            None => Ok(self.exec.clone()),
            Some(_) if self.exec.allow_override == Some(false) => Err(PatternError::Invalid {
                path: name.to_owned(),
                why: "is not allowed: \"exec\" has \"allowOverride\": false".into(),
            }),
            Some(exec) => Ok(exec.over(&self.exec)),
        }
    }

    fn plan(
        &self,
        options: &Options<'_>,
        exec: &Exec,
        targets: Targets,
    ) -> Result<Vec<Step<'_>>, PatternError> {
        let (name, entries) = match options.list {
            List::Build => ("build", &self.build),
            List::Run => ("run", &self.run),
        };
        plan(entries, name, options.source, exec, targets)
    }
}

/// Which script of a Command runs if its check says so.
#[derive(Clone, Copy)]
enum Kind {
    Change,
    Remove,
}

impl Kind {
    fn script(self, command: &Command) -> Option<&str> {
        match self {
            Self::Change => command.change.as_deref(),
            Self::Remove => command.remove.as_deref(),
        }
    }

    /// Returns whether the script is needed after `check` ended with this exit code.
    fn is_needed(self, code: i32) -> bool {
        match self {
            Self::Change => code != 0,
            Self::Remove => code == 0,
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::Change => Phase::Change,
            Self::Remove => Phase::Remove,
        }
    }

    /// Returns the outcome of a script that succeeded.
    fn done(self) -> Outcome {
        match self {
            Self::Change => Outcome::Changed,
            Self::Remove => Outcome::Removed,
        }
    }
}

struct Run<'s, S> {
    options: &'s Options<'s>,
    shell: &'s mut S,
    report: Report,
    exports: Exports,
    /// The list in which a change failed.
    failed_list: Option<usize>,
}

impl<S: Shell> Run<'_, S> {
    /// Runs the Commands. Returns whether none failed.
    fn change(&mut self, steps: &[Step<'_>], exec: &Exec) -> Result<bool, RunError<S::Error>> {
        let mut triggered = BTreeSet::new();
        for (index, step) in steps.iter().enumerate() {
            if !self.options.selects(step) {
                continue;
            }
            let is_triggered = triggered.contains(&index);
            let (outcome, output) = match self.failed_list {
                None => self.check_and_run(step.command, exec, Kind::Change, is_triggered)?,
                Some(list) if list == step.list && (step.command.always || is_triggered) => {
                    self.run_script(step.command, exec, Kind::Change)?
                }
                Some(_) => continue,
            };
            match outcome {
                Outcome::Changed if self.failed_list.is_none() => {
                    self.trigger(step, &step.on_change, &output, &mut triggered);
                }
                Outcome::Failed => {
                    if self.failed_list.is_none() {
                        // After a failure, onChange of earlier Commands does not count.
                        triggered.clear();
                        self.failed_list = Some(step.list);
                    }
                    self.trigger(step, &step.on_fail, &output, &mut triggered);
                }
                _ => {}
            }
            let id = step.command.id.clone();
            self.report.results.push(CommandResult { id, outcome, output });
        }
        Ok(self.failed_list.is_none())
    }

    /// Removes Commands of the previous Pattern. Returns whether none failed.
    fn remove(
        &mut self,
        steps: &[Step<'_>],
        gone: &[usize],
        exec: &Exec,
    ) -> Result<bool, RunError<S::Error>> {
        let mut triggered = BTreeSet::new();
        for index in gone {
            let step = &steps[*index];
            if !self.options.selects(step) {
                continue;
            }
            let is_triggered = triggered.contains(index);
            let (outcome, output) =
                self.check_and_run(step.command, exec, Kind::Remove, is_triggered)?;
            if outcome == Outcome::Removed {
                self.trigger(step, &step.on_remove, &output, &mut triggered);
            }
            let id = step.command.id.clone();
            self.report.removed.push(CommandResult { id, outcome, output });
            if outcome == Outcome::Failed {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs `check`, unless the Command is `always` run or was triggered, and then the script, if it is needed.
    fn check_and_run(
        &mut self,
        command: &Command,
        exec: &Exec,
        kind: Kind,
        triggered: bool,
    ) -> Result<(Outcome, String), RunError<S::Error>> {
        let prefix = command.env_prefix.as_deref();
        let has_script = kind.script(command).is_some();
        if command.always || triggered {
            self.exports.set(prefix, Phase::Check, true);
            return match self.options.mode {
                _ if !has_script => Ok((Outcome::Skipped, String::new())),
                Mode::Check => Ok((Outcome::Needed, String::new())),
                Mode::Change => self.run_script(command, exec, kind),
            };
        }
        let Some(check) = &command.check else {
            self.exports.set(prefix, Phase::Check, false);
            return Ok((Outcome::Skipped, String::new()));
        };
        let output = self.shell(command, exec, check)?;
        let is_needed = kind.is_needed(output.code);
        self.exports.set(prefix, Phase::Check, is_needed);
        self.exports.set_output(prefix, Phase::Check, &output.text);
        match self.options.mode {
            _ if !is_needed => Ok((Outcome::Ok, output.text)),
            Mode::Change if has_script => self.run_script(command, exec, kind),
            _ => Ok((Outcome::Needed, output.text)),
        }
    }

    fn run_script(
        &mut self,
        command: &Command,
        exec: &Exec,
        kind: Kind,
    ) -> Result<(Outcome, String), RunError<S::Error>> {
        let Some(script) = kind.script(command) else {
            return Ok((Outcome::Skipped, String::new()));
        };
        let output = self.shell(command, exec, script)?;
        let (prefix, failed) = (command.env_prefix.as_deref(), output.code != 0);
        self.exports.set(prefix, kind.phase(), failed);
        self.exports.set_output(prefix, kind.phase(), &output.text);
        Ok((if failed { Outcome::Failed } else { kind.done() }, output.text))
    }

    /// Runs a script and trims its output.
    fn shell(
        &mut self,
        command: &Command,
        exec: &Exec,
        script: &str,
    ) -> Result<Output, RunError<S::Error>> {
        let exec = command.exec.as_ref().map_or_else(|| exec.clone(), |own| own.over(exec));
        let mut env: BTreeMap<String, String> = exec.env.clone();
        env.extend(self.exports.variables().clone());
        env.extend(command.env.clone());
        let (id, stdin) = (command.id.as_str(), command.stdin.as_deref());
        let invocation = Invocation { id, script, exec: &exec, stdin, env: &env };
        let failed = |source| RunError::Shell { id: command.id.clone(), source };
        let output = self.shell.run(&invocation).map_err(failed)?;
        Ok(Output { code: output.code, text: output.text.trim().to_owned() })
    }

    fn trigger(
        &mut self,
        step: &Step<'_>,
        triggers: &Triggers<'_>,
        output: &str,
        triggered: &mut BTreeSet<usize>,
    ) {
        triggered.extend(&triggers.steps);
        for event in &triggers.events {
            let id = &step.command.id;
            match event {
                Event::BuildManifest if output.is_empty() => {}
                Event::BuildManifest => {
                    self.report.build_manifest.push_str(output);
                    self.report.build_manifest.push('\n');
                }
                Event::RunVar(name) => {
                    self.report.run_vars.insert((*name).to_owned(), output.to_owned());
                }
                Event::Stdout => self.shell.print(id, Stream::Stdout, output),
                Event::Stderr => self.shell.print(id, Stream::Stderr, output),
            }
        }
    }
}

#[cfg(test)]
mod tests;
