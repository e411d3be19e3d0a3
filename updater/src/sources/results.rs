//! What the last runs of the sources did, for `status`.

use std::collections::BTreeMap;

use protocol::date::format_utc;
use protocol::pattern::{Outcome, Report};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kept::Way;
use super::store::Place;
use crate::record::Record;

/// How many ids of Commands are recorded, and how many characters of each.
const IDS_MAX: usize = 5;
/// See [`IDS_MAX`].
const ID_LENGTH: usize = 40;
/// How many characters of a problem are recorded.
const PROBLEM_LENGTH: usize = 300;
/// How many problems of a source are recorded.
const PROBLEMS_MAX: usize = 4;

/// The last run of each source in this boot, by name. The time of a run decides when the next one is due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceRuns {
    pub(crate) sources: BTreeMap<String, SourceRun>,
}

/// The result of the last request to the URLs of each source in this boot, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pulls {
    pub(crate) sources: BTreeMap<String, PullResult>,
}

/// The last run of a source. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceRun {
    /// When the run ended.
    pub(crate) time: u64,
    /// How it ended.
    pub(crate) state: RunState,
    /// The Pattern that is in force.
    pub(crate) pattern: Option<PatternInForce>,
    /// Where what was accepted is kept; `None` if there is nothing to keep, or no place.
    pub(crate) kept: Option<Place>,
    /// The last run that changed something.
    pub(crate) last_change: Option<Change>,
    /// The ids of Commands that failed in the last run, at most five.
    pub(crate) failed: Vec<String>,
    /// Whether Commands still have to be removed.
    pub(crate) removal_outstanding: bool,
    /// What is wrong.
    pub(crate) problems: Vec<String>,
    /// When the next run is due.
    pub(crate) next: u64,
    /// Whether `last_change` is of this run.
    #[serde(skip)]
    pub(super) has_changed: bool,
}

/// How the run of a source ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunState {
    /// No Command failed.
    Ok,
    /// A Command failed, or the Pattern could not be run.
    Failed,
    /// There is nothing to run.
    Nothing,
}

/// A Pattern, by who signed it and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PatternInForce {
    /// How it came to this host.
    pub(crate) from: Way,
    /// The ID of the key that signed it; `None` if the key is no longer trusted.
    pub(crate) key: Option<String>,
    /// When it was signed.
    pub(crate) signed: Option<u64>,
    /// When this host accepted it.
    pub(crate) accepted: u64,
}

/// What a run changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Change {
    /// When.
    pub(crate) time: u64,
    /// Who signed the Pattern that made the change; `None` if only Commands of the configuration did.
    pub(crate) key: Option<String>,
    /// The ids of Commands that made a change, at most five.
    pub(crate) changed: Vec<String>,
    /// How many Commands made a change.
    pub(crate) changed_count: usize,
    /// The ids of Commands that were removed, at most five.
    pub(crate) removed: Vec<String>,
    /// How many Commands were removed.
    pub(crate) removed_count: usize,
}

/// The result of a request to the URLs of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullResult {
    /// When the pull began.
    pub(crate) time: u64,
    /// Why no Pattern was accepted; `None` if one was, or is kept already.
    pub(crate) error: Option<String>,
}

impl Record for SourceRuns {
    const FILE: &'static str = "sources.json";
}

impl Record for Pulls {
    const FILE: &'static str = "pulls.json";
}

