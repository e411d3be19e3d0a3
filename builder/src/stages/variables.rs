//! The variables of the environment that only the stage refine knows.
//!
//! They stay in the work directory, so that a single Command can run later.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The name of the file in the work directory.
const FILE: &str = "variables.json";

/// Writes the variables to the work directory.
pub(super) fn store(work: &Path, variables: &BTreeMap<String, String>) -> Result<()> {
    let path = work.join(FILE);
    fs::write(&path, serde_json::to_string(variables)?)
        .with_context(|| format!("writing {}", path.display()))
}

/// Reads the variables of the last build.
pub(super) fn load(work: &Path) -> Result<BTreeMap<String, String>> {
    let path = work.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| {
        format!("reading {}: the last build did not get to the stage refine", path.display())
    })?;
    serde_json::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written() {
        let work = tempfile::tempdir().unwrap();
        let error = format!("{:#}", load(work.path()).unwrap_err());
        assert!(error.contains("did not get to the stage refine"), "{error}");
        let variables = BTreeMap::from([("ESP_MIB".to_owned(), "1021".to_owned())]);
        store(work.path(), &variables).unwrap();
        assert_eq!(load(work.path()).unwrap(), variables);
    }
}
