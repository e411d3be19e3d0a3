//! Reads the cpio archives of an initrd.
//!
//! The kernel unpacks all archives of an initrd, one after the other, and skips zeros between them. A
//! file in a later archive replaces one in an earlier archive.

use std::io::{BufRead, Read};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use cpio::newc;

/// The maximum length of a name that [`read`] accepts.
const NAME_MAX: usize = 4096;
/// The maximum number of files in all archives.
const FILES_MAX: usize = 100_000;
/// The bits of a mode that contain the type.
const TYPE_MASK: u32 = 0o170_000;

/// The type of a file in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, whose content is its target.
    Link,
}

/// The header of a file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The path from the root of the archive, without a leading slash. Empty for the root.
    pub path: String,
    /// The type.
    pub kind: Type,
    /// The lowest twelve bits of the mode.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The size of the content.
    pub size: u64,
    /// The offsets of the header, in bytes from the beginning of the initrd.
    pub header: Range<u64>,
}

/// Calls `visit` with the header and the content of each file.
///
/// # Errors
/// Fails if the input is not a sequence of complete, uncompressed archives with plain paths, or if
/// `visit` fails.
pub(crate) fn read(
    input: impl BufRead,
    visit: &mut dyn FnMut(&Header, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut input = Counted { inner: input, position: 0 };
    let mut files = 0;
    while skip_zeros(&mut input)? {
        loop {
            let start = input.position;
            let failed = || format!("reading the file at offset {start} of the initrd");
            let mut reader = newc::Reader::new(input).with_context(failed)?;
            if reader.entry().is_trailer() {
                input = reader.finish().with_context(failed)?;
                break;
            }
            let header = header(reader.entry(), start).with_context(failed)?;
            let mut content = Content { reader: &mut reader, read: 0 };
            visit(&header, &mut content).with_context(failed)?;
            std::io::copy(&mut content, &mut std::io::sink()).with_context(failed)?;
            let found = content.read;
            ensure!(
                found == header.size,
                "{:?} in the initrd ends after {found} of {} bytes",
                header.path,
                header.size
            );
            input = reader.finish().with_context(failed)?;
            files += 1;
            ensure!(files <= FILES_MAX, "the initrd has more than {FILES_MAX} files");
        }
    }
    Ok(())
}

/// Returns the name of the part at an offset of an initrd.
///
/// # Errors
/// Fails as [`read`] does.
pub(crate) fn part_at(offset: u64, input: impl BufRead) -> Result<String> {
    let mut part = "an archive's end".to_owned();
    read(input, &mut |header, _| {
        let end = header.header.end;
        if header.header.contains(&offset) {
            part = format!("the header of {}", header.path);
        } else if (end..end + header.size).contains(&offset) {
            part = format!("the content of {}, at its offset {}", header.path, offset - end);
        }
        Ok(())
    })?;
    Ok(part)
}

fn header(entry: &newc::Entry, start: u64) -> Result<Header> {
    let name = entry.name();
    ensure!(name.len() <= NAME_MAX, "a name has {} bytes, expected at most {NAME_MAX}", name.len());
    let kind = match entry.mode() & TYPE_MASK {
        0o100_000 => Type::File,
        0o040_000 => Type::Directory,
        0o120_000 => Type::Link,
        other => bail!("{name:?} has the type {other:o}, expected a file, a directory or a link"),
    };
    ensure!(
        entry.nlink() <= 1 || kind == Type::Directory,
        "{name:?} is a hard link, which this program does not support"
    );
    let path = name.strip_prefix("./").unwrap_or(name);
    let path = if path == "." { "" } else { path };
    let is_plain = |component: &str| !matches!(component, "" | "." | "..");
    ensure!(
        path.is_empty() || path.split('/').all(is_plain),
        "{name:?} is not a plain relative path"
    );
    // The magic number and 13 numbers take 110 bytes. The name ends with a zero byte, and is padded so
    // that the content starts at a multiple of four.
    let end = (start + 110 + name.len() as u64 + 1).next_multiple_of(4);
    Ok(Header {
        path: path.to_owned(),
        kind,
        mode: entry.mode() & 0o7777,
        uid: entry.uid(),
        gid: entry.gid(),
        size: u64::from(entry.file_size()),
        header: start..end,
    })
}

/// Skips zeros and returns whether anything follows.
fn skip_zeros(input: &mut Counted<impl BufRead>) -> Result<bool> {
    loop {
        let buffer = input.inner.fill_buf().context("reading the initrd")?;
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let (is_end, is_found) = (buffer.is_empty(), zeros < buffer.len());
        input.inner.consume(zeros);
        input.position += zeros as u64;
        if is_end || is_found {
            return Ok(is_found);
        }
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The content of a file in an archive.
struct Content<'a, R: Read> {
    reader: &'a mut newc::Reader<R>,
    read: u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}
