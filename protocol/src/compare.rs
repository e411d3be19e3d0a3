//! Is this the same release, and if not, what differs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::release::{Package, Release, Role};

/// One thing in which two releases differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Difference {
    /// A package that only the new release has.
    Added {
        /// The package.
        package: Package,
    },
    /// A package that only the old release has.
    Removed {
        /// The package.
        package: Package,
    },
    /// A package with another version.
    Changed {
        /// Its name.
        name: String,
        /// The version in the old release.
        from: String,
        /// The version in the new release.
        to: String,
    },
    /// Variant or architecture.
    Target {
        /// The old target.
        from: String,
        /// The new target.
        to: String,
    },
    /// The recipe, by its digest.
    Recipe,
    /// The bytes of an artifact.
    Artifact {
        /// Which one.
        role: Role,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { package } => write!(f, "+ {} {}", package.name, package.version),
            Self::Removed { package } => write!(f, "- {} {}", package.name, package.version),
            Self::Changed { name, from, to } => write!(f, "  {name} {from} → {to}"),
            Self::Target { from, to } => write!(f, "  target {from} → {to}"),
            Self::Recipe => f.write_str("  the recipe"),
            Self::Artifact { role } => write!(f, "  the bytes of the {role}"),
        }
    }
}

/// What differs between two releases; nothing, if they are the same release.
///
/// Identity is variant, architecture, packages, recipe and artifact digests. Build number, version,
/// names and URLs do not count. An artifact counts where both sides have it: a host's manifest
/// names no disk image.
pub fn differences(old: &Release, new: &Release) -> Vec<Difference> {
    let mut found = Vec::new();
    if old.target() != new.target() {
        found.push(Difference::Target {
            from: old.target().to_string(),
            to: new.target().to_string(),
        });
    }
    packages(&old.packages, &new.packages, &mut found);
    packages(&old.bootloader, &new.bootloader, &mut found);
    if old.recipe != new.recipe {
        found.push(Difference::Recipe);
    }
    for artifact in &new.artifacts {
        if old.artifact(artifact.role).is_some_and(|other| other.sha256 != artifact.sha256) {
            found.push(Difference::Artifact { role: artifact.role });
        }
    }
    found
}

/// Whether two manifests say the same release.
pub fn same_release(a: &Release, b: &Release) -> bool {
    differences(a, b).is_empty()
}

fn packages(old: &[Package], new: &[Package], found: &mut Vec<Difference>) {
    // A name can be there for two architectures (multiarch).
    let by_name = |list: &[Package]| -> BTreeMap<(String, String), Package> {
        list.iter().map(|p| ((p.name.clone(), p.arch.clone()), p.clone())).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    for (key, package) in &new {
        match old.get(key) {
            None => found.push(Difference::Added { package: package.clone() }),
            Some(before) if before.version != package.version => found.push(Difference::Changed {
                name: package.name.clone(),
                from: before.version.clone(),
                to: package.version.clone(),
            }),
            Some(_) => {}
        }
    }
    for (_, package) in old.into_iter().filter(|(key, _)| !new.contains_key(key)) {
        found.push(Difference::Removed { package });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::tests::example;

    #[test]
    fn build_version_and_urls_do_not_count() {
        let old = example();
        let mut new = Release { build: 99, version: "else".into(), epoch: 1, ..old.clone() };
        new.artifacts[0].url = "elsewhere/x".into();
        assert_eq!(differences(&old, &new), []);
    }

    #[test]
    fn a_manifest_without_a_disk_is_the_same_release() {
        let old = example();
        let mut new = old.clone();
        new.artifacts.retain(|artifact| artifact.role != Role::Disk);
        assert!(same_release(&old, &new) && same_release(&new, &old));
    }

    #[test]
    fn every_kind_of_change_is_named() {
        let old = example();
        let mut new = old.clone();
        new.packages = Package::parse_list("bash 5.3-1 amd64\nzlib1g 1.3 amd64").unwrap();
        new.recipe = "ef".repeat(32);
        new.artifacts[1].sha256 = "01".repeat(32);
        let text: Vec<String> = differences(&old, &new).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "  bash 5.2.37-2 → 5.3-1",
                "+ zlib1g 1.3",
                "- adduser 3.152",
                "  the recipe",
                "  the bytes of the initrd"
            ]
        );
    }
}
