//! Packages, and the source packages that they are built from.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::check::ReleaseError;
use crate::excerpt::excerpt;
use crate::json;

/// The name and the version of a source package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourcePackage {
    /// Its name.
    pub name: String,
    /// Its version, as the distribution writes it.
    pub version: String,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as the distribution writes it.
    pub version: String,
    /// Its architecture, as the distribution writes it.
    pub arch: String,
    /// The source package that it was built from, if its name or its version differs. Distributions
    /// track vulnerabilities by source package.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::object")]
    pub source: Option<SourcePackage>,
}

impl Package {
    /// Reads a list with one `name version arch [source [source-version]]` per line and returns it
    /// sorted and without duplicates. `etchaBuildManifest` has lines of three words.
    ///
    /// # Errors
    /// Fails if a line does not have three to five words.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ReleaseError> {
        let mut packages = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, version, arch, source) = match words[..] {
                [name, version, arch] => (name, version, arch, (name, version)),
                [name, version, arch, source] => (name, version, arch, (source, version)),
                [name, version, arch, source, built] => (name, version, arch, (source, built)),
                _ => return Err(ReleaseError::PackageLine(excerpt(line))),
            };
            let source = (source != (name, version))
                .then(|| SourcePackage { name: source.0.to_owned(), version: source.1.to_owned() });
            packages.push(Self {
                name: name.to_owned(),
                version: version.to_owned(),
                arch: arch.to_owned(),
                source,
            });
        }
        packages.sort();
        packages.dedup();
        Ok(packages)
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.arch)
    }
}
