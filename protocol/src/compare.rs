//! The differences between two releases.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::release::{Package, Release};
use crate::role::Role;

/// A difference between an old and a new release.
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
    /// A package whose version has changed.
    Changed {
        /// Its name.
        name: String,
        /// The version in the old release.
        from: String,
        /// The version in the new release.
        to: String,
    },
    /// The variant or architecture.
    Target {
        /// The old target.
        from: String,
        /// The new target.
        to: String,
    },
    /// The recipe, which is compared by its digest.
    Recipe,
    /// The bytes of an artifact.
    Artifact {
        /// The role of the artifact.
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

/// Returns the differences between two releases. The list is empty if they are the same release.
///
/// Variant, architecture, packages, recipe and artifact digests are compared; build number, version,
/// names and URLs are not. An artifact is compared only if both releases have it, because the manifest
/// of a host has no disk image.
pub fn differences(old: &Release, new: &Release) -> Vec<Difference> {
    let mut found = Vec::new();
    if old.target() != new.target() {
        found.push(Difference::Target {
            from: old.target().to_string(),
            to: new.target().to_string(),
        });
    }
    compare_packages(&old.packages, &new.packages, &mut found);
    compare_packages(&old.bootloader, &new.bootloader, &mut found);
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

/// Returns whether [`differences`] finds none.
pub fn is_same_release(a: &Release, b: &Release) -> bool {
    differences(a, b).is_empty()
}

fn compare_packages(old: &[Package], new: &[Package], found: &mut Vec<Difference>) {
    // With multiarch, a name can be installed for two architectures.
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

    #[test]
    fn ignores_build_version_epoch_and_urls() {
        let old = Release::example();
        let mut new = Release { build: 99, version: "else".into(), epoch: 1, ..old.clone() };
        new.artifacts[0].url = "elsewhere/x".into();
        assert_eq!(differences(&old, &new), []);
    }

    #[test]
    fn ignores_a_disk_image_that_one_release_lacks() {
        let old = Release::example();
        let mut new = old.clone();
        new.artifacts.retain(|artifact| artifact.role != Role::Disk);
        assert!(is_same_release(&old, &new) && is_same_release(&new, &old));
    }

    #[test]
    fn names_every_kind_of_change() {
        let old = Release::example();
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
