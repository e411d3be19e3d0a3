//! Runs the Patterns and Commands of sources, and removes what they no longer have.
//!
//! What comes into force is kept together with what it replaces before anything runs, and the latter is forgotten
//! only after a run without failure. Thus a host that is switched off in between removes what is left at its next
//! run.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::pattern::{Filter, Mode, Options, Outcome, Pattern, Report, RunError, run};
use protocol::token::verify;
use protocol::{Claims, KeyRing, Verified};
use serde_json::{Map, Value};

use super::accept::is_kept;
use super::kept::{Accepted, Kept, Way};
use super::lock::{Turn, take_turn};
use super::predecessors::{run_after, validate};
use super::pull::{Facts, pulled};
use super::results::{PatternInForce, RunState, SourceRun, SourceRuns, shorten};
use super::store::{Found, Store};
use crate::clock::now;
use crate::config::{PatternSource, pattern_of};
use crate::host::Host;
use crate::jsonnet;
use crate::record;
use crate::shell::LimitedShell;

/// The time from one run to the next of a source that is not in the configuration.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(3600);
/// The longest time from one run to the next of a source from which nothing could be pulled yet: the network may have
/// been late.
const FIRST_INTERVAL: Duration = Duration::from_secs(300);
/// The time after the start of the kernel after which a source that is not in the configuration counts as removed:
/// a volume with a configuration may appear late.
const REMOVAL_UPTIME: Duration = Duration::from_secs(600);

/// How many characters of an id, and of the output of a failed Command, are logged.
const ID_LENGTH: usize = 100;
/// See [`ID_LENGTH`].
const LINE_LENGTH: usize = 200;

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

/// A Pattern of which the signature is valid.
struct Trusted {
    pattern: Pattern,
    key: String,
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
            let is_due = |run: &SourceRun| run.next <= now();
            if selection.all || runs.sources.get(name).is_none_or(is_due) {
                let last = runs.sources.remove(name);
                let mut work = Work::new(self, name, source, found, last);
                work.accept_pulled();
                work.align(selection.is_complete);
                work.run();
                self.record(&mut runs, work);
            }
        }
        // The others are not in the configuration, or in a source of it that is broken or appears late.
        let uptime = self.host.uptime().unwrap_or_default();
        let may_run = !selection.is_complete || uptime >= REMOVAL_UPTIME;
        for (name, found) in all.into_iter().filter(|_| may_run) {
            self.run_unknown(&mut runs, &name, found, selection.is_complete);
        }
        record::write(&self.host, &runs);
        runs
    }

    /// Runs what is kept of a source that is not in the configuration, or removes it.
    fn run_unknown(&self, runs: &mut SourceRuns, name: &str, found: Found, is_removed: bool) {
        let unknown = PatternSource { interval: UNKNOWN_INTERVAL, ..PatternSource::default() };
        let last = runs.sources.remove(name);
        let mut work = Work::new(self, name, &unknown, found, last);
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
        let mut work = Work::new(self, name, source, found, last);
        work.accept(token, Way::Push, claims);
        let trusted = Trusted { pattern: pattern.clone(), key: claims.key_id().to_owned() };
        work.save_if_changed();
        let result = work.run_pattern(Some(trusted));
        if let Err(error) = &result {
            work.fail(&describe(error));
        }
        work.end();
        self.record(&mut runs, work);
        record::write(&self.host, &runs);
        result
    }

    /// Returns the Pattern of a source that is in force.
    fn in_force(&self, name: &str, source: &PatternSource) -> Option<Pattern> {
        let found = self.store.load().remove(name)?;
        let mut work = Work::new(self, name, source, found, None);
        work.current().map(|trusted| trusted.pattern)
    }

    /// Returns the recorded runs of the sources that exist.
    fn runs(&self, kept: &BTreeMap<String, Found>) -> SourceRuns {
        let mut runs = record::read::<SourceRuns>(&self.host).unwrap_or_default();
        runs.sources.retain(|name, _| self.sources.contains_key(name) || kept.contains_key(name));
        runs
    }

    fn record(&self, runs: &mut SourceRuns, work: Work<'_>) {
        // A source that only pushes, and has pushed nothing, is not shown.
        let is_active = work.run.state != RunState::Nothing || !work.run.problems.is_empty();
        if is_active || work.is_pulled() || work.source.unhealthy {
            runs.sources.insert(work.name.to_owned(), work.run);
        }
    }
}

/// A source whose Patterns run.
struct Work<'a> {
    runner: &'a Runner,
    name: &'a str,
    source: &'a PatternSource,
    found: Found,
    /// What is on the disk.
    saved: Kept,
    /// The keys that may have signed what is kept.
    keys: KeyRing,
    run: SourceRun,
}

