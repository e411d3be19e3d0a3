//! Renders Patterns that are written in Jsonnet.
//!
//! Jsonnet is a programming language: a few characters can loop forever or fill the memory. A Pattern is rendered
//! only after its signature was verified, but a mistake must not stop the listener. So a child process renders it,
//! with limits on its memory, its time and its output that the kernel enforces, and without the ability to open a
//! file; see [`child`]. Rendered JSON needs no child.
//!
//! Imports find only files of the token ([`files`]). Native functions return facts about the host and the
//! configuration; those of Etcha that read files, run programs or use the network are refused ([`natives`]).

pub mod child;
mod evaluate;
mod files;
mod input;
mod message;
mod natives;
mod sysinfo;

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::pattern::{Pattern, PatternError, PatternFiles};
use serde_json::{Map, Value, json};

pub use evaluate::{Limits, evaluate};
pub use input::Input;

use crate::process::{Process, ProcessError};
use child::{RENDERED_MAX, RenderError};
use files::Files;

/// The maximum time for rendering. The limit on processor time ends a busy process earlier.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The program that renders, in the directory of this program.
const RENDERER: &str = "etchaos-render";
/// The environment variables of this program that a Pattern can read. Others may contain secrets, such as the
/// password of a proxy.
const ENVIRONMENT: [&str; 6] = ["HOME", "LANG", "LOGNAME", "PATH", "TZ", "USER"];

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
    let program = std::env::current_exe()
        .map_err(|error| RenderError::Process(format!("cannot find {RENDERER}: {error}")))?
        .with_file_name(RENDERER);
    // A little more than the largest answer, so that the answer is never cut.
    let process = Process::new(&program, TIMEOUT)
        .output_max(RENDERED_MAX + 1024)
        .input(&input)
        .map_err(|error| RenderError::Process(error.to_string()))?;
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
