//! What is rendered.

use std::collections::BTreeMap;

use protocol::pattern::PatternFiles;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is rendered.
#[derive(Debug, Serialize, Deserialize)]
pub struct Input {
    /// The Jsonnet files and the name of the main file.
    pub pattern: PatternFiles,
    /// The result of the native function `getConfig`.
    pub config: Value,
    /// The environment variables of the native function `getEnv`.
    pub env: BTreeMap<String, String>,
}
