//! Names what differs inside of the files of two releases, such as a published release and the same
//! release built again.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::release::document;
use protocol::{Release, Role};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::change::Change;
use super::escape::plain;
use super::files::{self, Files};
use super::limit::{self, ROWS_MAX};
use super::outline;
use crate::contents::{self, archive};
use crate::image::disk;
use crate::log_file::LogFile;

/// The bytes that are compared at a time.
const CHUNK: usize = 1 << 20;
/// The maximum size of a disk image after decompression, as in [`Release::validate`].
const DISK_MAX: u64 = 8 << 30;
/// The beginning of a zstd frame (RFC 8878, section 3.1.1), in on-disk byte order.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A release and the directory with its files, under the names in the manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReleaseFiles<'a> {
    /// The release.
    pub release: &'a Release,
    /// The directory.
    pub directory: &'a Path,
}

/// The result for a file of the old release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The role of an artifact, or the kind of a document.
    pub file: String,
    /// The result.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Whether two files are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "result")]
pub(crate) enum Verdict {
    /// All bytes are equal.
    Equal,
    /// One of the files does not exist.
    Missing {
        /// Its path.
        path: PathBuf,
    },
    /// The files differ.
    Different(Different),
}

/// How two files differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Different {
    /// The sizes in bytes.
    pub size: Change<u64>,
    /// The offset of the first byte that differs.
    pub offset: u64,
    /// The part of the file that this byte belongs to, if the file has parts.
    pub part: Option<String>,
    /// The files inside that differ. If there are none, only the container differs: the order, the
    /// compression or the metadata of its files.
    pub files: Option<Files>,
}

/// Compares the files of two releases byte by byte, and names the files inside that differ.
///
/// Needs root and `unsquashfs` if the initrds differ.
pub(crate) fn explain(
    old: ReleaseFiles<'_>,
    new: ReleaseFiles<'_>,
    log: &mut LogFile,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for artifact in &old.release.artifacts {
        let other = new.release.artifact(artifact.role).map_or(&artifact.name, |other| &other.name);
        let paths = (old.directory.join(&artifact.name), new.directory.join(other));
        let kind = match artifact.role {
            Role::Kernel => Kind::Other,
            Role::Initrd => Kind::Initrd,
            Role::Disk => Kind::Disk { bios: disk::has_bios(old.release.arch) },
        };
        let verdict = compare(&paths.0, &paths.1, kind, log)?;
        findings.push(Finding { file: artifact.role.to_string(), verdict });
    }
    for document in &old.release.documents {
        let other =
            new.release.document(&document.kind).map_or(&document.name, |other| &other.name);
        let paths = (old.directory.join(&document.name), new.directory.join(other));
        let kind = match document.kind.as_str() {
            document::DISK_4K => Kind::Disk { bios: false },
            _ => Kind::Other,
        };
        let verdict = compare(&paths.0, &paths.1, kind, log)?;
        findings.push(Finding { file: document.kind.clone(), verdict });
    }
    Ok(findings)
}

/// The kind of a file, which decides how its content is compared.
#[derive(Clone, Copy)]
enum Kind {
    Initrd,
    /// A disk image, which may have a part for BIOS.
    Disk {
        bios: bool,
    },
    Other,
}

fn compare(old: &Path, new: &Path, kind: Kind, log: &mut LogFile) -> Result<Verdict> {
    if let Some(path) = [old, new].into_iter().find(|path| !path.is_file()) {
        return Ok(Verdict::Missing { path: path.to_owned() });
    }
    let Some((size, offset)) = first_difference(old, new)? else { return Ok(Verdict::Equal) };
    let (part, files) = match kind {
        Kind::Initrd => {
            // If one file is the beginning of the other, only the other has this offset.
            let longer = if offset < size.from { old } else { new };
            let part = initrd_part(longer, offset)?;
            (Some(part), Some(inside_initrd(old, new, log)?))
        }
        Kind::Disk { bios } => inside_disk(old, new, bios)?,
        Kind::Other => (None, None),
    };
    Ok(Verdict::Different(Different { size, offset, part, files }))
}

type Inside = (Option<String>, Option<Files>);

fn initrd_part(initrd: &Path, offset: u64) -> Result<String> {
    let part = File::open(initrd)
        .map_err(Into::into)
        .and_then(|file| archive::part_at(offset, BufReader::with_capacity(CHUNK, file)));
    part.with_context(|| format!("reading {}", initrd.display()))
}

