//! Patterns. A Pattern that can be read is the same when it is written and read again, and a check makes
//! no changes.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use protocol::pattern::{
    Entry, Filter, Invocation, List, Mode, Options, Outcome, Output, Pattern, PatternFiles, Report,
    Shell, Stream, run,
};

/// A shell that runs nothing. About one in three scripts fails.
#[derive(Default)]
struct FakeShell {
    ran: Vec<String>,
}

impl Shell for FakeShell {
    type Error = Infallible;

    fn run(&mut self, invocation: &Invocation<'_>) -> Result<Output, Infallible> {
        let Invocation { script, env, .. } = invocation;
        assert!(!script.is_empty() && !script.contains('\0'));
        assert!(env.values().all(|value| !value.contains('\0')));
        assert!(env.keys().all(|name| !name.is_empty() && !name.contains(['=', '\0'])));
        self.ran.push((*script).to_owned());
        let code = i32::from((script.len() + env.len()) % 3 == 0);
        Ok(Output { code, text: script.chars().take(8).collect() })
    }

    fn print(&mut self, _: &str, _: Stream, _: &str) {}
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let files = BTreeMap::from([("main".to_owned(), text.to_owned())]);
    let Ok(pattern) = (PatternFiles { entrypoint: "main".into(), files }).pattern() else { return };
    let again = PatternFiles::from(&pattern).pattern();
    assert_eq!(again.as_ref(), Ok(&pattern));

    let mut checks = BTreeSet::new();
    collect_checks(&pattern.run, &mut checks);
    collect_checks(&pattern.build, &mut checks);
    // The build list takes the part of the Pattern that was pushed before.
    let previous = Pattern { run: pattern.build.clone(), ..pattern.clone() };
    let mut shell = FakeShell::default();
    let options = Options::new(Mode::Check, "source");
    if let Ok(report) = run(&pattern, Some(&previous), &options, &mut shell) {
        let changed =
            |outcome| matches!(outcome, Outcome::Changed | Outcome::Removed | Outcome::Failed);
        assert!(
            !report.results.iter().chain(&report.removed).any(|result| changed(result.outcome))
        );
        assert!(report.build_manifest.is_empty() && report.run_vars.is_empty());
    }
    assert!(
        shell.ran.iter().all(|text| checks.contains(text.as_str())),
        "a script that is not a check ran in check mode"
    );

    for list in [List::Run, List::Build] {
        change(&pattern, Some(&previous), list, None);
    }
    // Any text may be a filter.
    let filter = pattern.subject.as_deref().and_then(|text| Filter::new(text).ok());
    let selected = change(&pattern, None, List::Run, filter.as_ref());
    let all = change(&pattern, None, List::Run, None);
    if let (Some(selected), Some(all)) = (selected, all)
        && all.failures().next().is_none()
    {
        assert!(selected.results.len() <= all.results.len());
    }
});

fn change(
    pattern: &Pattern,
    previous: Option<&Pattern>,
    list: List,
    filter: Option<&Filter>,
) -> Option<Report> {
    let mut shell = FakeShell::default();
    let options = Options { list, filter, ..Options::new(Mode::Change, "source") };
    let report = run(pattern, previous, &options, &mut shell);
    let Ok(report) = report else {
        assert!(shell.ran.is_empty(), "scripts ran although the Pattern is not valid");
        return None;
    };
    // Each Command runs at most a check and a change or removal.
    assert!(shell.ran.len() <= 2 * (report.results.len() + report.removed.len()));
    Some(report)
}

fn collect_checks<'a>(entries: &'a [Entry], checks: &mut BTreeSet<&'a str>) {
    for entry in entries {
        match entry {
            Entry::List(list) => collect_checks(list, checks),
            Entry::Command(command) => {
                checks.extend(command.check.as_deref());
                collect_checks(&command.commands, checks);
            }
        }
    }
}
