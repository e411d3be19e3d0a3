//! Decides which sources run, and which count as removed from the configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::pattern::{Filter, Mode, Options, Pattern, Report, RunError, run};
use protocol::{Claims, Verified};
use serde_json::Map;

use super::accept::is_kept;
use super::kept::Way;
use super::lock::{Turn, take_turn};
use super::predecessors::validate;
use super::results::{RunState, SourceRun, SourceRuns};
use super::store::{Found, Store};
use super::work::{Trusted, Work, describe, render};
use crate::clock::now;
use crate::config::PatternSource;
use crate::host::Host;
use crate::record;
use crate::shell::LimitedShell;

/// The time from one run to the next of a source that is not in the configuration.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(3600);
/// The time after the start of the kernel after which a source that is not in the configuration counts as removed:
/// a volume with a configuration may appear late.
const REMOVAL_UPTIME: Duration = Duration::from_secs(600);

/// Runs the Patterns of a host.
pub(crate) struct Runner {
    host: Host,
    store: Store,
    sources: BTreeMap<String, PatternSource>,
}

/// A Pattern that was pushed, verified and rendered.
pub(crate) struct Pushed<'a> {
    pub(crate) source: &'a str,
    pub(crate) token: &'a str,
    pub(crate) claims: &'a Verified<Claims>,
    pub(crate) pattern: &'a Pattern,
    pub(crate) mode: Mode,
    pub(crate) filter: Option<&'a Filter>,
}

/// Which sources run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    /// All sources instead of only those that are due.
    pub(crate) all: bool,
    /// Whether the whole configuration is known. While a source of it is broken, what is kept runs unchanged.
    pub(crate) is_complete: bool,
}

impl Runner {
    pub(crate) fn new(
        host: &Host,
        esp: Option<&Path>,
        sources: BTreeMap<String, PatternSource>,
    ) -> Self {
        Self { host: host.clone(), store: Store::new(host, esp), sources }
    }

    /// Takes the turn to run Patterns. Returns `None` if another process has it.
    pub(crate) fn turn(&self) -> io::Result<Option<Turn>> {
        take_turn(&self.host)
    }

    /// Renders the Pattern of a token with the variables of its source.
    ///
    /// # Errors
    /// Fails if the token has no Pattern, or one that cannot be rendered.
    pub(crate) fn render(&self, source: &str, claims: &Claims) -> Result<Pattern, String> {
        let none = Map::new();
        render(source, claims, self.sources.get(source).map_or(&none, |source| &source.vars))
    }

    /// Runs the sources that are due, or all. Returns the last runs of all sources.
    pub(crate) fn run(&self, _turn: &Turn, selection: Selection) -> SourceRuns {
        let mut all = self.store.load();
        let mut runs = self.runs(&all);
        for (name, source) in &self.sources {
            let found = all.remove(name).unwrap_or_else(|| Found::new(name));
            let is_due = |run: &SourceRun| run.is_due(now());
            if selection.all || runs.sources.get(name).is_none_or(is_due) {
                let last = runs.sources.remove(name);
                let mut work = Work::new(&self.host, &self.store, name, source, found, last);
                if selection.is_complete || work.is_known() {
                    work.accept_pulled();
                }
                work.align(selection.is_complete);
                work.run();
                self.record(&mut runs, work);
            }
        }
        // The others are not in the configuration, or in a source of it that is broken or appears late.
        let uptime = self.host.uptime().unwrap_or_default();
        let may_run = !selection.is_complete || uptime >= REMOVAL_UPTIME;
        for (name, found) in all.into_iter().filter(|_| may_run) {
            let is_first = |run: &SourceRun| selection.is_complete && !run.removal_outstanding;
            let is_due = |run: &SourceRun| run.is_due(now()) || is_first(run);
            if selection.all || runs.sources.get(&name).is_none_or(is_due) {
                self.run_unknown(&mut runs, &name, found, selection.is_complete);
            }
        }
        record::write(&self.host, &runs);
        runs
    }

    /// Runs what is kept of a source that is not in the configuration, or removes it.
    fn run_unknown(&self, runs: &mut SourceRuns, name: &str, found: Found, is_removed: bool) {
        let unknown = PatternSource { interval: UNKNOWN_INTERVAL, ..PatternSource::default() };
        let last = runs.sources.remove(name);
        let mut work = Work::new(&self.host, &self.store, name, &unknown, found, last);
        work.align(is_removed);
        work.run();
        if is_removed && work.found.kept.has_no_content() {
            log::info!(source = name; "the source {name} is not in the configuration any more, and nothing is left of it");
            self.store.forget(name, &work.found.places);
            return;
        }
        self.record(runs, work);
    }

    /// Runs a Pattern that was pushed, and keeps it if it describes a state.
    ///
    /// # Errors
    /// Fails if the Pattern is not valid, or if a Command cannot be started.
    pub(crate) fn push(
        &self,
        _turn: &Turn,
        pushed: &Pushed<'_>,
    ) -> Result<Report, RunError<io::Error>> {
        let Pushed { source: name, token, claims, pattern, mode, filter } = *pushed;
        let source = self.sources.get(name);
        let (Some(source), Mode::Change, None, true) = (source, mode, filter, is_kept(pattern))
        else {
            let options = Options { filter, ..Options::new(mode, name) };
            // A check also shows what would be removed.
            let is_comparable = mode == Mode::Check && filter.is_none() && is_kept(pattern);
            let previous =
                source.filter(|_| is_comparable).and_then(|source| self.in_force(name, source));
            return run(pattern, previous.as_ref(), &options, &mut LimitedShell::new());
        };
        validate(pattern)?;
        let mut all = self.store.load();
        let mut runs = self.runs(&all);
        let found = all.remove(name).unwrap_or_else(|| Found::new(name));
        let last = runs.sources.remove(name);
        let mut work = Work::new(&self.host, &self.store, name, source, found, last);
        work.accept(token, Way::Push, claims);
        let trusted = Trusted { pattern: pattern.clone(), key: claims.key_id().to_owned() };
        work.save_if_changed();
        let result = work.run_pattern(Some(trusted));
        if let Err(error) = &result {
            work.fail(&describe(error));
        }
        work.end();
        self.record(&mut runs, work);
        result
    }

    /// Returns the Pattern of a source that is in force.
    fn in_force(&self, name: &str, source: &PatternSource) -> Option<Pattern> {
        let found = self.store.load().remove(name)?;
        let mut work = Work::new(&self.host, &self.store, name, source, found, None);
        work.current().map(|trusted| trusted.pattern)
    }

    /// Returns the recorded runs of the sources that exist.
    fn runs(&self, kept: &BTreeMap<String, Found>) -> SourceRuns {
        let mut runs = record::read::<SourceRuns>(&self.host).unwrap_or_default();
        runs.sources.retain(|name, _| self.sources.contains_key(name) || kept.contains_key(name));
        runs
    }

    /// Records the run of a source at once: the next source may take long, and a health check may wait for this one.
    fn record(&self, runs: &mut SourceRuns, work: Work<'_>) {
        // A source that only pushes, and has pushed nothing, is not shown.
        let is_active = work.run.state != RunState::Nothing || !work.run.problems.is_empty();
        if is_active || work.is_pulled() || work.source.unhealthy {
            runs.sources.insert(work.name.to_owned(), work.run);
        }
        record::write(&self.host, runs);
    }
}
