//! What a host keeps over reboots: the member `data`.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a host keeps over reboots, as written in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct DataFragment {
    /// An empty disk for the data; by default the free space of the disk that was booted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) disk: Option<String>,
    /// The file system of a new data partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_system: Option<String>,
    /// What unlocks a new data partition, which is then encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encrypt: Option<String>,
    /// Directories below /var that are kept, in addition to those of Docker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) paths: Option<Vec<String>>,
    /// Whether the journal is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) journal: Option<bool>,
}

/// What a host keeps over reboots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// A disk below /dev; `None` for the free space of the disk that was booted.
    pub disk: Option<PathBuf>,
    /// The file system of a new data partition.
    pub file_system: FileSystem,
    /// Whether the data are encrypted. The TPM of the machine unlocks them.
    pub encrypt: bool,
    /// Directories below /var that are kept, in addition to those of Docker. None contains another one.
    pub paths: Vec<PathBuf>,
    /// Whether the journal is kept.
    pub journal: bool,
}

/// A file system for data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, the default: it can be checked and repaired without a decision after a power cut.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Returns the name, as the kernel spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Returns the file system with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Paths that are kept in any case, or that `data` cannot keep.
const RESERVED: [&str; 6] = [
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/etchaos",
    "/var/log/journal",
    // Links to /run.
    "/var/run",
    "/var/lock",
];
/// The maximum number of paths. Each of them is a mount.
const PATHS_MAX: usize = 64;

impl Data {
    /// Validates the member. An error consists of the key and the reason.
    pub(super) fn new(fragment: &DataFragment) -> Result<Self, (&'static str, &'static str)> {
        let disk = fragment.disk.as_deref().map(disk).transpose();
        let disk = disk.map_err(|reason| ("data.disk", reason))?;
        let file_system = match &fragment.file_system {
            None => FileSystem::default(),
            Some(name) => FileSystem::from_name(name)
                .ok_or(("data.fileSystem", "expected \"ext4\", \"xfs\" or \"btrfs\""))?,
        };
        let encrypt = match fragment.encrypt.as_deref() {
            None => false,
            Some("tpm") => true,
            Some(_) => return Err(("data.encrypt", "expected \"tpm\"")),
        };
        let paths = paths(fragment.paths.as_deref().unwrap_or_default());
        let paths = paths.map_err(|reason| ("data.paths", reason))?;
        let journal = fragment.journal.unwrap_or(true);
        Ok(Self { disk, file_system, encrypt, paths, journal })
    }
}

fn disk(name: &str) -> Result<PathBuf, &'static str> {
    let reason = "expected the path of a disk below /dev, such as \"/dev/disk/by-id/virtio-data\"";
    let path = plain(name).ok_or(reason)?;
    if path.starts_with("/dev") && path != Path::new("/dev") { Ok(path) } else { Err(reason) }
}

fn paths(list: &[String]) -> Result<Vec<PathBuf>, &'static str> {
    let reason = "expected a list of directories below /var, such as [\"/var/lib/app\"], of which none contains another one";
    if list.len() > PATHS_MAX {
        return Err("expected at most 64 directories");
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for name in list {
        let path = plain(name).filter(|path| path.starts_with("/var") && path != Path::new("/var"));
        let path = path.ok_or(reason)?;
        let overlaps = |other: &Path| path.starts_with(other) || other.starts_with(&path);
        if RESERVED.iter().any(|reserved| overlaps(Path::new(reserved))) {
            return Err(
                "/var/lib/docker, /var/lib/containerd and /var/log/journal are kept in any case, and /var/lib/etchaos, /var/run and /var/lock cannot be kept; a directory must not contain or be below one of them",
            );
        }
        if paths.iter().any(|other| overlaps(other)) {
            return Err(reason);
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Returns an absolute path without `.`, `..`, repeated slashes or control characters.
fn plain(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let is_plain = text.starts_with('/')
        && text.len() < 1024
        && !text.contains(char::is_control)
        && path.components().skip(1).all(|part| matches!(part, Component::Normal(_)))
        && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    is_plain.then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(json: &str) -> Result<Data, (&'static str, &'static str)> {
        Data::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_empty_object_asks_for_the_defaults() {
        let data = new("{}").unwrap();
        let expected = Data {
            disk: None,
            file_system: FileSystem::Ext4,
            encrypt: false,
            paths: Vec::new(),
            journal: true,
        };
        assert_eq!(data, expected);
        let data = new(
            r#"{"disk": "/dev/disk/by-id/x", "fileSystem": "xfs", "encrypt": "tpm", "paths": ["/var/lib/a", "/var/log/b c"], "journal": false}"#,
        )
        .unwrap();
        assert_eq!(data.disk, Some("/dev/disk/by-id/x".into()));
        assert_eq!((data.file_system, data.encrypt, data.journal), (FileSystem::Xfs, true, false));
        assert_eq!(data.paths, [Path::new("/var/lib/a"), Path::new("/var/log/b c")]);
    }

    #[test]
    fn rejects_values_that_would_mount_over_something_else() {
        for (json, key) in [
            (r#"{"disk": "sda"}"#, "data.disk"),
            (r#"{"disk": "/dev"}"#, "data.disk"),
            (r#"{"disk": "/dev/../etc"}"#, "data.disk"),
            (r#"{"fileSystem": "vfat"}"#, "data.fileSystem"),
            (r#"{"encrypt": "password"}"#, "data.encrypt"),
            (r#"{"paths": ["/etc"]}"#, "data.paths"),
            (r#"{"paths": ["/var"]}"#, "data.paths"),
            (r#"{"paths": ["/var/"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib/docker/volumes"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib/../../etc"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib/./a"]}"#, "data.paths"),
            (r#"{"paths": ["/var//lib/a"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib/a\n"]}"#, "data.paths"),
            (r#"{"paths": ["/var/run/x"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib/a", "/var/lib/a"]}"#, "data.paths"),
            (r#"{"paths": ["/var/lib/a", "/var/lib/a/b"]}"#, "data.paths"),
        ] {
            assert_eq!(new(json).map_err(|(key, _)| key), Err(key), "{json}");
        }
        // A key in the configuration would be readable for everyone who has the disk.
        for json in [r#"{"encrypt": true}"#, r#"{"encrypt": "tpm", "recoveryKey": "x"}"#] {
            assert!(serde_json::from_str::<DataFragment>(json).is_err(), "{json}");
        }
    }
}