impl SourceRun {
    /// Returns whether the next run is due. It is due as well if the clock was set back since the last one.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.next <= now || self.time > now
    }

    /// Adds the report of a part of the run, of which `key` signed the Pattern.
    pub(super) fn add(&mut self, report: &Report, key: Option<&str>) {
        let with = |outcome| -> Vec<&str> {
            let all = report.removed.iter().chain(&report.results);
            all.filter(|result| result.outcome == outcome)
                .map(|result| result.id.as_str())
                .collect()
        };
        let (changed, removed) = (with(Outcome::Changed), with(Outcome::Removed));
        let failed = with(Outcome::Failed);
        self.failed.extend(first(&failed));
        self.failed.truncate(IDS_MAX);
        if !failed.is_empty() {
            self.state = RunState::Failed;
        }
        if changed.is_empty() && removed.is_empty() {
            return;
        }
        let has_changed = std::mem::replace(&mut self.has_changed, true);
        let mut all = self.last_change.take().filter(|_| has_changed).unwrap_or(Change {
            time: self.time,
            key: None,
            changed: Vec::new(),
            changed_count: 0,
            removed: Vec::new(),
            removed_count: 0,
        });
        all.key = key.map(str::to_owned).or(all.key);
        all.changed.extend(first(&changed));
        all.changed.truncate(IDS_MAX);
        all.changed_count += changed.len();
        all.removed.extend(first(&removed));
        all.removed.truncate(IDS_MAX);
        all.removed_count += removed.len();
        self.last_change = Some(all);
    }

    /// Adds a problem, and logs it.
    pub(super) fn add_problem(&mut self, source: &str, problem: &str) {
        log::warn!(source = source; "the source {source}: {problem}");
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(shorten(problem, PROBLEM_LENGTH));
        }
    }
}

impl SourceRuns {
    /// Returns the last runs by the names of the sources, with the result of the last pull of each.
    pub(crate) fn to_json(&self, pulls: Option<&Pulls>) -> Value {
        let one = |(name, run): (&String, &SourceRun)| {
            let mut json = json!(run);
            json["pull"] = json!(pulls.and_then(|pulls| pulls.sources.get(name)));
            (name.clone(), json)
        };
        self.sources.iter().map(one).collect()
    }
}

impl SourceRun {
    /// Describes the run for an operator, in parts.
    pub(crate) fn text(&self, now: u64) -> Vec<String> {
        let state = match self.state {
            RunState::Ok => "ok",
            RunState::Failed => "failed",
            RunState::Nothing => "nothing to run",
        };
        let mut parts = vec![format!("{state}, {}", relative(self.time, now))];
        if let Some(PatternInForce { from, key, signed, .. }) = &self.pattern {
            let how = if *from == Way::Push { "pushed" } else { "pulled" };
            let key = key.as_deref().unwrap_or("a key that is not trusted");
            let signed = signed.map_or(String::new(), |at| format!(" at {}", format_utc(at)));
            let place = self.kept.map_or("not kept".to_owned(), |place| format!("kept {place}"));
            parts.push(format!("Pattern {how}, signed with {key}{signed}, {place}"));
        }
        if let Some(change) = &self.last_change {
            parts.push(change.text(now));
        }
        if !self.failed.is_empty() {
            parts.push(format!("failed: {}", self.failed.join(", ")));
        }
        if self.removal_outstanding {
            parts.push("not everything is removed yet".to_owned());
        }
        parts.extend(self.problems.iter().cloned());
        parts
    }
}

impl Change {
    fn text(&self, now: u64) -> String {
        let list = |verb: &str, ids: &[String], count: usize| {
            let more = if count > ids.len() { ", …" } else { "" };
            (count > 0).then(|| format!("{verb} {count} ({}{more})", ids.join(", ")))
        };
        let parts = [
            list("changed", &self.changed, self.changed_count),
            list("removed", &self.removed, self.removed_count),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let by = self.key.as_ref().map_or(String::new(), |key| format!(" by {key}"));
        format!("{}{by}, {}", parts.join(", "), relative(self.time, now))
    }
}

impl PullResult {
    pub(super) fn new(time: u64, error: Option<&str>) -> Self {
        Self { time, error: error.map(|error| shorten(error, PROBLEM_LENGTH)) }
    }
}

fn first(ids: &[&str]) -> Vec<String> {
    ids.iter().take(IDS_MAX).map(|id| shorten(id, ID_LENGTH)).collect()
}

/// Formats a time and how long ago it was.
fn relative(time: u64, now: u64) -> String {
    format!("{} ({} s ago)", format_utc(time), now.saturating_sub(time))
}

/// Returns the beginning of a text, without control characters.
pub(super) fn shorten(text: &str, length: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(length).map(plain).collect()
}