impl<'a> Work<'a> {
    fn new(
        runner: &'a Runner,
        name: &'a str,
        source: &'a PatternSource,
        found: Found,
        last: Option<SourceRun>,
    ) -> Self {
        let keys = source.all_keys();
        // Without any key in the configuration, what is kept is still to be removed.
        let keys = if keys.is_empty() { found.kept.key_ring() } else { keys };
        let time = now();
        let run = SourceRun {
            time,
            state: RunState::Nothing,
            pattern: None,
            kept: None,
            last_change: last.and_then(|last| last.last_change),
            failed: Vec::new(),
            removal_outstanding: false,
            problems: Vec::new(),
            next: time.saturating_add(source.interval.as_secs()),
            has_changed: false,
        };
        Self { runner, name, source, saved: found.kept.clone(), found, keys, run }
    }

    fn is_pulled(&self) -> bool {
        !self.source.pull.is_empty()
    }

    /// Puts the Pattern in force that was pulled last, if it is new.
    fn accept_pulled(&mut self) {
        if !self.is_pulled() {
            return;
        }
        let host = &self.runner.host;
        let facts = Facts::of(host, self.run.time);
        let pulled = pulled(host, self.name, self.source, &self.found.kept, &facts);
        let Some((token, claims)) = pulled else {
            if self.found.kept.pattern.current.is_none() {
                let soon = self.source.interval.min(FIRST_INTERVAL);
                self.run.next = self.run.time.saturating_add(soon.as_secs());
            }
            return;
        };
        let checked = render(self.name, &claims, &self.source.vars)
            .and_then(|pattern| validate(&pattern).map_err(|error| error.to_string()));
        match checked {
            Ok(()) => self.accept(&token, Way::Pull, &claims),
            Err(error) => {
                self.run.add_problem(
                    self.name,
                    &format!("the Pattern that was pulled is not run: {error}"),
                );
            }
        }
    }

    fn accept(&mut self, token: &str, from: Way, claims: &Verified<Claims>) {
        let (name, key) = (self.name, claims.key_id());
        let how = match from {
            Way::Push => "pushed",
            Way::Pull => "pulled",
        };
        log::info!(source = name, key = key; "the source {name} has a new Pattern, {how} and signed with {key}");
        let (time, vars) = (self.run.time, self.source.vars.clone());
        let kept = &mut self.found.kept;
        kept.newest = kept.newest.max(claims.iat);
        if kept.keys.is_empty() {
            kept.set_keys(&self.keys);
        }
        kept.pattern.replace(Some(Accepted { token: token.to_owned(), from, time, vars }));
    }

    /// Brings what is kept into line with the configuration. If that is not complete, only what was not kept before
    /// is added.
    fn align(&mut self, is_complete: bool) {
        let kept = &mut self.found.kept;
        if !is_complete && !kept.has_no_content() {
            return;
        }
        if let Some(current) = &kept.pattern.current {
            let may_stay = match current.from {
                Way::Push => !self.source.push_keys.is_empty(),
                Way::Pull => !self.source.pull.is_empty(),
            };
            let vars = self.source.vars.clone();
            let next = may_stay.then(|| Accepted { vars, ..current.clone() });
            kept.pattern.replace(next);
        }
        let commands = &self.source.commands;
        kept.commands.replace((!commands.is_empty()).then(|| commands.clone()));
        kept.set_keys(&self.keys);
    }

    fn save_if_changed(&mut self) {
        self.run.kept = self.found.places.first().copied();
        // What could not be written to a disk is tried again.
        if self.found.kept != self.saved || self.found.is_only_in_memory() {
            self.save();
        }
    }

    /// Writes what is kept. If that fails, the Pattern runs nevertheless.
    fn save(&mut self) {
        let Found { kept, places } = &mut self.found;
        if kept.is_empty() {
            self.runner.store.forget(self.name, places);
            places.clear();
            self.run.kept = None;
            return;
        }
        let saved = self.runner.store.save(kept, places, self.run.time);
        self.saved = kept.clone();
        self.run.kept = saved.place;
        if let Some(problem) = saved.problem
            && !self.run.problems.iter().any(|known| known.starts_with("it cannot be kept"))
        {
            self.run.add_problem(self.name, &format!("{problem}; the next boot loses it"));
        }
    }

    /// Runs the Commands and the Pattern.
    fn run(&mut self) {
        self.save_if_changed();
        if let Err(error) = self.run_commands() {
            self.fail(&format!(
                "its commands of the configuration cannot be run: {}",
                describe(&error)
            ));
        }
        let trusted = self.current();
        let has_current = self.found.kept.pattern.current.is_some();
        // A Pattern that cannot be trusted any more is not run, and so nothing is compared with it.
        if (trusted.is_some() || !has_current)
            && let Err(error) = self.run_pattern(trusted)
        {
            self.fail(&describe(&error));
        }
        self.end();
    }

    fn fail(&mut self, problem: &str) {
        self.run.state = RunState::Failed;
        self.run.add_problem(self.name, problem);
    }

