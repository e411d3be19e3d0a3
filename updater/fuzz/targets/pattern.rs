//! Patterns. A Pattern that can be read is the same when it is written and read again, and a check makes
//! no changes.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use protocol::pattern::{Entry, Mode, Outcome, Output, Pattern, PatternFiles, Shell, run};

/// A shell that runs nothing. About one in three scripts fails.
#[derive(Default)]
struct FakeShell {
    ran: Vec<String>,
}

impl Shell for FakeShell {
    type Error = Infallible;

    fn run(&mut self, text: &str, env: &BTreeMap<String, String>) -> Result<Output, Infallible> {
        self.ran.push(text.to_owned());
        let code = i32::from((text.len() + env.len()) % 3 == 0);
        Ok(Output { code, text: text.chars().take(8).collect() })
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let files = BTreeMap::from([("main".to_owned(), text.to_owned())]);
    let Ok(pattern) = (PatternFiles { entrypoint: "main".into(), files }).pattern() else { return };
    let again = PatternFiles::from(&pattern).pattern();
    assert_eq!(again.as_ref(), Ok(&pattern));

    let mut checks = BTreeSet::new();
    collect_checks(&pattern.run, &mut checks);
    let mut shell = FakeShell::default();
    if let Ok(report) = run(&pattern.run, Mode::Check, &mut shell) {
        assert!(report.results.iter().all(|result| result.outcome != Outcome::Changed));
        assert!(report.build_manifest.is_empty() && report.run_vars.is_empty());
    }
    assert!(
        shell.ran.iter().all(|text| checks.contains(text.as_str())),
        "a script that is not a check ran in check mode"
    );

    let mut shell = FakeShell::default();
    if let Ok(report) = run(&pattern.run, Mode::Change, &mut shell) {
        // Each Command runs at most a check and a change.
        assert!(shell.ran.len() <= 2 * report.results.len());
    }
    run_build(&pattern);
});

fn run_build(pattern: &Pattern) {
    let _ = run(&pattern.build, Mode::Change, &mut FakeShell::default());
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
