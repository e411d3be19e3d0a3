//! SHA-256 of files and directory trees.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::digest::{Hasher, of_reader};
use walkdir::WalkDir;

/// Returns the size and the SHA-256 of a file.
pub(crate) fn of_file(path: &Path) -> Result<(u64, String)> {
    let digest = File::open(path).and_then(of_reader);
    digest.with_context(|| format!("reading {}", path.display()))
}

/// Returns the SHA-256 of a tree: of its names, modes, link targets and contents, in sorted order.
///
/// Times and owners are ignored, because the image gets its own.
pub(crate) fn of_tree(root: &Path) -> Result<String> {
    let mut hasher = Hasher::default();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", root.display()))?;
        let name = entry.path().strip_prefix(root)?.to_string_lossy().into_owned();
        let mode = entry.metadata()?.permissions().mode();
        let content = if entry.file_type().is_symlink() {
            fs::read_link(entry.path())?.to_string_lossy().into_owned()
        } else if entry.file_type().is_file() {
            of_file(entry.path())?.1
        } else {
            String::new()
        };
        hasher.update(format!("{name}\0{mode:o}\0{content}\0").as_bytes());
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_digest_depends_on_contents_and_modes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        fs::write(&file, "x").unwrap();
        let first = of_tree(directory.path()).unwrap();
        assert_eq!(first, of_tree(directory.path()).unwrap());
        fs::write(&file, "y").unwrap();
        let second = of_tree(directory.path()).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let third = of_tree(directory.path()).unwrap();
        assert!(first != second && second != third);
    }

    #[test]
    fn file_digest_is_sha256() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("abc");
        fs::write(&file, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(&file).unwrap(), (3, known.to_owned()));
    }
}
