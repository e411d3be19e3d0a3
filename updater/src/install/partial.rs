//! A file of a slot that is being downloaded, perhaps resumed after an earlier run.

use std::io;

use protocol::Artifact;
use protocol::digest::Hasher;

use crate::cdn::{ResumableSink, Sink};
use crate::files::{Entry, FileError, FileSystem, OpenFile, at, hash, parent, remove_if_exists};
use crate::interrupt;

/// A file that is being downloaded. Its content is hashed as it arrives, and flushed every
/// [`FileSystem::flush_every`] bytes.
pub(super) struct PartialFile<'a> {
    file: Box<dyn OpenFile + 'a>,
    length: u64,
    digest: Hasher,
    flush_every: u64,
}

/// The state in which [`PartialFile::open`] found a file.
pub(super) enum Opened<'a> {
    /// The file is complete and has the expected digest.
    Complete,
    /// The file has to be downloaded from [`ResumableSink::length`] on.
    Incomplete(PartialFile<'a>),
}

impl<'a> PartialFile<'a> {
    /// Opens a file to resume its download, or creates it.
    ///
    /// The file is always truncated to its last regular flush. After a power cut a FAT
    /// file may have more clusters than its size needs; Linux would then append after those, report
    /// "clusters badly computed" and make the file system read-only. Truncating frees them. The part
    /// below that flush, cluster chain and content, was on the disk before the rest was written.
    pub(super) fn open(
        fs: &'a dyn FileSystem,
        path: &str,
        artifact: &Artifact,
    ) -> Result<Opened<'a>, FileError> {
        let flush_every = fs.flush_every();
        let found = match fs.metadata(path)? {
            Some(Entry::File { size }) => size,
            other => {
                if other.is_some() {
                    remove_if_exists(fs, path)?;
                    fs.sync_directory(parent(path))?;
                }
                let file = fs.create(path)?;
                fs.sync_directory(parent(path))?;
                let digest = Hasher::default();
                return Ok(Opened::Incomplete(Self { file, length: 0, digest, flush_every }));
            }
        };
        let kept = kept(found, artifact.size, flush_every);
        let (length, digest) = match hash_kept(fs, path, kept, found, artifact) {
            Ok(None) => return Ok(Opened::Complete),
            Ok(Some(digest)) => (kept, digest),
            Err(error) => {
                log::warn!("{error}: downloading the file from the start");
                (0, Hasher::default())
            }
        };
        let mut file = fs.edit(path)?;
        truncate(&mut *file, length).map_err(at("truncate", path))?;
        Ok(Opened::Incomplete(Self { file, length, digest, flush_every }))
    }

    /// Flushes what was downloaded so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Returns how many of the `found` bytes are kept: those up to the last regular flush strictly below `found`.
fn kept(found: u64, size: u64, flush_every: u64) -> u64 {
    match found.checked_sub(1) {
        Some(last) if found <= size => last - last % flush_every,
        _ => 0,
    }
}

/// Hashes the bytes that are kept. Returns `None` if the file is complete already.
fn hash_kept(
    fs: &dyn FileSystem,
    path: &str,
    kept: u64,
    found: u64,
    artifact: &Artifact,
) -> Result<Option<Hasher>, FileError> {
    let mut digest = Hasher::default();
    if kept == 0 && found != artifact.size {
        return Ok(Some(digest));
    }
    let mut file = fs.open(path)?;
    hash(&mut *file, kept, &mut digest, &|_| {}).map_err(at("read", path))?;
    if found == artifact.size {
        let mut complete = digest.clone();
        let rest = hash(&mut *file, found - kept, &mut complete, &|_| {});
        if rest.is_ok() && complete.finish() == artifact.sha256 {
            return Ok(None);
        }
    }
    Ok(Some(digest))
}

/// Truncates a file and flushes it at once. The freed clusters may be allocated to another file, so on
/// the disk they must no longer belong to this one.
fn truncate(file: &mut dyn OpenFile, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    file.sync()
}

impl Sink for PartialFile<'_> {
    fn restart(&mut self) -> io::Result<()> {
        truncate(&mut *self.file, 0)?;
        (self.length, self.digest) = (0, Hasher::default());
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if interrupt::is_requested() {
                return Err(io::Error::other("interrupted by a signal"));
            }
            let room = self.flush_every - self.length % self.flush_every;
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.file.write_at(piece, self.length)?;
            self.digest.update(piece);
            self.length += piece.len() as u64;
            if self.length.is_multiple_of(self.flush_every) {
                self.file.sync()?;
            }
            bytes = rest;
        }
        Ok(())
    }
}

impl ResumableSink for PartialFile<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn digest(&self) -> String {
        self.digest.clone().finish()
    }
}

/// A partial file that reports its progress.
pub(super) struct Reporting<'a, 'b> {
    pub(super) file: &'b mut PartialFile<'a>,
    /// Called after every write with the length of the file.
    pub(super) report: &'b dyn Fn(u64),
}

impl Sink for Reporting<'_, '_> {
    fn restart(&mut self) -> io::Result<()> {
        self.file.restart()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(bytes)?;
        (self.report)(self.file.length);
        Ok(())
    }
}

impl ResumableSink for Reporting<'_, '_> {
    fn length(&self) -> u64 {
        self.file.length()
    }

    fn digest(&self) -> String {
        self.file.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_bytes_up_to_the_last_flush() {
        let cases = [(0, 0), (1, 0), (16, 0), (17, 16), (32, 16), (33, 32), (100, 96), (101, 0)];
        for (found, expected) in cases {
            assert_eq!(kept(found, 100, 16), expected, "{found}");
        }
    }
}
