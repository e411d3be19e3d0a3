//! How far each target was proven.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::Target;
use serde::{Deserialize, Serialize};

use super::VariantFile;
use super::directories::Variants;

/// The name of the file beside the variants of this repository. README.md has the same table, and a test
/// compares both.
const FILE: &str = "proven.json";

/// How far a target was proven by the maintainers of this repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proof {
    /// An image was built, booted and updated.
    Booted,
    /// The distribution's package manager made a tree that was refined and packaged, of packages that a test
    /// makes (`builder/tests/families/`).
    Bootstrapped,
    /// Nothing of it was tried.
    Unproven,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Booted => "booted here",
            Self::Bootstrapped => "bootstrap proven here",
            Self::Unproven => "not proven",
        })
    }
}

/// What was proven, by target.
#[derive(Debug)]
pub(crate) struct Proofs(BTreeMap<String, Proof>);

impl Proofs {
    /// Reads the proofs of the variants of this repository.
    pub(crate) fn load(variants: &Variants) -> Result<Self> {
        let path = variants.built_in().join(FILE);
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        let proofs = serde_json::from_str(&text);
        Ok(Self(proofs.with_context(|| format!("{} is not valid", path.display()))?))
    }

    /// Returns how far a target of a variant was proven. A variant of a publisher, or one with drop-ins, is
    /// not what was proven.
    pub(crate) fn of(&self, variant: &VariantFile, target: &Target, variants: &Variants) -> Proof {
        let is_ours =
            |path: &Path| path.parent().is_some_and(|parent| parent == variants.built_in());
        match &variant.sources[..] {
            [file] if is_ours(file) => {
                self.0.get(&target.to_string()).copied().unwrap_or(Proof::Unproven)
            }
            _ => Proof::Unproven,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Arch;

    #[test]
    fn every_target_of_this_repository_has_an_entry_and_no_other() {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
        let variants = Variants::new(built_in, None).unwrap();
        let mut expected = Vec::new();
        for name in variants.names().unwrap() {
            let variant = name.parse().unwrap();
            let file = VariantFile::load_any(&variants, &variant, Arch::Amd64).unwrap();
            expected.extend(file.arches.iter().map(|arch| format!("{name}_{arch}")));
        }
        expected.sort();
        let found: Vec<String> = Proofs::load(&variants).unwrap().0.into_keys().collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_variant_with_drop_ins_is_not_what_was_proven() {
        let own = tempfile::tempdir().unwrap();
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("variants");
        let variants = Variants::new(built_in, Some(own.path())).unwrap();
        let target = Target { variant: "deb".parse().unwrap(), arch: Arch::Amd64 };
        let proof = || {
            let file = VariantFile::load(&variants, &target.variant, target.arch).unwrap();
            Proofs::load(&variants).unwrap().of(&file, &target, &variants)
        };
        assert_eq!(proof(), Proof::Booted);
        std::fs::create_dir(own.path().join("deb.d")).unwrap();
        std::fs::write(own.path().join("deb.d/a.jsonnet"), "{}").unwrap();
        assert_eq!(proof(), Proof::Unproven);
    }
}
