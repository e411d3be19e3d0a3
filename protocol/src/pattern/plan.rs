//! The order in which Commands run, and what they trigger.

use regex_lite::Regex;

use super::command::{Command, Entry, PatternError};
use super::exec::Exec;
use super::limits::ALL_TARGETS_MAX;
use super::regex::{RegexError, regex};

/// The prefix of events.
const EVENT: &str = "etcha:";
/// The separator of the ids in a parent id.
const PARENT_SEPARATOR: &str = " > ";

/// The characters that make a text a regular expression.
const SPECIAL: [char; 14] = ['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'];

/// A Command that is not a group, and its place in the Pattern.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub command: &'a Command,
    /// The list that contains the Command, after nested lists were flattened. Targets and failures do not reach
    /// beyond it.
    pub list: usize,
    /// The name of the source and the ids of the groups that contain the Command.
    pub parent: String,
    /// The path in the Pattern.
    pub path: String,
    pub on_change: Triggers<'a>,
    pub on_fail: Triggers<'a>,
    pub on_remove: Triggers<'a>,
}

/// What a Command triggers.
#[derive(Debug, Default)]
pub(super) struct Triggers<'a> {
    /// The indexes of steps.
    pub steps: Vec<usize>,
    pub events: Vec<Event<'a>>,
}

/// An event that is not about other Commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// Adds the output to the claim `etchaBuildManifest`.
    BuildManifest,
    /// Sets a variable of `etchaRunVars` to the output.
    RunVar(&'a str),
    /// Prints the output.
    Stdout,
    /// Prints the output to standard error.
    Stderr,
}

/// How to treat a target that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Targets {
    /// It is an error.
    MustExist,
    /// It is ignored. A Pattern that was accepted by an earlier release must not keep its successor from running.
    MayBeMissing,
}

/// Returns the Commands in their order.
///
/// # Errors
/// Fails if the Pattern has too many targets, or one that does not exist.
pub(super) fn plan<'a>(
    entries: &'a [Entry],
    name: &str,
    source: &str,
    exec: &Exec,
    targets: Targets,
) -> Result<Vec<Step<'a>>, PatternError> {
    let mut plan = Plan { steps: Vec::new(), groups: Vec::new(), lists: 0, targets: 0 };
    let place = Place { path: name, parent: source, list: 0 };
    plan.collect(entries, &place)?;
    for index in 0..plan.steps.len() {
        if targets == Targets::MustExist {
            allow_exec(&plan.steps[index], exec)?;
        }
        plan.steps[index].on_change = plan.triggers(index, Kind::Change, targets)?;
        plan.steps[index].on_fail = plan.triggers(index, Kind::Fail, targets)?;
        plan.steps[index].on_remove = plan.triggers(index, Kind::Remove, targets)?;
    }
    Ok(plan.steps)
}

fn allow_exec(step: &Step<'_>, exec: &Exec) -> Result<(), PatternError> {
    if step.command.exec.is_none() || exec.allow_override != Some(false) {
        return Ok(());
    }
    let why = "is not allowed: the exec of the Pattern has \"allowOverride\": false";
    Err(PatternError::Invalid { path: format!("{}.exec", step.path), why: why.into() })
}

/// Where Commands are.
struct Place<'p> {
    path: &'p str,
    parent: &'p str,
    list: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Change,
    Fail,
    Remove,
}

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Self::Change => "onChange",
            Self::Fail => "onFail",
            Self::Remove => "onRemove",
        }
    }

    fn targets(self, command: &Command) -> &[String] {
        match self {
            Self::Change => &command.on_change,
            Self::Fail => &command.on_fail,
            Self::Remove => &command.on_remove,
        }
    }
}

struct Plan<'a> {
    steps: Vec<Step<'a>>,
    /// The ids of groups, and the lists that contain them.
    groups: Vec<(&'a str, usize)>,
    lists: usize,
    targets: usize,
}

