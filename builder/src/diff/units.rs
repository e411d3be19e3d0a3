//! The differences between the systemd units of two releases.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::change::{Change, Lists};
use crate::contents::{Contents, Entry, Kind, Place};

/// The directories of units. systemd prefers a file in the first one (`systemd.unit(5)`).
const DIRECTORIES: [&str; 2] = ["/etc/systemd/system/", "/usr/lib/systemd/system/"];
/// The types of units.
const SUFFIXES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".slice",
    ".scope",
    ".device",
];

/// The state of a unit, as far as files determine it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Another unit wants or requires it through a link.
    Enabled,
    /// No other unit wants or requires it through a link.
    Disabled,
    /// It cannot be started.
    Masked,
}

/// A unit whose state has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnitChange {
    /// Its name.
    pub name: String,
    /// Its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Change<State>>,
    /// The directories with links to it, such as `multi-user.target.wants`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_by: Option<Change<BTreeSet<String>>>,
}

/// A unit that one release has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unit {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
}

/// The differences between the units of two releases.
pub(crate) type Units = Lists<Unit, UnitChange>;

/// Returns the differences.
pub(super) fn compare(old: &Contents, new: &Contents) -> Units {
    let (old, new) = (units(old), units(new));
    let unit =
        |(name, found): (&&str, &Found)| Unit { name: (*name).to_owned(), state: found.state() };
    Units {
        added: new.iter().filter(|(name, _)| !old.contains_key(*name)).map(unit).collect(),
        removed: old.iter().filter(|(name, _)| !new.contains_key(*name)).map(unit).collect(),
        changed: new.iter().filter_map(|(name, to)| change(name, old.get(name)?, to)).collect(),
    }
}

fn change(name: &str, from: &Found, to: &Found) -> Option<UnitChange> {
    let change = UnitChange {
        name: name.to_owned(),
        state: Change::between(from.state(), to.state()),
        wanted_by: Change::between(from.wanted_by.clone(), to.wanted_by.clone()),
    };
    (change.state.is_some() || change.wanted_by.is_some()).then_some(change)
}

/// What the files say about a unit.
#[derive(Default)]
struct Found {
    /// Whether the preferred file masks it; `None` if it has no file.
    is_masked: Option<bool>,
    wanted_by: BTreeSet<String>,
}

impl Found {
    fn state(&self) -> State {
        match (self.is_masked, self.wanted_by.is_empty()) {
            (Some(true), _) => State::Masked,
            (_, false) => State::Enabled,
            (_, true) => State::Disabled,
        }
    }
}

fn units(contents: &Contents) -> BTreeMap<&str, Found> {
    let mut units: BTreeMap<&str, Found> = BTreeMap::new();
    // The entries are sorted, so those in /etc come first.
    for entry in contents.entries.iter().filter(|entry| entry.place == Place::System) {
        let relative = DIRECTORIES.iter().find_map(|start| entry.path.strip_prefix(start));
        let Some(relative) = relative.filter(|_| entry.kind != Kind::Directory) else { continue };
        let (directory, name) = match relative.split_once('/') {
            None => (None, relative),
            Some((directory, name)) => (Some(directory), name),
        };
        if !SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            continue;
        }
        match directory {
            None => {
                units.entry(name).or_default().is_masked.get_or_insert(is_mask(entry));
            }
            Some(directory)
                if directory.ends_with(".wants") || directory.ends_with(".requires") =>
            {
                units.entry(name).or_default().wanted_by.insert(directory.to_owned());
            }
            Some(_) => {}
        }
    }
    units
}

/// Returns whether a unit file masks its unit: a link to `/dev/null`, or an empty file.
fn is_mask(entry: &Entry) -> bool {
    match &entry.target {
        Some(target) => target == "/dev/null",
        None => entry.size == 0,
    }
}
