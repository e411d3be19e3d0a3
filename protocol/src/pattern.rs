//! Etcha's Patterns: lists of Commands, and the order they run in.
//!
//! A Pattern is written in Jsonnet and rendered by the builder; a host reads rendered JSON alone.
//! How a Command's text is run is the caller's: a [`Shell`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// How deep groups may nest.
const DEPTH_MAX: usize = 8;
/// How many Commands a Pattern may have.
const COMMANDS_MAX: usize = 1000;
/// `onChange` of a build: adds the output to the claim `etchaBuildManifest`.
const BUILD_MANIFEST: &str = "etcha:buildManifest";
/// `onChange` of a build: sets `etchaRunVars.NAME` to the output.
const RUN_VAR: &str = "etcha:runVar_";

/// The claim `etchaPattern`: Jsonnet files and the one to begin with. What the builder writes is
/// rendered JSON, which is also Jsonnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternFiles {
    /// The name of the file to begin with.
    pub entrypoint: String,
    /// Contents by name.
    pub files: BTreeMap<String, String>,
}

/// A Pattern, rendered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pattern {
    /// Whom the token is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// Who issues it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// For how many seconds the token is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// How texts are run.
    pub exec: Exec,
    /// What a build runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<Entry>,
    /// What a host runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Entry>,
}

/// The program that runs a Command's text, as its last argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// The program's path.
    pub command: String,
    /// Its arguments, separated by spaces.
    pub flags: String,
}

impl Default for Exec {
    fn default() -> Self {
        Self { command: "/bin/bash".into(), flags: "-c".into() }
    }
}

/// A Command, or a list of them that is flattened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// One Command.
    Command(Box<Command>),
    /// A nested list.
    List(Vec<Entry>),
}

/// A Command: `check` failing, or `always`, runs `change`. Without either it runs only when another
/// names its id in `onChange` or `onFail`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Command {
    /// Its name; need not be unique.
    pub id: String,
    /// Succeeds when nothing is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Run `change` without asking `check`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Ids of later Commands to run after a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_change: Vec<String>,
    /// Ids of later Commands to run after a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_fail: Vec<String>,
    /// Hands `<PREFIX>_CHECK`, `<PREFIX>_CHANGE` (exit codes) and `<PREFIX>_CHANGE_OUT` to later
    /// Commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_prefix: Option<String>,
    /// Makes this a group: its Commands run in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Entry>,
}

/// A Pattern that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The entry point is not among the files.
    #[error("the Pattern's entrypoint {0:?} is not among its files")]
    Entrypoint(String),
    /// Not rendered, or not a Pattern.
    #[error("the Pattern's file {file:?} is not a rendered Pattern: {why}")]
    Format {
        /// The file's name.
        file: String,
        /// What the parser says.
        why: String,
    },
    /// Groups in groups in groups.
    #[error("the Pattern nests its Commands deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Too many Commands.
    #[error("the Pattern has more than {COMMANDS_MAX} Commands")]
    TooMany,
    /// A group that also does something itself.
    #[error(
        "the Command {0:?} has both \"commands\" and its own check, change or always: put those into a Command of the group"
    )]
    GroupWithAction(String),
}

impl PatternFiles {
    /// Reads a rendered Pattern.
    pub fn pattern(&self) -> Result<Pattern, PatternError> {
        let text = self
            .files
            .get(&self.entrypoint)
            .ok_or_else(|| PatternError::Entrypoint(self.entrypoint.clone()))?;
        serde_json::from_str(text)
            .map_err(|e| PatternError::Format { file: self.entrypoint.clone(), why: e.to_string() })
    }
}

impl From<&Pattern> for PatternFiles {
    fn from(pattern: &Pattern) -> Self {
        let text = serde_json::to_string_pretty(pattern).expect("a Pattern has string keys only");
        let entrypoint = "main.jsonnet".to_owned();
        Self { files: BTreeMap::from([(entrypoint.clone(), text)]), entrypoint }
    }
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
mod tests {
    use super::*;
    use serde_json::json;

    /// Fails on texts that begin with `no`; prints every text and `$X_CHANGE_OUT`.
    struct Fake(Vec<String>);

    impl Shell for Fake {
        type Error = std::convert::Infallible;

