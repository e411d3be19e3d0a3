//! Renders Patterns that are written in Jsonnet.
//!
//! Jsonnet is a programming language: a few characters can loop forever or fill the memory. A Pattern is rendered
//! only after its signature was verified, but a mistake must not stop the listener. So a child process renders it,
//! this program with a hidden subcommand, with limits on its memory, its time and its output that the kernel
//! enforces, and without the ability to open a file; see [`child`]. Rendered JSON needs no child.
//!
//! Imports find only files of the token ([`files`]). Native functions return facts about the host and the
//! configuration; those of Etcha that read files, run programs or use the network are refused ([`natives`]).

pub(crate) mod child;
mod evaluate;
mod files;
mod message;
mod natives;
mod sysinfo;

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::pattern::{Pattern, PatternError, PatternFiles};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use evaluate::{Limits, evaluate};

use crate::process::{Process, ProcessError};
use files::Files;

/// The maximum time for rendering. The limit on processor time ends a busy process earlier.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum size of a rendered Pattern in bytes. The largest token has 1 MiB.
const RENDERED_MAX: usize = 4 << 20;
/// The environment variables of this program that a Pattern can read. Others may contain secrets, such as the
/// password of a proxy.
const ENVIRONMENT: [&str; 6] = ["HOME", "LANG", "LOGNAME", "PATH", "TZ", "USER"];

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

/// Why a Pattern could not be rendered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// What was rendered is not a Pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The Jsonnet is wrong.
    #[error("the Pattern's Jsonnet cannot be rendered: {0}")]
    Jsonnet(String),
    /// It used more than a Pattern may.
    #[error("the Pattern's Jsonnet was stopped: {0}")]
    Limit(String),
    /// The child process could not be run.
    #[error("cannot start the process that renders Jsonnet: {0}")]
    Process(String),
}

/// Renders a Pattern of a source. `vars` are the variables that it reads with `getConfig`: those of the token's
/// claim `etchaRunVars`, and over them those of the source.
///
/// # Errors
/// Fails if the Pattern cannot be rendered within the limits, or if the result is not a Pattern.
pub(crate) fn render(
    files: &PatternFiles,
    source: &str,
    vars: &Map<String, Value>,
) -> Result<Pattern, RenderError> {
    let main = Files::new(files).and_then(|found| found.main()).map_err(RenderError::Jsonnet)?;
    if let Ok(value) = protocol::json::from_slice::<Value>(main.text.as_bytes()) {
        return Ok(Pattern::from_value(&value)?);
    }
    let rendered = run_child(&Input {
        pattern: files.clone(),
        config: config(source, vars),
        env: environment(|name| std::env::var(name).ok()),
    })?;
    let format = |why: String| PatternError::Format { file: files.entrypoint.clone(), why };
    let value: Value = protocol::json::from_slice(rendered.as_bytes())
        .map_err(|error| format(error.to_string()))?;
    Ok(Pattern::from_value(&value)?)
}

fn run_child(input: &Input) -> Result<String, RenderError> {
    let input =
        serde_json::to_vec(input).map_err(|error| RenderError::Process(error.to_string()))?;
    // A little more than the largest answer, so that the answer is never cut.
    let process = Process::new("/proc/self/exe", TIMEOUT)
        .args(["render"])
        .stdin(Some(input))
        .output_max(RENDERED_MAX + 1024);
    let answer = process.stdout().map_err(|error| match error {
        ProcessError::Start { .. } => RenderError::Process(error.to_string()),
        ProcessError::TimedOut { seconds, .. } => {
            RenderError::Limit(format!("it did not end within {seconds} s"))
        }
        ProcessError::Failed { status, stderr, .. } => {
            RenderError::Limit(child::explain(status, &stderr))
        }
    })?;
    child::parse_answer(&answer)
}

/// Returns the result of `getConfig`: what a Pattern can know of the configuration.
fn config(source: &str, vars: &Map<String, Value>) -> Value {
    let mut vars = vars.clone();
    vars.insert("source".into(), source.into());
    vars.insert("sysinfo".into(), sysinfo::gather());
    vars.insert("test".into(), false.into());
    json!({"targets": {}, "vars": vars})
}

fn environment(get: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let known = ENVIRONMENT.iter().filter_map(|name| Some(((*name).to_owned(), get(name)?)));
    known.collect()
}

#[cfg(test)]
mod tests;
