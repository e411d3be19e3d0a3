//! Unpacks layers, tar files that change a root file system.
//!
//! A layer is hostile input, even if its digest is the expected one. All paths are resolved by the kernel as if the
//! tree were the root directory (`openat2` with `RESOLVE_IN_ROOT`), so neither `..` nor a symbolic link leads out of
//! it. What a sandbox does not need is left out: device nodes and FIFOs, because its `/dev` has those of the
//! host; extended attributes, because file capabilities matter only to users other than root; and the times of
//! directories.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::manifest::Compression;
use super::text::excerpt;
use super::tree::{Metadata, Tree};

/// The prefix of the names of files that stand for removals.
const WHITEOUT: &[u8] = b".wh.";
/// The name of a file that stands for the removal of everything in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of further names with a meaning for some container engines only.
const RESERVED: &[u8] = b".wh..wh.";

/// The maximum size of an extended header, in bytes: a long name or a list of attributes. The `tar` crate reads it
/// into memory.
const HEADER_MAX: u64 = 1 << 20;
/// The maximum length of a path, in bytes: `PATH_MAX` of Linux.
const PATH_MAX: usize = 4096;

/// What an image may still add to the disk.
#[derive(Debug)]
pub(super) struct Allowance {
    /// The number of files. Official images of distributions have 3,000 to 10,000.
    entries: u64,
    /// The size of the tar files in bytes. Official images of distributions have 80 MB to 300 MB.
    bytes: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { entries: 1_000_000, bytes: 8 << 30 }
    }
}

/// Unpacks a layer into a tree.
///
/// The layer is read three times: to check it, to remove what it removes from lower layers, and to add its
/// files. A removal never concerns files of its own layer, wherever it is in the tar file.
pub(super) fn unpack(
    layer: &mut File,
    compression: Compression,
    tree: &Tree,
    allowance: &mut Allowance,
) -> Result<()> {
    let limit = allowance.bytes;
    allowance.bytes = check(reader(layer, compression, limit)?, &mut allowance.entries)?;
    for_each(reader(layer, compression, limit)?, |entry, path| remove(tree, entry, path))?;
    for_each(reader(layer, compression, limit)?, |entry, path| add(tree, entry, path))
}

/// A tar file of limited size.
struct Limited<'a> {
    source: Box<dyn Read + 'a>,
    left: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(
                "the layers of the image are larger than what is allowed when unpacked",
            )
        })?;
        Ok(count)
    }
}

/// Returns a reader of the tar file.
fn reader(layer: &mut File, compression: Compression, left: u64) -> Result<Limited<'_>> {
    io::Seek::rewind(layer)?;
    let file = BufReader::with_capacity(1 << 16, layer);
    let source: Box<dyn Read> = match compression {
        Compression::None => Box::new(file),
        // Some programs write one gzip stream for each file.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
    };
    Ok(Limited { source: Box::new(BufReader::with_capacity(1 << 16, source)), left })
}

/// Checks the number of entries, and what the `tar` crate does not bound: the sizes of extended headers.
///
/// The sizes of entries are the same with and without the extended headers, so what is checked here is what the
/// other passes read. Returns the number of bytes that are left of the limit.
fn check(mut limited: Limited<'_>, entries: &mut u64) -> Result<u64> {
    for entry in Archive::new(&mut limited).entries()?.raw(true) {
        let mut entry = entry?;
        *entries = entries.checked_sub(1).context("the image has more files than allowed")?;
        let kind = entry.header().entry_type();
        ensure!(!kind.is_gnu_sparse(), "a sparse file is not supported");
        if kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
        {
            let size = entry.size();
            ensure!(
                size <= HEADER_MAX,
                "an extended header has {size} bytes, more than {HEADER_MAX}"
            );
            let mut text = Vec::new();
            entry.read_to_end(&mut text)?;
            if kind.is_pax_local_extensions() {
                check_extensions(&text)?;
            }
        }
    }
    io::copy(&mut limited, &mut io::sink())?;
    Ok(limited.left)
}

