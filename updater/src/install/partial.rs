//! A file of a slot while it is downloaded: what an earlier run left of it, and what comes.

use std::io;

use protocol::Artifact;
use sha2::{Digest, Sha256};

use crate::cdn::{ResumableSink, Sink};
use crate::files::{
    Entry, FileError, FileSystem, OpenFile, at, hash, hex, parent, remove_if_exists,
};
use crate::interrupt;

/// A file that is being filled. What it has is hashed, and flushed every
/// [`FileSystem::flush_every`] bytes.
pub(super) struct Filling<'a> {
    file: Box<dyn OpenFile + 'a>,
    length: u64,
    digest: Sha256,
    flush_every: u64,
}

/// How much of a file is there.
pub(super) enum Found<'a> {
    /// All of it, and it is the right one.
    Whole,
    /// The beginning, maybe nothing.
    Begun(Filling<'a>),
}

impl<'a> Filling<'a> {
    /// Goes on with a file, or makes it.
    ///
    /// It is cut back to where it was last flushed on the way, even if nothing was torn: after a power
    /// cut a FAT may have given it more clusters than its size needs, Linux would append behind those,
    /// find "clusters badly computed", and make the file system read-only. To cut it frees them. And
    /// what is below that point was on the disk before the rest was written, chain and content.
    pub(super) fn open(
        fs: &'a dyn FileSystem,
        path: &str,
        artifact: &Artifact,
    ) -> Result<Found<'a>, FileError> {
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
                let digest = Sha256::new();
                return Ok(Found::Begun(Self { file, length: 0, digest, flush_every }));
            }
        };
        let kept = kept(found, artifact.size, flush_every);
        let (length, digest) = match read_again(fs, path, kept, found, artifact) {
            Ok(None) => return Ok(Found::Whole),
            Ok(Some(digest)) => (kept, digest),
            Err(error) => {
                log::warn!("{error}: it is begun again");
                (0, Sha256::new())
            }
        };
        let mut file = fs.edit(path)?;
        cut(&mut *file, length).map_err(at("cut", path))?;
        Ok(Found::Begun(Self { file, length, digest, flush_every }))
    }

    /// Puts what came so far on the disk.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

/// As much of `found` bytes is kept: up to the last point, strictly below, where they were flushed.
fn kept(found: u64, size: u64, flush_every: u64) -> u64 {
    match found.checked_sub(1) {
        Some(last) if found <= size => last - last % flush_every,
        _ => 0,
    }
}

/// Hashes the bytes that are kept. `None`, if the whole file is there already.
fn read_again(
    fs: &dyn FileSystem,
    path: &str,
    kept: u64,
    found: u64,
    artifact: &Artifact,
) -> Result<Option<Sha256>, FileError> {
    let mut digest = Sha256::new();
    if kept == 0 && found != artifact.size {
        return Ok(Some(digest));
    }
    let mut file = fs.open(path)?;
    hash(&mut *file, kept, &mut digest, &|_| {}).map_err(at("read", path))?;
    if found == artifact.size {
        let mut whole = digest.clone();
        let rest = hash(&mut *file, found - kept, &mut whole, &|_| {});
        if rest.is_ok() && hex(whole) == artifact.sha256 {
            return Ok(None);
        }
    }
    Ok(Some(digest))
}

/// Flushed at once: the clusters that become free may be given to another file, and must not be this
/// one's on the disk any more.
fn cut(file: &mut dyn OpenFile, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    file.sync()
}

impl Sink for Filling<'_> {
    fn restart(&mut self) -> io::Result<()> {
        cut(&mut *self.file, 0)?;
        (self.length, self.digest) = (0, Sha256::new());
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if interrupt::is_requested() {
                return Err(io::Error::other("the end was asked for"));
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

impl ResumableSink for Filling<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn digest(&self) -> String {
        hex(self.digest.clone())
    }
}

/// A file that is being filled, and somebody who watches.
pub(super) struct Watched<'a, 'b> {
    pub(super) filling: &'b mut Filling<'a>,
    /// Is told after every piece how many bytes are there.
    pub(super) seen: &'b dyn Fn(u64),
}

impl Sink for Watched<'_, '_> {
    fn restart(&mut self) -> io::Result<()> {
        self.filling.restart()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.filling.write(bytes)?;
        (self.seen)(self.filling.length);
        Ok(())
    }
}

impl ResumableSink for Watched<'_, '_> {
    fn length(&self) -> u64 {
        self.filling.length()
    }

    fn digest(&self) -> String {
        self.filling.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_flush_below_is_kept() {
        let cases = [(0, 0), (1, 0), (16, 0), (17, 16), (32, 16), (33, 32), (100, 96), (101, 0)];
        for (found, expected) in cases {
            assert_eq!(kept(found, 100, 16), expected, "{found}");
        }
    }
}
