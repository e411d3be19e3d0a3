//! The deltas of a build: stage 4 makes them from the release that is published, and stage 5 tests an update with them.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use protocol::Release;
use protocol::release::PublishedFile;
use serde::{Deserialize, Serialize};

use super::build::Build;
use crate::log_file::{LogFile, Origin};
use crate::publish::deltas::{self, Added, NewFiles};

/// The file with the result, beside the artifacts, for a test in another process.
const FILE: &str = "deltas.json";

/// The content of [`FILE`].
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    /// Whether the release must have a delta of the initrd; see [`Added::is_expected`].
    expected: bool,
    /// The lines about all deltas.
    deltas: Vec<String>,
}

/// Gives a release the deltas from the one that is published.
pub(super) fn add(build: &Build<'_>, release: &mut Release, log: &mut LogFile) -> Result<()> {
    let Some(predecessors) = &build.predecessors else { return Ok(()) };
    let directory = &build.directories.artifacts;
    let path = |file: PublishedFile<'_>| Ok(directory.join(file.name));
    let files = NewFiles { path: &path, deltas: directory, work: &build.directories.work };
    let Added { lines, is_expected } = log.timed("deltas", Origin::Built, |log| {
        let log = Mutex::new(log);
        let progress = |text: &str| log.lock().unwrap_or_else(PoisonError::into_inner).step(text);
        deltas::add(predecessors, release, &files, &progress)
    });
    for line in &lines {
        log.line(line);
    }
    let made = Made { expected: is_expected, deltas: lines };
    let text = serde_json::to_string_pretty(&made)? + "\n";
    let path = directory.join(FILE);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Returns whether a host that updates from the published release must find a delta of the initrd. Returns `false`
/// for a build without deltas, and if the file is missing, as after a build on another machine.
pub(super) fn are_expected(artifacts: &Path) -> bool {
    let text = fs::read(artifacts.join(FILE)).ok();
    let made: Option<Made> = text.and_then(|text| serde_json::from_slice(&text).ok());
    made.is_some_and(|made| made.expected)
}
