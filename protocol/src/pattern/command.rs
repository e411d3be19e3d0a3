//! Patterns and their Commands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::exec::Exec;
use super::limits::{ALL_TARGETS_MAX, COMMANDS_MAX, DEPTH_MAX};
use super::read;
use crate::json;

/// The claim `etchaPattern`: Jsonnet files and the name of the main file. What the builder writes is
/// rendered JSON, which is also valid Jsonnet; Etcha's client sends Jsonnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternFiles {
    /// The name of the main file.
    pub entrypoint: String,
    /// The contents of the files by their names.
    pub files: BTreeMap<String, String>,
}

/// A rendered Pattern.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
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
    /// The identifier of the token, `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The validity of the token in seconds. It is read from `expiresInSec`, or from `expiresIn`, which is
    /// a number of seconds or a text such as `5m`.
    #[serde(rename = "expiresInSec", skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// Variables for rendering the Pattern, which the signer adds to the claim `etchaRunVars`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub run_vars: Map<String, Value>,
    /// The program that runs the Commands of both lists. Etcha has only the two that follow.
    pub exec: Exec,
    /// The program that runs the Commands of `build`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_exec: Option<Exec>,
    /// The program that runs the Commands of `run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_exec: Option<Exec>,
    /// The Commands of a build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<Entry>,
    /// The Commands of a host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub run: Vec<Entry>,
}

/// A Command or a nested list, which is flattened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    /// A Command.
    Command(Box<Command>),
    /// A nested list.
    List(Vec<Entry>),
}

/// A Command. Its `change` runs if its `check` fails or if `always` is set. A Command with neither
/// runs only if another Command names it in `onChange` or `onFail`.
///
/// A text in place of a Command is a Command with `always`, whose `change` and id are the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// The name of the Command, which need not be unique.
    pub id: String,
    /// A script that succeeds if no change is needed, and if there is something to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// A script that makes the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// A script that undoes the change, for when the Command is no longer in the Pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<String>,
    /// The standard input of the three scripts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Whether `change` and `remove` run without running `check`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Whether `remove` does not run for a Command whose `change` is another text than before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub change_ignore: bool,
    /// Whether `remove` runs after the Commands of the new Pattern instead of before them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remove_after: bool,
    /// What a change of this Command triggers: ids of later Commands in its list, regular expressions that
    /// match some, or events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_change: Vec<String>,
    /// What a failure of this Command triggers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_fail: Vec<String>,
    /// What a removal of this Command triggers: removals of other Commands in its list, or events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_remove: Vec<String>,
    /// The prefix of the environment variables that this Command sets for later ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_prefix: Option<String>,
    /// Environment variables of this Command.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The program that runs the scripts, if it is another one than that of the Pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// The Commands that run in place of this one, which makes this Command a group. A group has no other
    /// field than its id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Entry>,
}

/// Why a Pattern cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The main file is missing.
    #[error("the Pattern has no file {0:?}, which is its entrypoint")]
    Entrypoint(String),
    /// The main file is not rendered.
    #[error("the Pattern's file {file:?} is not a rendered Pattern: {why}")]
    Format {
        /// The name of the file.
        file: String,
        /// The error of the JSON reader.
        why: String,
    },
    /// A part of the Pattern has a wrong type or value, or is not supported.
    #[error("{path} of the Pattern {why}")]
    Invalid {
        /// Where it is, such as `run[2].commands[0].onChange`.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Groups and lists are nested too deep.
    #[error("the Pattern nests its Commands more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// The Pattern has too many Commands.
    #[error("the Pattern has more than {COMMANDS_MAX} Commands")]
    TooMany,
    /// The Pattern has too many targets.
    #[error("the Pattern has more than {ALL_TARGETS_MAX} targets in onChange, onFail and onRemove")]
    TooManyTargets,
}

impl PatternFiles {
    /// Reads the rendered Pattern in the main file. It is an object, or a list of Commands, which is then
    /// the list `run`.
    ///
    /// # Errors
    /// Fails if the main file is missing, is not JSON, or has anything that is not supported.
    pub fn pattern(&self) -> Result<Pattern, PatternError> {
        let text = self
            .files
            .get(&self.entrypoint)
            .ok_or_else(|| PatternError::Entrypoint(self.entrypoint.clone()))?;
        let value = json::from_slice(text.as_bytes()).map_err(|e| PatternError::Format {
            file: self.entrypoint.clone(),
            why: e.to_string(),
        })?;
        Pattern::from_value(&value)
    }
}

impl Pattern {
    /// Reads a rendered Pattern: an object, or a list of Commands, which is then the list `run`.
    ///
    /// # Errors
    /// Fails at the first part that is wrong or not supported; the error has its path.
    pub fn from_value(value: &Value) -> Result<Self, PatternError> {
        read::pattern(value)
    }

    /// Reads a Pattern from an object that also has other fields, which are ignored.
    ///
    /// # Errors
    /// As [`Pattern::from_value`].
    pub fn from_fields_of(object: &Map<String, Value>) -> Result<Self, PatternError> {
        let known = object.iter().filter(|(name, _)| read::PATTERN_FIELDS.contains(&name.as_str()));
        let known = known.map(|(name, value)| (name.clone(), value.clone())).collect();
        read::pattern(&Value::Object(known))
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        read::command_or_list(&value).map_err(serde::de::Error::custom)
    }
}

impl From<&Pattern> for PatternFiles {
    fn from(pattern: &Pattern) -> Self {
        let text = serde_json::to_string_pretty(pattern).expect("a Pattern has only string keys");
        let entrypoint = "main.jsonnet".to_owned();
        Self { files: BTreeMap::from([(entrypoint.clone(), text)]), entrypoint }
    }
}
