//! The program that runs scripts.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

/// The program that runs the scripts of Commands. It gets a script as its last argument.
///
/// A Pattern has one for all of its Commands, and a Command may have another one; see [`Exec::over`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The path of the program, and arguments, separated by spaces: `/usr/bin/bash -c`. Empty in the exec
    /// of a Command that uses the program of its Pattern.
    pub command: String,
    /// More arguments, separated by spaces.
    pub flags: String,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub work_dir: Option<String>,
    /// Whether Commands may have an exec of their own. As upstream, the default is that of the main
    /// configuration: they may.
    pub allow_override: Option<bool>,
}

impl Default for Exec {
    /// Returns the default of Etcha: a script ends at the first command that fails, also in a pipeline.
    fn default() -> Self {
        Self::new("/usr/bin/bash", "-e -o pipefail -c")
    }
}

impl Exec {
    /// Creates an instance without environment variables.
    pub fn new(command: impl Into<String>, flags: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            flags: flags.into(),
            env: BTreeMap::new(),
            work_dir: None,
            allow_override: None,
        }
    }

    /// Returns the program and its arguments, except for the script.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.command.split_ascii_whitespace().chain(self.flags.split_ascii_whitespace())
    }

    /// Returns this exec with what it leaves out taken from another one. Environment variables of both
    /// are merged; those of this one take precedence.
    #[must_use]
    pub fn over(&self, parent: &Self) -> Self {
        let program = if self.command.is_empty() { parent } else { self };
        let mut env = parent.env.clone();
        env.extend(self.env.clone());
        Self {
            command: program.command.clone(),
            flags: program.flags.clone(),
            env,
            work_dir: self.work_dir.clone().or_else(|| parent.work_dir.clone()),
            allow_override: self.allow_override,
        }
    }
}

impl Serialize for Exec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.command.is_empty() {
            map.serialize_entry("command", &self.command)?;
            map.serialize_entry("flags", &self.flags)?;
        }
        if !self.env.is_empty() {
            map.serialize_entry("env", &self.env)?;
        }
        if let Some(directory) = &self.work_dir {
            map.serialize_entry("workDir", directory)?;
        }
        if let Some(allow) = self.allow_override {
            map.serialize_entry("allowOverride", &allow)?;
        }
        map.end()
    }
}