impl<'a> Plan<'a> {
    fn collect(&mut self, entries: &'a [Entry], place: &Place<'_>) -> Result<(), PatternError> {
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{}[{index}]", place.path);
            match entry {
                Entry::List(list) => {
                    self.collect(list, &Place { path: &path, ..*place })?;
                }
                Entry::Command(group) if !group.commands.is_empty() => {
                    self.groups.push((&group.id, place.list));
                    self.lists += 1;
                    let inside = Place {
                        path: &format!("{path}.commands"),
                        parent: &format!("{}{PARENT_SEPARATOR}{}", place.parent, group.id),
                        list: self.lists,
                    };
                    self.collect(&group.commands, &inside)?;
                }
                Entry::Command(command) => self.push(command, path, place),
            }
            if self.targets > ALL_TARGETS_MAX {
                return Err(PatternError::TooManyTargets);
            }
        }
        Ok(())
    }

    fn push(&mut self, command: &'a Command, path: String, place: &Place<'_>) {
        let Command { on_change, on_fail, on_remove, .. } = command;
        self.targets += on_change.len() + on_fail.len() + on_remove.len();
        self.steps.push(Step {
            command,
            list: place.list,
            parent: place.parent.to_owned(),
            path,
            on_change: Triggers::default(),
            on_fail: Triggers::default(),
            on_remove: Triggers::default(),
        });
    }

    fn triggers(
        &self,
        index: usize,
        kind: Kind,
        rule: Targets,
    ) -> Result<Triggers<'a>, PatternError> {
        let mut triggers = Triggers::default();
        let step = &self.steps[index];
        let command: &'a Command = step.command;
        for (number, target) in kind.targets(command).iter().enumerate() {
            let added = match target.strip_prefix(EVENT) {
                Some(name) => event(name, kind).map(|event| triggers.events.push(event)),
                None => self.find(index, kind, target).map(|found| triggers.steps.extend(found)),
            };
            if let Err(why) = added
                && rule == Targets::MustExist
            {
                let path = format!("{}.{}[{number}]", step.path, kind.field());
                return Err(PatternError::Invalid { path, why });
            }
        }
        Ok(triggers)
    }

    /// Returns the steps that a target names. Those of `onChange` and `onFail` run later than the step itself. Those
    /// of `onRemove` may be anywhere in the list, as in Etcha.
    fn find(&self, index: usize, kind: Kind, target: &str) -> Result<Vec<usize>, String> {
        let step = &self.steps[index];
        if target == step.command.id {
            return Err(format!("is {target:?}, the Command itself"));
        }
        let matcher = Matcher::new(target);
        let siblings = self.steps.iter().enumerate().filter(|(_, other)| other.list == step.list);
        let named = siblings.filter(|(_, other)| matcher.matches(&other.command.id));
        let is_possible = |other: &usize| match kind {
            Kind::Change | Kind::Fail => *other > index,
            Kind::Remove => *other != index,
        };
        let (found, others): (Vec<usize>, Vec<usize>) =
            named.map(|(other, _)| other).partition(is_possible);
        if found.is_empty() {
            let is_group = |(id, list): &(&str, usize)| *list == step.list && matcher.matches(id);
            let why = if let Some(error) = &matcher.error {
                format!("which {error}")
            } else if others.iter().any(|other| *other != index) {
                "which does not run later in the list".into()
            } else if self.groups.iter().any(is_group) {
                "which is a group: name its Commands within the group".into()
            } else if matches!(kind, Kind::Remove) {
                "which matches no Command in the list".into()
            } else {
                "which matches no Command that runs later in the list".into()
            };
            return Err(format!("is {target:?}, {why}"));
        }
        Ok(found)
    }
}

/// Finds the Commands that a target names.
struct Matcher<'t> {
    target: &'t str,
    /// The expression, if the target is not only a text.
    expression: Option<Regex>,
    error: Option<RegexError>,
}

impl<'t> Matcher<'t> {
    fn new(target: &'t str) -> Self {
        let compiled = target.contains(SPECIAL).then(|| regex(target));
        match compiled {
            None => Self { target, expression: None, error: None },
            Some(Ok(expression)) => Self { target, expression: Some(expression), error: None },
            // The target may be an id with brackets, for example.
            Some(Err(error)) => Self { target, expression: None, error: Some(error) },
        }
    }

    /// Returns whether a target names this id: it is the id, or a regular expression that matches anywhere in it.
    fn matches(&self, id: &str) -> bool {
        match &self.expression {
            Some(expression) => id == self.target || expression.is_match(id),
            None if self.error.is_some() => id == self.target,
            None => id.contains(self.target),
        }
    }
}

fn event(name: &str, kind: Kind) -> Result<Event<'_>, String> {
    match (name, kind) {
        ("stdout", _) => return Ok(Event::Stdout),
        ("stderr", _) => return Ok(Event::Stderr),
        ("buildManifest", Kind::Change) => return Ok(Event::BuildManifest),
        (_, Kind::Change) => {
            if let Some(variable) = name.strip_prefix("runVar_").filter(|name| !name.is_empty()) {
                return Ok(Event::RunVar(variable));
            }
        }
        _ => {}
    }
    Err(format!(
        "is the event {:?}, which is not supported: the events are etcha:stdout and etcha:stderr, and in onChange also etcha:buildManifest and etcha:runVar_NAME",
        format!("{EVENT}{name}")
    ))
}
