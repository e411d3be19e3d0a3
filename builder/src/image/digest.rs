//! SHA-256 of files and directory trees.

use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::digest::{Hasher, of_reader};
use protocol::release::Document;
use walkdir::WalkDir;

/// Returns the size and the SHA-256 of a file.
pub(crate) fn of_file(path: &Path) -> Result<(u64, String)> {
    let digest = File::open(path).and_then(of_reader);
    digest.with_context(|| format!("reading {}", path.display()))
}

/// Returns the document for a file in a directory. Its URL is its name.
pub(crate) fn of_document(directory: &Path, kind: &str, name: &str) -> Result<Document> {
    let (size, sha256) = of_file(&directory.join(name))?;
    let (kind, name, url) = (kind.to_owned(), name.to_owned(), name.to_owned());
    Ok(Document { kind, name, size, sha256, url })
}

/// Returns the SHA-256 of the files and symbolic links of a tree: of their names, contents and targets,
/// and of whether a file is executable.
///
/// Everything else is ignored, because it does not reach the image: other modes, times, owners and empty
/// directories.
pub(crate) fn of_tree(root: &Path) -> Result<String> {
    let mut hasher = Hasher::default();
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", root.display()))?;
        let kind = entry.file_type();
        if kind.is_dir() {
            continue;
        }
        let (what, content) = if kind.is_symlink() {
            ("link", fs::read_link(entry.path())?.into_os_string().into_vec())
        } else {
            ensure!(
                kind.is_file(),
                "{} is neither a file, a directory nor a symbolic link",
                entry.path().display()
            );
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            let what = if executable { "program" } else { "file" };
            (what, of_file(entry.path())?.1.into_bytes())
        };
        let name = entry.path().strip_prefix(root)?.as_os_str().as_bytes();
        for part in [name, what.as_bytes(), &content] {
            hasher.update(part);
            hasher.update(b"\0");
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn tree_digest_depends_on_names_contents_kinds_and_executability() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("a"), directory.path().join("b"));
        let mut digests = Vec::new();
        let mut record = || digests.push(of_tree(directory.path()).unwrap());
        fs::write(&file, "x").unwrap();
        record();
        fs::write(&file, "y").unwrap();
        record();
        chmod(&file, 0o755);
        record();
        fs::rename(&file, &other).unwrap();
        record();
        fs::remove_file(&other).unwrap();
        std::os::unix::fs::symlink("y", &other).unwrap();
        record();
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn tree_digest_ignores_what_the_umask_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (file, inner) = (directory.path().join("in/a"), directory.path().join("in"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        let first = of_tree(directory.path()).unwrap();
        chmod(&file, 0o660);
        chmod(&inner, 0o2770);
        chmod(directory.path(), 0o700);
        fs::create_dir(directory.path().join("empty")).unwrap();
        assert_eq!(of_tree(directory.path()).unwrap(), first);
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
