//! A source while its Commands and its Pattern run, and what is no longer wanted is removed.
//!
//! What comes into force is kept together with what it replaces before anything runs, and the latter is forgotten
//! only after a run without failure. Thus a host that is switched off in between removes what is left at its next
//! run.

use std::io;
use std::time::Duration;

use protocol::pattern::{Mode, Options, Outcome, Pattern, Report, RunError};
use protocol::token::verify;
use protocol::{Claims, KeyRing, Verified};
use serde_json::{Map, Value};

use super::kept::{Accepted, Kept, Way};
use super::predecessors::{run_after, validate};
use super::pull::{Facts, pulled};
use super::results::{PatternInForce, RunState, SourceRun, shorten};
use super::store::{Found, Store};
use crate::clock::now;
use crate::config::{PatternSource, pattern_of};
use crate::host::Host;
use crate::jsonnet;
use crate::shell::LimitedShell;

/// The longest time from one run to the next of a source from which nothing could be pulled yet: the network may have
/// been late.
const FIRST_INTERVAL: Duration = Duration::from_secs(300);
/// How many characters of an id, and of the output of a failed Command, are logged.
const ID_LENGTH: usize = 100;
/// See [`ID_LENGTH`].
const LINE_LENGTH: usize = 200;

/// A Pattern of which the signature is valid.
pub(super) struct Trusted {
    pub(super) pattern: Pattern,
    pub(super) key: String,
}

/// A source whose Patterns run.
pub(super) struct Work<'a> {
    pub(super) host: &'a Host,
    pub(super) store: &'a Store,
    pub(super) name: &'a str,
    pub(super) source: &'a PatternSource,
    pub(super) found: Found,
    /// What is on the disk.
    saved: Kept,
    /// The keys that may have signed what is kept.
    keys: KeyRing,
    pub(super) run: SourceRun,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        host: &'a Host,
        store: &'a Store,
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
        Self { host, store, name, source, saved: found.kept.clone(), found, keys, run }
    }

    pub(super) fn is_pulled(&self) -> bool {
        !self.source.pull.is_empty()
    }

    /// Returns whether nothing is kept of the source, or its keys are those that it had last. Otherwise a broken
    /// source of the configuration may have other ones.
    pub(super) fn is_known(&self) -> bool {
        let mut current = Kept::new(self.name);
        current.set_keys(&self.keys);
        self.found.kept.has_no_content() || self.found.kept.keys == current.keys
    }

    /// Puts the Pattern in force that was pulled last, if it is new.
    pub(super) fn accept_pulled(&mut self) {
        if !self.is_pulled() {
            return;
        }
        let host = self.host;
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

    pub(super) fn accept(&mut self, token: &str, from: Way, claims: &Verified<Claims>) {
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
    pub(super) fn align(&mut self, is_complete: bool) {
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
        // Otherwise, the record stays as it is: the content may be on a data partition that is not mounted yet, and a
        // newer record would take its place.
        if !kept.has_no_content() {
            kept.set_keys(&self.keys);
        }
    }

    pub(super) fn save_if_changed(&mut self) {
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
            self.store.forget(self.name, places);
            places.clear();
            self.run.kept = None;
            return;
        }
        let saved = self.store.save(kept, places, self.run.time);
        self.saved = kept.clone();
        self.run.kept = saved.place;
        if let Some(problem) = saved.problem
            && !self.run.problems.iter().any(|known| known.starts_with("it cannot be kept"))
        {
            self.run.add_problem(self.name, &format!("{problem}; the next boot loses it"));
        }
    }

    /// Runs the Commands and the Pattern.
    pub(super) fn run(&mut self) {
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

    pub(super) fn fail(&mut self, problem: &str) {
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
    pub(super) fn run_pattern(
        &mut self,
        current: Option<Trusted>,
    ) -> Result<Report, RunError<io::Error>> {
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
    pub(super) fn current(&mut self) -> Option<Trusted> {
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
    pub(super) fn end(&mut self) {
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

pub(super) fn describe(error: &RunError<io::Error>) -> String {
    match error {
        RunError::Pattern(error) => error.to_string(),
        RunError::Shell { id, source } => format!("cannot run the Command {id:?}: {source}"),
    }
}

/// Renders the Pattern of a token, with the variables of its source over those of the token.
pub(super) fn render(
    source: &str,
    claims: &Claims,
    vars: &Map<String, Value>,
) -> Result<Pattern, String> {
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
