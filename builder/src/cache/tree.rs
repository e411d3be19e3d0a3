//! A digest of everything that a file system image can contain of a tree.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::digest::Hasher;
use walkdir::WalkDir;

use crate::image::digest::of_file;

/// Returns the SHA-256 of a tree: of the names, types, modes, owners, times in seconds, device numbers, link
/// targets, hard links, extended attributes and contents, in sorted order.
pub(crate) fn digest(root: &Path) -> Result<String> {
    let mut tree = Tree { hasher: Hasher::default(), links: HashMap::new() };
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", root.display()))?;
        let name = entry.path().strip_prefix(root)?;
        tree.add(entry.path(), name)
            .with_context(|| format!("reading {}", entry.path().display()))?;
    }
    Ok(tree.hasher.finish())
}

struct Tree {
    hasher: Hasher,
    /// The first names of files with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Tree {
    fn add(&mut self, path: &Path, name: &Path) -> Result<()> {
        let metadata = path.symlink_metadata()?;
        self.field(name.as_os_str().as_bytes());
        let numbers = [metadata.mode(), metadata.uid(), metadata.gid()];
        let (time, device) = (metadata.mtime(), metadata.rdev());
        self.field(format!("{numbers:?} {time} {device}").as_bytes());
        self.attributes(path)?;
        self.content(path, name, &metadata)
    }

    fn attributes(&mut self, path: &Path) -> Result<()> {
        let mut names: Vec<_> = xattr::list(path)?.collect();
        names.sort();
        for name in names {
            self.field(name.as_bytes());
            self.field(&xattr::get(path, &name)?.unwrap_or_default());
        }
        // An empty name cannot exist, so it ends the list.
        self.field(b"");
        Ok(())
    }

    fn content(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_symlink() {
            self.field(fs::read_link(path)?.as_os_str().as_bytes());
        } else if kind.is_file() {
            if metadata.nlink() > 1 {
                let first = self.links.entry((metadata.dev(), metadata.ino()));
                let first = first.or_insert_with(|| name.to_owned()).clone();
                self.field(first.as_os_str().as_bytes());
            }
            let (size, sha256) = of_file(path)?;
            self.field(format!("{size} {sha256}").as_bytes());
        }
        Ok(())
    }

    /// Adds bytes with their length, so that no two sequences of fields look the same.
    fn field(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, SystemTime};

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("a"), "same").unwrap();
        fs::write(path("b"), "same").unwrap();
        symlink("a", path("link")).unwrap();
        fs::create_dir(path("d")).unwrap();
        for name in ["a", "b", "d", ""] {
            set_time(&path(name), 1000);
        }
        std::process::Command::new("touch")
            .args(["--no-dereference", "--date=@1000"])
            .arg(path("link"))
            .status()
            .unwrap();
        directory
    }

    fn set_time(path: &Path, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn equal_trees_have_equal_digests() {
        assert_eq!(digest(tree().path()).unwrap(), digest(tree().path()).unwrap());
    }

    #[test]
    fn every_difference_changes_the_digest() {
        let original = digest(tree().path()).unwrap();
        type Change = fn(&Path);
        let changes: [(&str, Change); 8] = [
            ("content", |root| {
                fs::write(root.join("a"), "Same").unwrap();
                set_time(&root.join("a"), 1000);
            }),
            ("mode", |root| {
                fs::set_permissions(root.join("a"), Permissions::from_mode(0o4711)).unwrap();
            }),
            ("time", |root| set_time(&root.join("a"), 1001)),
            ("link target", |root| {
                fs::remove_file(root.join("link")).unwrap();
                symlink("b", root.join("link")).unwrap();
            }),
            ("name", |root| fs::rename(root.join("d"), root.join("e")).unwrap()),
            ("hard link", |root| {
                fs::remove_file(root.join("b")).unwrap();
                fs::hard_link(root.join("a"), root.join("b")).unwrap();
            }),
            ("attribute", |root| xattr::set(root.join("a"), "user.a", b"b").unwrap()),
            ("type", |root| {
                fs::remove_dir(root.join("d")).unwrap();
                fs::write(root.join("d"), "").unwrap();
            }),
        ];
        for (name, change) in changes {
            let tree = tree();
            change(tree.path());
            if ["link target", "name", "hard link", "type"].contains(&name) {
                set_time(tree.path(), 1000);
            }
            assert_ne!(digest(tree.path()).unwrap(), original, "{name}");
        }
    }
}
