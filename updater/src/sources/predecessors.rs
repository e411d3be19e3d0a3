//! Runs a Pattern that has more than one predecessor, and validates one without running it.

use std::io;

use protocol::pattern::{
    Command, Entry, Invocation, Mode, Options, Output, Pattern, Report, RunError, Shell, Stream,
    run,
};

/// Runs a Pattern, after the removal of what its predecessors had and it has not. `previous` is in the order from the
/// newest to the oldest. Nothing else runs after a removal failed.
///
/// # Errors
/// Fails as [`run`] does.
pub(super) fn run_after<S: Shell>(
    pattern: &Pattern,
    previous: &[Pattern],
    options: &Options<'_>,
    shell: &mut S,
) -> Result<Report, RunError<S::Error>> {
    let Some((newest, older)) = previous.split_first() else {
        return run(pattern, None, options, shell);
    };
    let mut removed = Vec::new();
    let inert = inert(pattern);
    for old in older.iter().rev() {
        let report = run(&inert, Some(old), options, shell)?;
        let has_failed = report.failures().next().is_some();
        removed.extend(report.removed);
        if has_failed {
            return Ok(Report { removed, ..Report::default() });
        }
    }
    let mut report = run(pattern, Some(newest), options, shell)?;
    removed.append(&mut report.removed);
    Ok(Report { removed, ..report })
}

/// Checks whether a Pattern can be run, without running anything of it.
///
/// # Errors
/// Fails as [`run`] does before anything runs.
pub(super) fn validate(pattern: &Pattern) -> Result<(), RunError<io::Error>> {
    // In a check, only the scripts `check` run.
    let without_checks = map(pattern, &|command| Command { check: None, ..command.clone() });
    run(&without_checks, None, &Options::new(Mode::Check, ""), &mut NoShell).map(drop)
}

/// A shell that runs nothing.
struct NoShell;

impl Shell for NoShell {
    type Error = io::Error;

    fn run(&mut self, _: &Invocation<'_>) -> io::Result<Output> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn print(&mut self, _: &str, _: Stream, _: &str) {}
}

/// Returns a Pattern whose Commands count for the comparison with a predecessor, and do nothing.
fn inert(pattern: &Pattern) -> Pattern {
    map(pattern, &|command| Command {
        id: command.id.clone(),
        change: command.change.clone(),
        change_ignore: command.change_ignore,
        ..Command::default()
    })
}

/// Changes every Command of the list `run` that is not a group.
fn map(pattern: &Pattern, change: &dyn Fn(&Command) -> Command) -> Pattern {
    Pattern { run: map_entries(&pattern.run, change), ..pattern.clone() }
}

fn map_entries(entries: &[Entry], change: &dyn Fn(&Command) -> Command) -> Vec<Entry> {
    let map = |entry: &Entry| match entry {
        Entry::List(list) => Entry::List(map_entries(list, change)),
        Entry::Command(group) if !group.commands.is_empty() => {
            let commands = map_entries(&group.commands, change);
            Entry::Command(Box::new(Command { commands, ..(**group).clone() }))
        }
        Entry::Command(command) => Entry::Command(Box::new(change(command))),
    };
    entries.iter().map(map).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use serde_json::json;

    /// Records the scripts, of which those that are `fail` fail.
    #[derive(Default)]
    struct Recorder(Vec<String>);

    impl Shell for Recorder {
        type Error = Infallible;

        fn run(&mut self, invocation: &Invocation<'_>) -> Result<Output, Infallible> {
            self.0.push(invocation.script.to_owned());
            let code = i32::from(invocation.script.starts_with("fail"));
            Ok(Output { code, text: String::new() })
        }

        fn print(&mut self, _: &str, _: Stream, _: &str) {}
    }

    fn pattern(ids: &[&str]) -> Pattern {
        let commands = ids.iter().map(|id| {
            json!({"id": id, "always": true, "change": format!("add {id}"), "remove": format!("remove {id}")})
        });
        let group = json!({"id": "group", "commands": commands.collect::<Vec<_>>()});
        Pattern::from_value(&json!({"run": [[group]]})).unwrap()
    }

    fn scripts(pattern: &Pattern, previous: &[Pattern]) -> (Vec<String>, usize) {
        let mut shell = Recorder::default();
        let report =
            run_after(pattern, previous, &Options::new(Mode::Change, "x"), &mut shell).unwrap();
        (shell.0, report.removed.len())
    }

    #[test]
    fn removes_what_any_predecessor_had() {
        let now = pattern(&["a", "d"]);
        assert_eq!(scripts(&now, &[]).0, ["add a", "add d"]);
        let previous = [pattern(&["a", "b"]), pattern(&["c"]), pattern(&["d", "e"])];
        let expected = ["remove e", "remove c", "remove b", "add a", "add d"];
        assert_eq!(scripts(&now, &previous), (expected.map(str::to_owned).to_vec(), 3));
        // Without a successor, everything is removed.
        let (found, count) = scripts(&Pattern::default(), &previous);
        assert_eq!((found.len(), count), (5, 5));
    }

    #[test]
    fn validates_without_running_anything() {
        let commands = json!([{"id": "a", "check": "x", "change": "y", "onChange": ["b"]}, {"id": "b", "always": true, "change": "z"}]);
        let valid = Pattern::from_value(&json!({"run": commands})).unwrap();
        assert!(validate(&valid).is_ok());
        let invalid = Pattern { run: valid.run[..1].to_vec(), ..valid };
        assert!(matches!(validate(&invalid), Err(RunError::Pattern(_))));
    }

    #[test]
    fn runs_nothing_after_a_removal_failed() {
        let failing =
            json!({"run": [{"id": "f", "always": true, "change": "x", "remove": "fail"}]});
        let failing = Pattern::from_value(&failing).unwrap();
        for previous in [[failing.clone(), pattern(&["b"])], [pattern(&["b"]), failing.clone()]] {
            let (found, _) = scripts(&pattern(&["a"]), &previous);
            assert_eq!(found.last().unwrap(), "fail", "{found:?}");
        }
    }
}
