//! The differences between two lists of packages.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Package;
use serde::Serialize;

use super::change::Lists;

/// A package whose version has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// The old version.
    pub from: String,
    /// The new version.
    pub to: String,
    /// The name of the source package, if it is not that of the package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The differences between two lists of packages.
pub(crate) type Packages = Lists<Package, PackageChange>;

/// Returns the differences.
///
/// A package counts as changed if each list has exactly one version of it that the other does not have.
/// Some distributions install several versions of a package at a time.
pub(super) fn compare(old: &[Package], new: &[Package]) -> Packages {
    type Versions<'a> = (Vec<&'a Package>, Vec<&'a Package>);
    let mut by_name: BTreeMap<(&str, &str), Versions<'_>> = BTreeMap::new();
    let version =
        |package: &Package| (package.name.clone(), package.version.clone(), package.arch.clone());
    let olds: BTreeSet<_> = old.iter().map(version).collect();
    let news: BTreeSet<_> = new.iter().map(version).collect();
    for package in old.iter().filter(|package| !news.contains(&version(package))) {
        by_name.entry((&package.name, &package.arch)).or_default().0.push(package);
    }
    for package in new.iter().filter(|package| !olds.contains(&version(package))) {
        by_name.entry((&package.name, &package.arch)).or_default().1.push(package);
    }
    let mut found = Packages::default();
    for (removed, added) in by_name.into_values() {
        if let ([from], [to]) = (&removed[..], &added[..]) {
            found.changed.push(PackageChange {
                name: to.name.clone(),
                arch: to.arch.clone(),
                from: from.version.clone(),
                to: to.version.clone(),
                source: source(to),
            });
        } else {
            found.removed.extend(removed.into_iter().cloned());
            found.added.extend(added.into_iter().cloned());
        }
    }
    found
}

/// Returns the name of the source package, if it is not that of the package.
pub(super) fn source(package: &Package) -> Option<String> {
    let name = &package.source.as_ref()?.name;
    (*name != package.name).then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<Package> {
        Package::parse_list(text).unwrap()
    }

    #[test]
    fn names_source_packages_and_pairs_versions() {
        let old = list("libc6 2.41-1 amd64 glibc\nsed 4.9 amd64\nvim 9 amd64");
        let new = list("libc6 2.41-2 amd64 glibc\nsed 4.9 amd64\nzsh 5.9 amd64");
        let found = compare(&old, &new);
        assert_eq!(found.changed.len(), 1);
        let libc = &found.changed[0];
        assert_eq!(
            (&*libc.from, &*libc.to, libc.source.as_deref()),
            ("2.41-1", "2.41-2", Some("glibc"))
        );
        assert_eq!((&*found.added[0].name, &*found.removed[0].name), ("zsh", "vim"));
        assert!(compare(&old, &old).is_empty());
    }

    #[test]
    fn lists_all_versions_of_a_package_that_is_installed_twice() {
        let old = list("kernel 1 x86_64\nkernel 2 x86_64");
        let found = compare(&old, &list("kernel 2 x86_64\nkernel 3 x86_64"));
        assert_eq!((&*found.changed[0].from, &*found.changed[0].to), ("1", "3"));
        let found = compare(&old, &list("kernel 3 x86_64"));
        assert_eq!((found.removed.len(), found.added.len(), found.changed.len()), (2, 1, 0));
        let other = compare(&old, &list("kernel 1 x86_64\nkernel 2 x86_64\nkernel 2 i686"));
        assert_eq!(other.added[0].arch, "i686");
    }
}
