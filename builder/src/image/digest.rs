//! SHA-256 of files and trees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use testbed::artifacts::measure;
use walkdir::WalkDir;

/// The lower-case hexadecimal form that manifests have.
pub fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of some bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// Size and SHA-256 of a file.
pub fn of_file(path: &Path) -> Result<(u64, String)> {
    measure(path).with_context(|| format!("reading {}", path.display()))
}

/// SHA-256 of a tree: names, modes, links and contents in the order of names. Times and owners do
/// not count: they are set when the image is written.
pub fn of_tree(root: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
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
        hasher.update(format!("{name}\0{mode:o}\0{content}\0"));
    }
    Ok(hex(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_known_by_names_modes_and_contents() {
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
    fn the_digest_of_a_file_is_sha256() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("abc");
        fs::write(&file, "abc").unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(&file).unwrap(), (3, known.to_owned()));
        assert_eq!(of_bytes(b"abc"), known);
    }
}
