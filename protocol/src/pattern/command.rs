//! Patterns and their Commands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json;

/// The maximum nesting depth of groups and lists.
pub(super) const DEPTH_MAX: usize = 8;
/// The maximum number of Commands in a Pattern.
pub(super) const COMMANDS_MAX: usize = 1000;

/// The claim `etchaPattern`: Jsonnet files and the name of the main file. The builder writes rendered
/// JSON, which is also valid Jsonnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternFiles {
    /// The name of the main file.
    pub entrypoint: String,
    /// The contents of the files by their names.
    pub files: BTreeMap<String, String>,
}

/// A rendered Pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pattern {
    /// The audience of the token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// The issuer of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The subject of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The validity of the token in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// The program that runs Commands.
    pub exec: Exec,
    /// The Commands of a build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<Entry>,
    /// The Commands of a host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Entry>,
}

/// The program that runs the scripts of Commands. It gets a script as its last argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exec {
    /// The path of the program.
    pub command: String,
    /// The other arguments, separated by spaces.
    pub flags: String,
}

impl Default for Exec {
    fn default() -> Self {
        Self { command: "/bin/bash".into(), flags: "-c".into() }
    }
}

/// A Command or a nested list, which is flattened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// A Command.
    Command(Box<Command>),
    /// A nested list.
    List(Vec<Entry>),
}

/// A Command. Its `change` runs if its `check` fails or if `always` is set. A Command with neither
/// runs only if another Command names its id in `onChange` or `onFail`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Command {
    /// The name of the Command, which need not be unique.
    pub id: String,
    /// A script that succeeds if no change is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// A script that makes the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Whether `change` runs without running `check`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// The ids of later Commands that run after a change of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_change: Vec<String>,
    /// The ids of later Commands that run after a failure of this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_fail: Vec<String>,
    /// The prefix of environment variables for later Commands: `<PREFIX>_CHECK` and
    /// `<PREFIX>_CHANGE` are exit codes, and `<PREFIX>_CHANGE_OUT` is the output of `change`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_prefix: Option<String>,
    /// The Commands that run in place of this one, which makes this Command a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Entry>,
}

/// Why a Pattern cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The main file is missing.
    #[error("the Pattern has no file {0:?}, which is its entrypoint")]
    Entrypoint(String),
    /// The main file is not rendered, or not a Pattern.
    #[error("the Pattern's file {file:?} is not a rendered Pattern: {why}")]
    Format {
        /// The name of the file.
        file: String,
        /// The error of the JSON reader.
        why: String,
    },
    /// Groups and lists are nested too deep.
    #[error("the Pattern nests its Commands more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// The Pattern has too many Commands.
    #[error("the Pattern has more than {COMMANDS_MAX} Commands")]
    TooMany,
    /// A group also has a check or change of its own.
    #[error(
        "the Command {0:?} has \"commands\" and also its own check, change or always: move those into a Command of the group"
    )]
    GroupWithAction(String),
}

impl PatternFiles {
    /// Reads the rendered Pattern in the main file.
    ///
    /// # Errors
    /// Fails if the main file is missing or is not a rendered Pattern.
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
        let text = serde_json::to_string_pretty(pattern).expect("a Pattern has only string keys");
        let entrypoint = "main.jsonnet".to_owned();
        Self { files: BTreeMap::from([(entrypoint.clone(), text)]), entrypoint }
    }
}
