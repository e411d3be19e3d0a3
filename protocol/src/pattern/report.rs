//! What a run did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether Commands may make changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Run `check` only.
    Check,
    /// Run `check`, and `change` or `remove` if it is needed.
    Change,
}

/// The outcome of a Command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its check succeeded, so no change was needed; or its check failed, so there was nothing to remove.
    Ok,
    /// A change or removal is needed, but did not run: in [`Mode::Check`], or because the Command has a check
    /// that failed and no change.
    Needed,
    /// Its change ran.
    Changed,
    /// Its removal ran.
    Removed,
    /// Its change or removal failed.
    Failed,
    /// Nothing required it to run.
    Skipped,
}

/// The result of a Command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The id of the Command.
    pub id: String,
    /// The outcome.
    pub outcome: Outcome,
    /// The output of its change or removal, or of its check if neither ran. It does not begin or end with
    /// white space.
    pub output: String,
}

/// The results of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// The results of the removals, in the order in which they ran. They end with the first failure.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<CommandResult>,
    /// The results in the order of the Pattern. In [`Mode::Change`] they end with the first failure and the
    /// Commands that run after it.
    pub results: Vec<CommandResult>,
    /// The output of Commands with `onChange: ["etcha:buildManifest"]`, each ended by a newline.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub build_manifest: String,
    /// The output of Commands with `onChange: ["etcha:runVar_NAME"]`, by NAME.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub run_vars: BTreeMap<String, String>,
}

impl Report {
    /// Returns the results of the Commands whose change or removal failed.
    pub fn failures(&self) -> impl Iterator<Item = &CommandResult> {
        self.with_outcome(Outcome::Failed)
    }

    /// Returns the results of the Commands that did not do what they should: whose change or removal failed, or
    /// is needed and did not run.
    pub fn unmet(&self) -> impl Iterator<Item = &CommandResult> {
        let all = self.removed.iter().chain(&self.results);
        all.filter(|result| matches!(result.outcome, Outcome::Failed | Outcome::Needed))
    }

    /// Returns the results with an outcome: first those of removals.
    pub fn with_outcome(&self, outcome: Outcome) -> impl Iterator<Item = &CommandResult> {
        let all = self.removed.iter().chain(&self.results);
        all.filter(move |result| result.outcome == outcome)
    }
}
