//! Etcha's Patterns: lists of Commands, and the order they run in.
//!
//! A Pattern is written in Jsonnet and rendered by the builder; a host reads rendered JSON alone.
//! How a Command's text is run is the caller's: a [`Shell`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json;

pub use self::run::{CommandResult, Mode, Outcome, Output, Report, RunError, Shell, run};

mod run;

/// The claim `etchaPattern`: Jsonnet files and the one to begin with. What the builder writes is
/// rendered JSON, which is also Jsonnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternFiles {
    /// The name of the file to begin with.
    pub entrypoint: String,
    /// Contents by name.
    pub files: BTreeMap<String, String>,
}

/// A Pattern, rendered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pattern {
    /// Whom the token is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// Who issues it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// For how many seconds the token is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// How texts are run.
    pub exec: Exec,
    /// What a build runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<Entry>,
    /// What a host runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Entry>,
}

/// The program that runs a Command's text, as its last argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// The program's path.
    pub command: String,
    /// Its arguments, separated by spaces.
    pub flags: String,
}

impl Default for Exec {
    fn default() -> Self {
        Self { command: "/bin/bash".into(), flags: "-c".into() }
    }
}

/// A Command, or a list of them that is flattened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// One Command.
    Command(Box<Command>),
    /// A nested list.
    List(Vec<Entry>),
}

/// A Command: `check` failing, or `always`, runs `change`. Without either it runs only when another
/// names its id in `onChange` or `onFail`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Command {
    /// Its name; need not be unique.
    pub id: String,
    /// Succeeds when nothing is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Run `change` without asking `check`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Ids of later Commands to run after a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_change: Vec<String>,
    /// Ids of later Commands to run after a failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_fail: Vec<String>,
    /// Hands `<PREFIX>_CHECK`, `<PREFIX>_CHANGE` (exit codes) and `<PREFIX>_CHANGE_OUT` to later
    /// Commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_prefix: Option<String>,
    /// Makes this a group: its Commands run in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Entry>,
}

/// A Pattern that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The entry point is not among the files.
    #[error("the Pattern's entrypoint {0:?} is not among its files")]
    Entrypoint(String),
    /// Not rendered, or not a Pattern.
    #[error("the Pattern's file {file:?} is not a rendered Pattern: {why}")]
    Format {
        /// The file's name.
        file: String,
        /// What the parser says.
        why: String,
    },
    /// Groups in groups in groups.
    #[error("the Pattern nests its Commands deeper than {} levels", run::DEPTH_MAX)]
    TooDeep,
    /// Too many Commands.
    #[error("the Pattern has more than {} Commands", run::COMMANDS_MAX)]
    TooMany,
    /// A group that also does something itself.
    #[error(
        "the Command {0:?} has both \"commands\" and its own check, change or always: put those into a Command of the group"
    )]
    GroupWithAction(String),
}

impl PatternFiles {
    /// Reads a rendered Pattern.
    pub fn pattern(&self) -> Result<Pattern, PatternError> {
        let text = self
            .files
            .get(&self.entrypoint)
            .ok_or_else(|| PatternError::Entrypoint(self.entrypoint.clone()))?;
        json::from_slice(text.as_bytes())
            .map_err(|e| PatternError::Format { file: self.entrypoint.clone(), why: e.to_string() })
    }
}

impl From<&Pattern> for PatternFiles {
    fn from(pattern: &Pattern) -> Self {
        let text = serde_json::to_string_pretty(pattern).expect("a Pattern has string keys only");
        let entrypoint = "main.jsonnet".to_owned();
        Self { files: BTreeMap::from([(entrypoint.clone(), text)]), entrypoint }
    }
}