/// Checks that an extended header does not change how much of the tar file belongs to an entry.
fn check_extensions(text: &[u8]) -> Result<()> {
    for extension in PaxExtensions::new(text).flatten() {
        let key = extension.key_bytes();
        ensure!(
            key != b"size" && !key.starts_with(b"GNU.sparse."),
            "the extended header {} is not supported",
            excerpt(&String::from_utf8_lossy(key))
        );
    }
    Ok(())
}

type TarEntry<'a, 'b> = Entry<'a, Limited<'b>>;

/// Calls a function for each entry and its path in the tree.
fn for_each(
    limited: Limited<'_>,
    mut work: impl FnMut(&mut TarEntry<'_, '_>, &Path) -> Result<()>,
) -> Result<()> {
    for entry in Archive::new(limited).entries()? {
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        let failed = || format!("the entry {}", excerpt(&String::from_utf8_lossy(&name)));
        let path = relative(&name).with_context(failed)?;
        work(&mut entry, &path).with_context(failed)?;
    }
    Ok(())
}

/// Returns the path in the tree, without `.` and slashes at its start. It is empty for the tree itself.
fn relative(name: &[u8]) -> Result<PathBuf> {
    ensure!(name.len() < PATH_MAX, "the path has more than {PATH_MAX} bytes");
    ensure!(!name.contains(&0), "the path contains a NUL byte");
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => bail!("the path contains \"..\""),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// The name of an entry, by its meaning.
enum Name<'a> {
    /// A file or directory.
    Plain,
    /// The removal of one name from the same directory.
    Removal(&'a OsStr),
    /// The removal of everything in the same directory.
    Opaque,
    /// A name that means nothing here.
    Reserved,
}

fn meaning(path: &Path) -> Result<Name<'_>> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name == OPAQUE {
        return Ok(Name::Opaque);
    }
    if name.starts_with(RESERVED) {
        return Ok(Name::Reserved);
    }
    let Some(removed) = name.strip_prefix(WHITEOUT) else { return Ok(Name::Plain) };
    ensure!(!matches!(removed, b"" | b"." | b".."), "it removes no file of its directory");
    Ok(Name::Removal(OsStr::from_bytes(removed)))
}

/// Removes what an entry removes from lower layers.
fn remove(tree: &Tree, _: &mut TarEntry<'_, '_>, path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    match meaning(path)? {
        Name::Removal(name) => tree.remove(parent, name),
        Name::Opaque => tree.clear(parent),
        Name::Plain | Name::Reserved => Ok(()),
    }
}

/// Adds an entry that is no removal.
fn add(tree: &Tree, entry: &mut TarEntry<'_, '_>, path: &Path) -> Result<()> {
    if !matches!(meaning(path)?, Name::Plain) {
        return Ok(());
    }
    let kind = entry.header().entry_type();
    let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
    match kind {
        EntryType::XGlobalHeader | EntryType::Char | EntryType::Block | EntryType::Fifo => Ok(()),
        EntryType::Link => {
            let target = link.context("a hard link without a target")?;
            tree.hard_link(path, &relative(&target).context("the target of the hard link")?)
        }
        EntryType::Symlink => {
            let target = link.context("a symbolic link without a target")?;
            tree.symlink(path, OsStr::from_bytes(&target), &metadata(entry)?)
        }
        EntryType::Directory => tree.directory(path, &metadata(entry)?),
        // Programs that write the oldest format have no type for directories.
        EntryType::Regular if entry.path_bytes().ends_with(b"/") => {
            tree.directory(path, &metadata(entry)?)
        }
        EntryType::Regular | EntryType::Continuous => {
            let metadata = metadata(entry)?;
            tree.file(path, &metadata, entry)
        }
        other => bail!("the type {:?} is not supported", other.as_byte() as char),
    }
}

fn metadata(entry: &TarEntry<'_, '_>) -> Result<Metadata> {
    let header = entry.header();
    let id = |number: u64| u32::try_from(number).context("the owner is not a 32-bit number");
    Ok(Metadata {
        mode: header.mode()? & 0o7777,
        user: id(header.uid()?)?,
        group: id(header.gid()?)?,
        modified: i64::try_from(header.mtime()?).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests;
