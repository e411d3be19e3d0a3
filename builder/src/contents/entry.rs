//! The types of a list of files, and the checks of a list from outside.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use protocol::digest;
use serde::{Deserialize, Serialize};

/// The version of the document that this code reads and writes.
pub(crate) const SCHEMA: u32 = 1;
/// The maximum number of entries. An image of Debian has about 4000.
pub(super) const ENTRIES_MAX: usize = 200_000;
/// The maximum length of a path and of the target of a link: `PATH_MAX` of Linux.
const PATH_MAX: usize = 4096;
/// The maximum number of extended attributes of a file.
const XATTRS_MAX: usize = 64;
/// The maximum length of the name of an extended attribute in Linux.
const XATTR_NAME_MAX: usize = 255;
/// The maximum length of the value of an extended attribute in Linux.
const XATTR_VALUE_MAX: usize = 64 << 10;
/// The maximum size of a text that the list contains. Longer settings are lists of certificates or of
/// services, whose differences nobody reads line by line.
pub(super) const TEXT_MAX: u64 = 64 << 10;

/// A file system that a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// The running system: the root skeleton of the initrd, and the SquashFS of `/usr`.
    System,
    /// The early init and its files, in the initrd.
    Early,
    /// The EFI system partition of the disk image. FAT compares names without regard to case, so paths
    /// are in lower case.
    Esp,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a pipe or a socket.
    Special,
}

/// The owner and the permissions of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// The lowest twelve bits of the mode.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A file, a directory or a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The file system.
    pub place: Place,
    /// The absolute path in the file system.
    pub path: String,
    /// The type.
    pub kind: Kind,
    /// The owner and the permissions. FAT has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// The size of a regular file in bytes, otherwise 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// The SHA-256 of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The target of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The extended attributes, such as capabilities, with their values in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// The content, if the file is a setting; see [`is_setting`](super::settings::is_setting).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

fn is_zero(size: &u64) -> bool {
    *size == 0
}

/// The files of an image, sorted by place and path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// The version of the document: [`SCHEMA`].
    pub schema: u32,
    /// The files.
    pub entries: Vec<Entry>,
}

impl Contents {
    /// Sorts the entries and checks them.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Result<Self> {
        entries.sort_by(|a, b| a.key().cmp(&b.key()));
        let contents = Self { schema: SCHEMA, entries };
        contents.check()?;
        Ok(contents)
    }

    /// Returns the entry at a path.
    pub(crate) fn get(&self, place: Place, path: &str) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| entry.key().cmp(&(place, path)));
        index.ok().map(|index| &self.entries[index])
    }

    /// Checks every entry, and that the entries are sorted and unique.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            self.schema == SCHEMA,
            "the list of files has schema {}, but this program supports only schema {SCHEMA}; \
             update the program",
            self.schema
        );
        let count = self.entries.len();
        ensure!(
            count <= ENTRIES_MAX,
            "the list of files has {count} entries, expected at most {ENTRIES_MAX}"
        );
        for pair in self.entries.windows(2) {
            ensure!(
                pair[0].key() < pair[1].key(),
                "the list of files is not sorted, or has {:?} twice",
                excerpt(&pair[1].path)
            );
        }
        self.entries.iter().try_for_each(Entry::check)
    }
}

impl Entry {
    /// Returns what identifies the entry, and sorts it.
    pub(crate) fn key(&self) -> (Place, &str) {
        (self.place, &self.path)
    }

    /// Returns the path, with the place before it unless it is the running system.
    pub(crate) fn name(&self) -> String {
        match self.place {
            Place::System => self.path.clone(),
            Place::Early => format!("early:{}", self.path),
            Place::Esp => format!("esp:{}", self.path),
        }
    }

    fn check(&self) -> Result<()> {
        let path = excerpt(&self.path);
        ensure!(is_path(&self.path), "{path:?} in the list of files is not an absolute path");
        let is_file = self.kind == Kind::File;
        ensure!(
            is_file == self.sha256.is_some() && (is_file || self.size == 0),
            "{path:?} in the list of files has no digest, or is not a file and has one"
        );
        ensure!(
            self.sha256.as_deref().is_none_or(|sha256| sha256.len() == 64 && is_hex(sha256)),
            "the digest of {path:?} in the list of files is not a SHA-256"
        );
        ensure!(
            (self.kind == Kind::Link) == self.target.is_some()
                && self.target.as_ref().is_none_or(|target| target.len() <= PATH_MAX),
            "{path:?} in the list of files has no target, or is not a link and has one"
        );
        ensure!(
            self.access.is_none_or(|access| access.mode <= 0o7777),
            "{path:?} in the list of files has a mode of more than twelve bits"
        );
        self.check_xattrs(&path)?;
        self.check_text(&path)
    }

    fn check_xattrs(&self, path: &str) -> Result<()> {
        let is_valid = |(name, value): (&String, &String)| {
            (1..=XATTR_NAME_MAX).contains(&name.len())
                && value.len() <= 2 * XATTR_VALUE_MAX
                && is_hex(value)
        };
        ensure!(
            self.xattrs.len() <= XATTRS_MAX && self.xattrs.iter().all(is_valid),
            "{path:?} in the list of files has extended attributes that Linux does not allow"
        );
        Ok(())
    }

    fn check_text(&self, path: &str) -> Result<()> {
        let Some(text) = &self.text else { return Ok(()) };
        ensure!(
            text.len() as u64 <= TEXT_MAX
                && text.len() as u64 == self.size
                && self.sha256.as_deref() == Some(&*digest::of_bytes(text.as_bytes())),
            "the text of {path:?} in the list of files does not have the size and digest of the file"
        );
        Ok(())
    }
}

/// Returns whether a path is absolute, and has no empty component, `.` or `..`.
pub(super) fn is_path(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    path == "/"
        || path.len() <= PATH_MAX
            && !path.contains('\0')
            && path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_name))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Returns the beginning of a text from outside, for an error message that shows it quoted.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
