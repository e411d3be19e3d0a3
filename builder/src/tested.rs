//! The record of a test, by which "builder publish" recognizes a tested release.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::packaged::{Packaged, arguments};

/// The file of the record, beside the artifacts.
const RECORD: &str = "tested.json";

/// The record of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The digest of the files that were tested; see [`Packaged::content`].
    pub content: String,
    /// The build number of the published release that was updated to this one; absent if there was
    /// none.
    pub updated_from: Option<u64>,
    /// The number of steps that passed.
    pub steps: usize,
}

/// A release that has passed the testbed, or that a user publishes without a test.
#[derive(Debug)]
pub(crate) struct Tested {
    packaged: Packaged,
    record: Option<Record>,
}

impl Tested {
    /// Writes the record of a test that passed.
    pub(crate) fn passed(packaged: Packaged, record: Record) -> Result<Self> {
        let path = path(&packaged);
        let text = serde_json::to_string_pretty(&record)? + "\n";
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { packaged, record: Some(record) })
    }

    /// Reads the record of a release.
    ///
    /// # Errors
    /// Fails if the release was not tested, or was built again after the test.
    pub(crate) fn load(packaged: Packaged) -> Result<Self> {
        let path = path(&packaged);
        let target = arguments(&packaged.release().target());
        let way_out =
            format!("run \"builder test {target}\", or publish it with --untested anyway");
        ensure!(
            path.exists(),
            "the release in {} was not tested; {way_out}",
            packaged.directory.display()
        );
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let record: Record = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged; {way_out}", path.display()))?;
        ensure!(
            record.content == packaged.content(),
            "the release was built again after the test that {} records; {way_out}",
            path.display()
        );
        Ok(Self { packaged, record: Some(record) })
    }

    /// Accepts a release that was not tested.
    pub(crate) fn untested(packaged: Packaged) -> Self {
        Self { packaged, record: None }
    }

    /// Returns the release.
    pub(crate) fn packaged(&self) -> &Packaged {
        &self.packaged
    }

    /// Returns the record of the test; `None` if the release was not tested.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }
}

fn path(packaged: &Packaged) -> PathBuf {
    packaged.directory.join(RECORD)
}