fn inside_initrd(old: &Path, new: &Path, log: &mut LogFile) -> Result<Files> {
    Ok(files::compare_all(&contents::of_initrd(old, log)?, &contents::of_initrd(new, log)?))
}

fn inside_disk(old: &Path, new: &Path, bios: bool) -> Result<Inside> {
    let (old, new) = (Decompressed::open(old)?, Decompressed::open(new)?);
    let (old, new) = (old.path(), new.path());
    let part = first_difference(old, new)?.map(|(size, offset)| {
        format!("{}, at offset {offset} of the disk", disk::part_at(offset, size.from, bios))
    });
    let files = files::compare_all(&contents::of_esp(old)?, &contents::of_esp(new)?);
    Ok((part, Some(files)))
}

/// A disk image without compression: the file itself, or a temporary copy.
pub(crate) enum Decompressed {
    /// The file has no compression.
    Itself(PathBuf),
    /// A copy, which is removed when it is dropped.
    Copy(NamedTempFile),
}

impl Decompressed {
    /// Opens a disk image; decompresses it if it is compressed with zstd.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = || format!("decompressing {}", path.display());
        let mut file = File::open(path).with_context(failed)?;
        let mut start = Vec::new();
        (&mut file).take(4).read_to_end(&mut start).with_context(failed)?;
        if start != ZSTD_MAGIC {
            return Ok(Self::Itself(path.to_owned()));
        }
        let file = BufReader::new(File::open(path).with_context(failed)?);
        let decoder = zstd::stream::read::Decoder::with_buffer(file).with_context(failed)?;
        let mut copy = NamedTempFile::new().with_context(failed)?;
        let size = copy_with_holes(decoder.take(DISK_MAX + 1), copy.as_file_mut());
        ensure!(
            size.with_context(failed)? <= DISK_MAX,
            "{} has more than {DISK_MAX} bytes after decompression",
            path.display()
        );
        Ok(Self::Copy(copy))
    }

    /// Returns the path of the image.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Itself(path) => path,
            Self::Copy(copy) => copy.path(),
        }
    }
}

/// Copies everything; chunks of zeros become holes, because disk images are mostly empty.
fn copy_with_holes(mut from: impl Read, to: &mut File) -> std::io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut buffer = Vec::with_capacity(CHUNK);
    let mut size = 0;
    loop {
        buffer.clear();
        (&mut from).take(CHUNK as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            to.set_len(size)?;
            return Ok(size);
        }
        size += buffer.len() as u64;
        if buffer.iter().any(|byte| *byte != 0) {
            to.write_all(&buffer)?;
        } else {
            to.seek(SeekFrom::Start(size))?;
        }
    }
}

/// Returns the sizes of two files and the offset of the first byte that differs, or `None` if the files
/// are equal.
fn first_difference(old: &Path, new: &Path) -> Result<Option<(Change<u64>, u64)>> {
    let open = |path: &Path| -> Result<(File, u64)> {
        let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let ((mut a, from), (mut b, to)) = (open(old)?, open(new)?);
    let (mut left, mut right) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    let mut offset = 0;
    loop {
        left.clear();
        right.clear();
        (&mut a).take(CHUNK as u64).read_to_end(&mut left)?;
        (&mut b).take(CHUNK as u64).read_to_end(&mut right)?;
        if left != right {
            let equal = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some((Change { from, to }, offset + equal as u64)));
        }
        if left.is_empty() {
            return Ok(None);
        }
        offset += left.len() as u64;
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = plain(&self.file);
        match &self.verdict {
            Verdict::Equal => write!(f, "{file}: equal"),
            Verdict::Missing { path } => {
                write!(f, "{file}: {} does not exist", plain(&path.to_string_lossy()))
            }
            Verdict::Different(different) => write!(f, "{file}: {different}"),
        }
    }
}

impl fmt::Display for Different {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { from, to } = &self.size;
        write!(f, "different from offset {} on, {from} → {to} bytes", self.offset)?;
        if let Some(part) = &self.part {
            write!(f, "\n  the first difference is in {}", plain(part))?;
        }
        let Some(files) = &self.files else { return Ok(()) };
        let lines: Vec<String> = outline::lines(files).collect();
        if lines.is_empty() {
            let what = "order, compression or metadata";
            return write!(f, "\n  all files inside are equal; their {what} differs");
        }
        let (shown, left) = limit::first(&lines, ROWS_MAX);
        for line in shown {
            write!(f, "\n  {}", plain(&limit::line(line)))?;
        }
        if left > 0 { write!(f, "\n  … and {left} more") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