        fn run(
            &mut self,
            text: &str,
            env: &BTreeMap<String, String>,
        ) -> Result<Output, Self::Error> {
            self.0.push(text.to_owned());
            let handed = env.get("X_CHANGE_OUT").cloned().unwrap_or_default();
            let code = i32::from(text.starts_with("no"));
            Ok(Output { code, text: format!("{text}{handed}\n") })
        }
    }

    fn play(mode: Mode, commands: serde_json::Value) -> (Report, Vec<String>) {
        let entries: Vec<Entry> = serde_json::from_value(commands).unwrap();
        let mut shell = Fake(Vec::new());
        let report = run(&entries, mode, &mut shell).unwrap();
        (report, shell.0)
    }

    #[test]
    fn a_failing_check_runs_the_change_and_what_it_triggers() {
        let (report, ran) = play(
            Mode::Change,
            json!([
                {"id": "fine", "check": "yes", "change": "never"},
                [{"id": "needed", "check": "not yet", "change": "do it", "onChange": ["later"]}],
                {"id": "later", "change": "restart"},
                {"id": "asleep", "change": "never"},
            ]),
        );
        assert_eq!(ran, ["yes", "not yet", "do it", "restart"]);
        let outcomes: Vec<Outcome> = report.results.iter().map(|r| r.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Changed, Outcome::Changed, Outcome::Skipped]);
    }

    #[test]
    fn a_failure_ends_the_run_but_for_on_fail() {
        let (report, ran) = play(
            Mode::Change,
            json!([
                {"id": "bad", "always": true, "change": "no way", "onFail": ["clean"]},
                {"id": "next", "always": true, "change": "never"},
                {"id": "clean", "change": "mop"},
            ]),
        );
        assert_eq!(ran, ["no way", "mop"]);
        assert_eq!(report.failures().count(), 1);
    }

    #[test]
    fn check_mode_changes_nothing_and_asks_everything() {
        let (report, ran) = play(
            Mode::Check,
            json!([
                {"id": "a", "check": "no", "change": "never"},
                {"id": "b", "check": "yes"},
                {"id": "c", "always": true, "change": "never"},
            ]),
        );
        assert_eq!(ran, ["no", "yes"]);
        assert_eq!(report.failures().map(|r| &r.id).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_check_without_a_change_that_fails_is_a_failure() {
        let (report, _) = play(Mode::Change, json!([{"id": "a", "check": "no"}]));
        assert_eq!(report.results[0].outcome, Outcome::Failed);
        assert_eq!(report.results[0].output, "no\n");
    }

    #[test]
    fn groups_trigger_and_are_triggered_and_outputs_are_handed_on() {
        let (report, ran) = play(
            Mode::Change,
            json!([
                {"id": "group", "onChange": ["after"], "commands": [
                    {"id": "x", "always": true, "change": "one", "envPrefix": "X", "onChange": ["etcha:runVar_kernel"]},
                    {"id": "y", "always": true, "change": "two ", "onChange": ["etcha:buildManifest"]},
                ]},
                {"id": "after", "commands": [{"id": "z", "change": "three"}]},
            ]),
        );
        assert_eq!(ran, ["one", "two ", "three"]);
        assert_eq!(report.run_vars["kernel"], "one");
        assert_eq!(report.build_manifest, "two one\n\n");
    }

    #[test]
    fn hostile_patterns_are_refused() {
        let mut deep = json!([]);
        for _ in 0..20 {
            deep = json!([deep]);
        }
        let entries: Vec<Entry> = serde_json::from_value(deep).unwrap();
        assert!(run(&entries, Mode::Check, &mut Fake(Vec::new())).is_err());
        let group = json!([{"id": "g", "always": true, "commands": [{"id": "x"}]}]);
        let entries: Vec<Entry> = serde_json::from_value(group).unwrap();
        assert!(run(&entries, Mode::Check, &mut Fake(Vec::new())).is_err());
        let missing = PatternFiles { entrypoint: "x".into(), files: BTreeMap::new() };
        assert!(missing.pattern().is_err());
    }

    #[test]
    fn a_pattern_round_trips_through_its_files() {
        let pattern: Pattern =
            serde_json::from_value(json!({"run": [{"id": "a", "check": "true"}]})).unwrap();
        assert_eq!(PatternFiles::from(&pattern).pattern(), Ok(pattern));
    }
}
