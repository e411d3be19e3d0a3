//! Makes the list of files from directory trees.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, ensure};
use protocol::digest;
use walkdir::WalkDir;

use super::entry::{Access, Contents, Entry, Kind, Place};
use super::settings;

/// The size up to which files are read as a whole, which is faster for the many small files.
const SMALL: u64 = 1 << 20;

/// The trees that a build packages.
#[derive(Debug)]
pub(crate) struct Trees<'a> {
    /// The tree of the early init.
    pub early: &'a Path,
    /// The root tree, with `/usr`.
    pub root: &'a Path,
    /// The tree of the EFI system partition.
    pub esp: &'a Path,
}

impl Trees<'_> {
    /// Returns the list of the files in the image.
    pub(crate) fn contents(&self) -> Result<Contents> {
        let usr = self.root.join("usr");
        let walks = [
            Walk { place: Place::Early, tree: self.early, prefix: "", skip: None },
            Walk { place: Place::System, tree: self.root, prefix: "", skip: Some(&usr) },
            Walk { place: Place::System, tree: &usr, prefix: "/usr", skip: None },
            Walk { place: Place::Esp, tree: self.esp, prefix: "", skip: None },
        ];
        let mut files = Vec::new();
        walks.iter().try_for_each(|walk| walk.add_to(&mut files))?;
        Contents::new(measure(files)?)
    }
}

/// Returns the entries of an unpacked SquashFS of `/usr`.
pub(super) fn usr(tree: &Path) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    Walk { place: Place::System, tree, prefix: "/usr", skip: None }.add_to(&mut files)?;
    measure(files)
}

/// A file of a tree, whose content is not read yet.
struct Unread {
    path: PathBuf,
    entry: Entry,
}

/// A tree whose files appear in an image below `prefix`.
struct Walk<'a> {
    place: Place,
    tree: &'a Path,
    prefix: &'static str,
    /// A directory of the tree that is left out.
    skip: Option<&'a Path>,
}

impl Walk<'_> {
    fn add_to(&self, files: &mut Vec<Unread>) -> Result<()> {
        let walk = WalkDir::new(self.tree).into_iter();
        for found in walk.filter_entry(|found| Some(found.path()) != self.skip) {
            let found = found.with_context(|| format!("reading {}", self.tree.display()))?;
            let path = found.into_path();
            let entry = self.entry(&path).with_context(|| format!("reading {}", path.display()))?;
            if self.is_packaged(&entry) {
                files.push(Unread { path, entry });
            }
        }
        Ok(())
    }

    fn entry(&self, path: &Path) -> Result<Entry> {
        let relative = path.strip_prefix(self.tree)?;
        let name = relative.to_str().context("the name is not UTF-8")?;
        let name = match (self.prefix, name) {
            ("", name) => format!("/{name}"),
            (prefix, "") => prefix.to_owned(),
            (prefix, name) => format!("{prefix}/{name}"),
        };
        let metadata = path.symlink_metadata()?;
        let kind = match metadata.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::Special,
        };
        let is_esp = self.place == Place::Esp;
        let access =
            Access { mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() };
        Ok(Entry {
            place: self.place,
            path: if is_esp { name.to_ascii_lowercase() } else { name },
            kind,
            access: (!is_esp).then_some(access),
            size: if kind == Kind::File { metadata.len() } else { 0 },
            sha256: None,
            target: (kind == Kind::Link).then(|| target(path)).transpose()?,
            // The SquashFS stores extended attributes, the cpio archive does not.
            xattrs: if self.prefix.is_empty() { BTreeMap::new() } else { xattrs(path)? },
            text: None,
        })
    }

    /// Returns whether the image has this file of the tree.
    fn is_packaged(&self, entry: &Entry) -> bool {
        match self.place {
            // The archive has no entry for its root, and no devices.
            Place::Early => entry.path != "/" && entry.kind != Kind::Special,
            Place::System => entry.kind != Kind::Special || !self.prefix.is_empty(),
            Place::Esp => entry.kind == Kind::File,
        }
    }
}

fn target(path: &Path) -> Result<String> {
    let target = fs::read_link(path)?;
    Ok(target.to_str().context("the target of the link is not UTF-8")?.to_owned())
}

fn xattrs(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for name in xattr::list(path)? {
        let value = xattr::get(path, &name)?.unwrap_or_default();
        let value = value.iter().map(|byte| format!("{byte:02x}")).collect();
        found.insert(String::from_utf8_lossy(name.as_bytes()).into_owned(), value);
    }
    Ok(found)
}

/// Reads the files on all processors and completes their entries.
fn measure(files: Vec<Unread>) -> Result<Vec<Entry>> {
    let count = thread::available_parallelism().map_or(1, usize::from);
    let queue = Mutex::new(files.into_iter());
    let work = || -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            // The lock ends with this statement, before the file is read.
            let next = queue.lock().ok().and_then(|mut queue| queue.next());
            let Some(Unread { path, mut entry }) = next else { return Ok(entries) };
            read(&path, &mut entry).with_context(|| format!("reading {}", path.display()))?;
            entries.push(entry);
        }
    };
    let parts: Vec<Result<Vec<Entry>>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// Adds size, digest and text of a regular file.
fn read(path: &Path, entry: &mut Entry) -> Result<()> {
    if entry.kind != Kind::File {
        return Ok(());
    }
    let expected = entry.size;
    if expected <= SMALL {
        let bytes = fs::read(path)?;
        entry.size = bytes.len() as u64;
        entry.sha256 = Some(digest::of_bytes(&bytes));
        if settings::may_have_text(entry) {
            entry.text = settings::text(bytes);
        }
    } else {
        let (size, sha256) = digest::of_reader(File::open(path)?)?;
        entry.size = size;
        entry.sha256 = Some(sha256);
    }
    ensure!(entry.size == expected, "the file changed while it was read");
    Ok(())
}
