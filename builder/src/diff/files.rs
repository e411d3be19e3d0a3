//! The differences between two lists of files.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use protocol::esp::{GRUBENV, Slot};
use serde::Serialize;

use super::change::{Change, Lists};
use crate::contents::{Contents, Entry, Kind, Place};

/// A file that one release has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct File {
    /// The path, with `early:` or `esp:` before it unless it is of the running system.
    pub path: String,
    /// The type.
    pub kind: Kind,
    /// The size in bytes; 0 if it is not a regular file.
    pub size: u64,
}

/// A file that both releases have, and what differs. Properties that are equal are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FileChange {
    /// The path, with `early:` or `esp:` before it unless it is of the running system.
    pub path: String,
    /// The type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Change<Kind>>,
    /// The SHA-256 of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Change<Option<String>>>,
    /// The sizes in bytes, if the content differs. They can be equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Change<u64>>,
    /// The permissions in octal, such as `0755`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Change<Option<String>>>,
    /// The user and the group, such as `0:42`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Change<Option<String>>>,
    /// The target of a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Change<Option<String>>>,
    /// The extended attributes, such as capabilities, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<Change<BTreeMap<String, String>>>,
}

/// The differences between two lists of files.
pub(crate) type Files = Lists<File, FileChange>;

/// Returns the differences, without files that only repeat other parts of a release.
pub(super) fn compare(old: &Contents, new: &Contents) -> Files {
    of_pairs(pairs(old, new).filter(|pair| !pair.is_copy()))
}

/// Returns all differences.
pub(super) fn compare_all(old: &Contents, new: &Contents) -> Files {
    of_pairs(pairs(old, new))
}

fn of_pairs<'a>(pairs: impl Iterator<Item = Pair<'a>>) -> Files {
    let mut found = Files::default();
    for pair in pairs {
        match pair {
            Pair::Old(entry) => found.removed.push(file(entry)),
            Pair::New(entry) => found.added.push(file(entry)),
            Pair::Both(from, to) => found.changed.extend(change(from, to)),
        }
    }
    found
}

/// An entry of one list or of both.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pair<'a> {
    /// Only the old list has it.
    Old(&'a Entry),
    /// Only the new list has it.
    New(&'a Entry),
    /// Both lists have it.
    Both(&'a Entry, &'a Entry),
}

impl Pair<'_> {
    /// Returns an entry that has the place and the path of the pair.
    pub(super) fn entry(&self) -> &Entry {
        match self {
            Self::Old(entry) | Self::New(entry) | Self::Both(_, entry) => entry,
        }
    }

    /// Returns whether the file is a copy of an artifact, or depends on the version alone. Such files
    /// differ between any two releases.
    fn is_copy(&self) -> bool {
        let entry = self.entry();
        let path = entry.path.trim_start_matches('/');
        let is_slot = |slot: Slot| {
            path.strip_prefix(&slot.directory()).is_some_and(|rest| rest.starts_with('/'))
        };
        entry.place == Place::Esp && (path == GRUBENV || Slot::ALL.into_iter().any(is_slot))
    }
}

/// Returns the entries of both lists, in their order.
pub(super) fn pairs<'a>(
    old: &'a Contents,
    new: &'a Contents,
) -> impl Iterator<Item = Pair<'a>> + use<'a> {
    let (mut old, mut new) = (old.entries.iter().peekable(), new.entries.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(from), Some(to)) => from.key().cmp(&to.key()),
        };
        match order {
            Ordering::Less => old.next().map(Pair::Old),
            Ordering::Greater => new.next().map(Pair::New),
            Ordering::Equal => old.next().zip(new.next()).map(|(from, to)| Pair::Both(from, to)),
        }
    })
}

fn file(entry: &Entry) -> File {
    File { path: entry.name(), kind: entry.kind, size: entry.size }
}

/// Returns what differs between two entries of the same path.
fn change(from: &Entry, to: &Entry) -> Option<FileChange> {
    if from == to {
        return None;
    }
    let mode = |entry: &Entry| entry.access.map(|access| format!("{:04o}", access.mode));
    let owner = |entry: &Entry| entry.access.map(|access| format!("{}:{}", access.uid, access.gid));
    let sha256 = Change::between(from.sha256.clone(), to.sha256.clone());
    Some(FileChange {
        path: to.name(),
        kind: Change::between(from.kind, to.kind),
        size: sha256.is_some().then_some(Change { from: from.size, to: to.size }),
        sha256,
        mode: Change::between(mode(from), mode(to)),
        owner: Change::between(owner(from), owner(to)),
        target: Change::between(from.target.clone(), to.target.clone()),
        xattrs: Change::between(from.xattrs.clone(), to.xattrs.clone()),
    })
}
