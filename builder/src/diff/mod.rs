//! The differences between two releases: packages, files, sizes, units, settings and keys.
//!
//! [`Diff::between`] compares the manifests and the lists of files, [`text`] and [`markdown`] show the
//! result, and [`explain`] names what differs inside of the published files.

mod change;
pub(crate) mod command;
pub(crate) mod escape;
pub(crate) mod explain;
mod figures;
mod files;
mod limit;
pub(crate) mod load;
mod markdown;
mod outline;
mod packages;
mod settings;

mod text;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Release, Role};
use serde::Serialize;

use crate::contents::{Contents, Place};
use change::{Change, Named};
use figures::FigureChanges;
use files::Files;
use load::Loaded;
use packages::Packages;
use settings::{Keys, Setting};
use units::Units;

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// What identifies a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    /// The target, such as `deb_amd64`.
    pub target: String,
    /// The version.
    pub version: String,
    /// The build number.
    pub build: u64,
    /// The date of the newest package in Unix seconds.
    pub epoch: u64,
}

/// The differences between an old and a new release.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Diff {
    /// The version of this form: [`SCHEMA`].
    pub schema: u32,
    /// The old release.
    pub old: Identity,
    /// The new release.
    pub new: Identity,
    /// The kernel release.
    pub kernel: Option<Change<String>>,
    /// The digest of the recipe.
    pub recipe: Option<Change<String>>,
    /// The programs that compiled the updater, and their versions.
    pub toolchain: Vec<Named<String>>,
    /// The sizes in bytes of the kernel, the initrd, the disk image and of the files in `/usr`. All are
    /// listed, also those that are equal.
    pub sizes: Vec<Named<u64>>,
    /// The times of builds and boots; absent if a release has none.
    pub figures: Option<FigureChanges>,
    /// The packages of the image.
    pub packages: Packages,
    /// The packages of the boot loader on the disk image.
    pub bootloader: Packages,
    /// The differences inside of the image; absent if a release has no list of files.
    pub image: Option<Image>,
    /// The releases without a list of files: `old`, `new` or both.
    pub unlisted: Vec<&'static str>,
}

/// The differences inside of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    /// The keys that the updater trusts; absent if a release does not list them.
    pub keys: Option<Keys>,
    /// The systemd units.
    pub units: Units,
    /// The settings.
    pub settings: Vec<Setting>,
    /// The files, including settings.
    pub files: Files,
}

impl Diff {
    /// Returns the differences.
    pub(crate) fn between(old: &Loaded, new: &Loaded) -> Self {
        let (a, b) = (&old.release, &new.release);
        let image = old.contents.as_ref().zip(new.contents.as_ref());
        let figures = old.figures.as_ref().zip(new.figures.as_ref());
        let sides = [("old", &old.contents), ("new", &new.contents)];
        let unlisted = sides.into_iter().filter(|(_, contents)| contents.is_none());
        Self {
            schema: SCHEMA,
            old: identity(a),
            new: identity(b),
            kernel: Change::between(a.kernel.clone(), b.kernel.clone()),
            recipe: Change::between(a.recipe.clone(), b.recipe.clone()),
            toolchain: toolchain(&a.toolchain, &b.toolchain),
            sizes: sizes(old, new),
            figures: figures.map(|(old, new)| figures::compare(old, new)),
            packages: packages::compare(&a.packages, &b.packages),
            bootloader: packages::compare(&a.bootloader, &b.bootloader),
            image: image.map(|(old, new)| Image::between(old, new)),
            unlisted: unlisted.map(|(side, _)| side).collect(),
        }
    }

    /// Returns whether no difference was found. Figures differ even if nothing else does.
    pub(crate) fn is_empty(&self) -> bool {
        self.old.target == self.new.target
            && self.kernel.is_none()
            && self.recipe.is_none()
            && self.toolchain.is_empty()
            && self.sizes.iter().all(|size| size.from == size.to)
            && self.packages.is_empty()
            && self.bootloader.is_empty()
            && self.image.as_ref().is_none_or(|image| image.files.is_empty())
    }
}

impl Image {
    fn between(old: &Contents, new: &Contents) -> Self {
        Self {
            keys: settings::keys(old, new),
            units: units::compare(old, new),
            settings: settings::compare(old, new),
            files: files::compare(old, new),
        }
    }
}

fn identity(release: &Release) -> Identity {
    Identity {
        target: release.target().to_string(),
        version: release.version.clone(),
        build: release.build,
        epoch: release.epoch,
    }
}

fn toolchain(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Named<String>> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let named = |name: &String| Named {
        name: name.clone(),
        from: old.get(name).cloned(),
        to: new.get(name).cloned(),
    };
    names.into_iter().map(named).filter(|named| named.from != named.to).collect()
}

fn sizes(old: &Loaded, new: &Loaded) -> Vec<Named<u64>> {
    let artifact = |loaded: &Loaded, role| Some(loaded.release.artifact(role)?.size);
    let roles = [Role::Kernel, Role::Initrd, Role::Disk].map(|role| Named {
        name: role.to_string(),
        from: artifact(old, role),
        to: artifact(new, role),
    });
    let usr = Named { name: "/usr".to_owned(), from: usr_size(old), to: usr_size(new) };
    roles.into_iter().chain([usr]).filter(|size| size.from.is_some() || size.to.is_some()).collect()
}

/// Returns the size of all files in `/usr` without compression.
fn usr_size(loaded: &Loaded) -> Option<u64> {
    let entries = loaded.contents.as_ref()?.entries.iter();
    let usr =
        entries.filter(|entry| entry.place == Place::System && entry.path.starts_with("/usr/"));
    Some(usr.fold(0, |sum, entry| sum.saturating_add(entry.size)))
}

#[cfg(test)]
mod tests;
