//! Rules that hold for all Patterns.

use super::*;
use crate::pattern::PatternFiles;
use proptest::prelude::*;

/// A Command with random fields. Scripts that start with `no` fail.
fn command() -> impl Strategy<Value = Value> {
    let script = |kind: &'static str| {
        proptest::option::of(prop_oneof![Just(kind.to_owned()), Just(format!("no {kind}"))])
    };
    let target = prop_oneof![Just("[abc]"), Just("a"), Just(".*"), Just("etcha:stdout")];
    let targets = || proptest::collection::vec(target.clone(), 0..2);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let fields = (
        "[abc]",
        script("check"),
        script("change"),
        script("remove"),
        flags,
        targets(),
        targets(),
        targets(),
    );
    fields.prop_map(
        |(id, check, change, remove, (always, after, ignore), on_change, on_fail, on_remove)| {
            json!({
                "id": id, "check": check, "change": change, "remove": remove, "always": always,
                "removeAfter": after, "changeIgnore": ignore,
                "onChange": on_change, "onFail": on_fail, "onRemove": on_remove, "envPrefix": "P",
            })
        },
    )
}

fn commands() -> impl Strategy<Value = Value> {
    let leaf = proptest::collection::vec(command(), 0..6).prop_map(Value::Array);
    leaf.prop_recursive(3, 24, 4, |inner| {
        let group = inner.clone().prop_map(|commands| json!({"id": "g", "commands": commands}));
        proptest::collection::vec(prop_oneof![command(), group, inner], 0..5).prop_map(Value::Array)
    })
}

proptest! {
    #[test]
    fn keeps_the_rules_for_random_patterns(
        old in commands(),
        new in commands(),
        check in any::<bool>(),
        with_previous in any::<bool>(),
    ) {
        let (old, new) = (pattern(old), pattern(new));
        let mode = if check { Mode::Check } else { Mode::Change };
        let mut shell = FakeShell::default();
        let options = Options::new(mode, "ci");
        let Ok(report) = run(&new, with_previous.then_some(&old), &options, &mut shell) else {
            prop_assert!(shell.ran.is_empty());
            return Ok(());
        };
        if check {
            prop_assert!(shell.ran.iter().all(|script| script.ends_with("check")));
            prop_assert!(shell.printed.is_empty() && report.failures().count() == 0);
        }
        prop_assert!(shell.ran.len() <= 2 * (report.results.len() + report.removed.len()));
        prop_assert!(with_previous || report.removed.is_empty());
        let failed_removal = report.removed.iter().any(|r| r.outcome == Outcome::Failed);
        prop_assert!(!failed_removal || report.removed.last().unwrap().outcome == Outcome::Failed);
        let failed = report.results.iter().position(|r| r.outcome == Outcome::Failed);
        if let Some(failed) = failed {
            // Only changes run after a failure.
            let rest = &report.results[failed + 1..];
            prop_assert!(rest.iter().all(|r| !matches!(r.outcome, Outcome::Ok | Outcome::Needed)));
        }
        // The same Pattern again removes nothing.
        let again = run(&new, Some(&new), &options, &mut FakeShell::default()).unwrap();
        prop_assert!(again.removed.is_empty());
    }

    #[test]
    fn a_pattern_is_the_same_after_it_is_written_and_read(commands in commands()) {
        let pattern = pattern(commands);
        let files = PatternFiles::from(&pattern);
        prop_assert_eq!(files.pattern(), Ok(pattern));
    }
}