    fn run_commands(&mut self) -> Result<(), RunError<io::Error>> {
        let commands = self.found.kept.commands.clone();
        if commands.is_empty() {
            return Ok(());
        }
        let current = pattern_of(&commands.current.unwrap_or_default())?;
        let previous = commands.previous.iter().filter_map(|previous| {
            let pattern = pattern_of(previous);
            // A newer release may have kept Commands that this one does not know.
            pattern
                .inspect_err(|error| log::warn!("earlier commands are not removed: {error}"))
                .ok()
        });
        let previous: Vec<Pattern> = previous.collect();
        let report = self.run_after(&current, &previous, None)?;
        if report.failures().next().is_none() {
            self.found.kept.commands.finish();
        }
        Ok(())
    }

    /// Runs a Pattern, or only removes its predecessors if there is none.
    fn run_pattern(&mut self, current: Option<Trusted>) -> Result<Report, RunError<io::Error>> {
        if self.found.kept.pattern.is_empty() {
            return Ok(Report::default());
        }
        let previous = self.found.kept.pattern.previous.clone();
        let previous: Vec<Pattern> = previous
            .iter()
            .filter_map(|accepted| {
                let trusted = self.trust(accepted);
                let report = |error: &String| {
                    let text =
                        format!("the Commands of an earlier Pattern are not removed: {error}");
                    self.run.add_problem(self.name, &text);
                };
                trusted.inspect_err(report).ok().map(|trusted| trusted.pattern)
            })
            .collect();
        let key = current.as_ref().map(|current| current.key.clone());
        let pattern = current.map_or_else(Pattern::default, |current| current.pattern);
        let report = self.run_after(&pattern, &previous, key.as_deref())?;
        if report.failures().next().is_none() {
            self.found.kept.pattern.finish();
        }
        Ok(report)
    }

    fn run_after(
        &mut self,
        pattern: &Pattern,
        previous: &[Pattern],
        key: Option<&str>,
    ) -> Result<Report, RunError<io::Error>> {
        let options = Options::new(Mode::Change, self.name);
        if self.run.state == RunState::Nothing {
            self.run.state = RunState::Ok;
        }
        let report = run_after(pattern, previous, &options, &mut LimitedShell::new())?;
        self.run.add(&report, key);
        log_report(self.name, key, &report);
        Ok(report)
    }

    /// Returns the Pattern in force, if its signature is still valid.
    fn current(&mut self) -> Option<Trusted> {
        let current = self.found.kept.pattern.current.clone()?;
        match self.trust(&current) {
            Ok(trusted) => Some(trusted),
            Err(error) => {
                self.fail(&format!("its Pattern is not run: {error}"));
                None
            }
        }
    }

    /// Verifies what is kept with the keys that the source has now. Its times count only when it is accepted.
    fn trust(&self, accepted: &Accepted) -> Result<Trusted, String> {
        let claims = verify(&accepted.token, &self.keys).map_err(|error| error.to_string())?;
        let pattern = render(self.name, &claims, &accepted.vars)?;
        Ok(Trusted { pattern, key: claims.key_id().to_owned() })
    }

    /// Writes what is kept after the run, and completes the record of the run.
    fn end(&mut self) {
        let in_force = self.found.kept.pattern.current.clone();
        self.run.pattern = in_force.map(|Accepted { token, from, time, .. }| {
            let claims = verify(&token, &self.keys).ok();
            PatternInForce {
                from,
                key: claims.as_ref().map(|claims| claims.key_id().to_owned()),
                signed: claims.as_ref().and_then(|claims| claims.iat),
                accepted: time,
            }
        });
        self.run.removal_outstanding = self.found.kept.has_predecessors();
        if self.found.kept != self.saved {
            self.save();
        }
    }
}

fn describe(error: &RunError<io::Error>) -> String {
    match error {
        RunError::Pattern(error) => error.to_string(),
        RunError::Shell { id, source } => format!("cannot run the Command {id:?}: {source}"),
    }
}

/// Renders the Pattern of a token, with the variables of its source over those of the token.
fn render(source: &str, claims: &Claims, vars: &Map<String, Value>) -> Result<Pattern, String> {
    let files = claims.etcha_pattern.as_ref().ok_or("the token has no claim etchaPattern")?;
    let mut all = claims.etcha_run_vars.clone();
    all.extend(vars.clone());
    jsonnet::render(files, source, &all).map_err(|error| error.to_string())
}

/// Logs what changed, and the last line of what a failed Command printed.
fn log_report(source: &str, key: Option<&str>, report: &Report) {
    let by = key.map_or("its commands of the configuration".to_owned(), |key| {
        format!("its Pattern, signed with {key}")
    });
    let all = report.removed.iter().chain(&report.results);
    for result in all {
        let id = shorten(&result.id, ID_LENGTH);
        match result.outcome {
            Outcome::Changed => {
                log::info!(source = source; "the source {source}: {by}, changed {id:?}");
            }
            Outcome::Removed => {
                log::info!(source = source; "the source {source}: {by}, removed {id:?}");
            }
            Outcome::Failed => {
                let line = result.output.lines().rev().find(|line| !line.trim().is_empty());
                let line = shorten(line.unwrap_or_default().trim(), LINE_LENGTH);
                log::warn!(source = source; "the source {source}: {by}, failed at {id:?}: {line}");
            }
            _ => {}
        }
    }
}
