//! Reads the log of a disk's writes that QEMU's block driver `blklogwrites` records. The format is that of
//! the kernel's dm-log-writes (kernel document `admin-guide/device-mapper/log-writes.rst`).
//!
//! The first sector contains the number of entries. Each entry consists of a sector with the kind and the
//! position of the request, and of its data. All numbers are little-endian.
//!
//! **Order.** QEMU (`block/blklogwrites.c`) logs a request after it has completed, so the log has the order
//! of completion. A write that completes during a flush is logged before the flush and counts as flushed,
//! although it need not be. A write that starts before a flush and completes after it counts as later.
//! Neither hides a mistake in a program that waits for its writes before a flush and for the flush before
//! the next write, as fsync does. Concurrent write-back by the guest's kernel can hide one: this limits
//! what a replay proves.
//!
//! Two flushes without a write between them are logged as one. QEMU updates the number of entries at each
//! flush, and flushes when it exits, so the log of a VM that was not killed is complete.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::inspect::disk::{Contents, SECTOR};

/// `jsfwshr`
const MAGIC: u64 = 0x6a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
/// The limit for the number of entries. Updates write far less often.
const ENTRIES_MAX: u64 = 1 << 20;

/// A failed read of a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The format is unknown or invalid.
    #[error("not a valid dm-log-writes log: {0}")]
    Format(String),
}

/// A request to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Writes contents, given by their numbers, from this sector on.
    Write(u64, Vec<u32>),
    /// Discards, from this sector on, this many sectors. They then contain zeros or their old content.
    Discard(u64, u64),
    /// Makes all completed writes persistent.
    Flush,
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The request.
    pub action: Action,
    /// The offset in the log at which the entry ends, in bytes.
    pub end: u64,
}

/// Reads the log of a disk with this many sectors. Adds the written contents to `contents`.
pub(crate) fn read(
    path: &Path,
    sectors: u64,
    contents: &mut Contents,
) -> Result<Vec<Entry>, LogError> {
    let mut log = BufReader::with_capacity(1 << 20, File::open(path)?);
    let head = sector(&mut log)?;
    if [number(&head, 0), number(&head, 8)] != [MAGIC, VERSION] {
        return Err(LogError::Format(
            "its first sector has an unknown magic number or version".into(),
        ));
    }
    let count = number(&head, 16);
    let sector_size = number(&head, 24) & u64::from(u32::MAX);
    if count > ENTRIES_MAX || sector_size != SECTOR as u64 {
        let found = format!("{count} entries in sectors of {sector_size} bytes");
        return Err(LogError::Format(found));
    }
    let mut entries = Vec::new();
    let mut end = SECTOR as u64;
    for index in 0..count {
        let head = sector(&mut log)?;
        let [first, length, flags, more] = [0, 8, 16, 24].map(|at| number(&head, at));
        if more != 0 || first.checked_add(length).is_none_or(|end| end > sectors) {
            let found = format!(
                "entry {index} covers {length} sectors from {first} on, with {more} bytes of data; the disk has {sectors} sectors"
            );
            return Err(LogError::Format(found));
        }
        let action = match flags {
            0 => {
                let ids = (0..length).map(|_| Ok(contents.add(&sector(&mut log)?)));
                Action::Write(first, ids.collect::<io::Result<_>>()?)
            }
            FLUSH if length == 0 => Action::Flush,
            DISCARD => Action::Discard(first, length),
            _ => {
                let found = format!("entry {index} has the flags {flags:#x}");
                return Err(LogError::Format(found));
            }
        };
        let data = if let Action::Write(..) = action { length } else { 0 };
        end += (1 + data) * SECTOR as u64;
        entries.push(Entry { action, end });
    }
    Ok(entries)
}

fn sector(log: &mut impl Read) -> io::Result<[u8; SECTOR]> {
    let mut bytes = [0; SECTOR];
    log.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Builds a log as QEMU writes it: its bytes and the number of entries.
    pub(crate) struct Writer(Vec<u8>, u64);

    impl Writer {
        pub(crate) fn new() -> Self {
            Self(vec![0; SECTOR], 0)
        }

        pub(crate) fn write(&mut self, first: u64, data: &[u8]) -> &mut Self {
            assert_eq!(data.len() % SECTOR, 0);
            self.entry([first, (data.len() / SECTOR) as u64, 0, 0], data)
        }

        pub(crate) fn discard(&mut self, first: u64, count: u64) -> &mut Self {
            self.entry([first, count, DISCARD, 0], &[])
        }

        pub(crate) fn flush(&mut self) -> &mut Self {
            self.entry([0, 0, FLUSH, 0], &[])
        }

        pub(crate) fn entry(&mut self, head: [u64; 4], data: &[u8]) -> &mut Self {
            self.0.extend(head.iter().flat_map(|number| number.to_le_bytes()));
            self.0.resize(self.0.len().next_multiple_of(SECTOR), 0);
            self.0.extend_from_slice(data);
            self.1 += 1;
            self
        }

        pub(crate) fn save(&mut self, dir: &Path) -> PathBuf {
            let head = [MAGIC, VERSION, self.1, SECTOR as u64];
            let head: Vec<u8> = head.iter().flat_map(|number| number.to_le_bytes()).collect();
            self.0[..head.len()].copy_from_slice(&head);
            let path = dir.join("writes.log");
            std::fs::write(&path, &self.0).unwrap();
            path
        }
    }

    fn parse(log: &mut Writer) -> Result<Vec<Entry>, String> {
        let dir = tempfile::tempdir().unwrap();
        read(&log.save(dir.path()), 100, &mut Contents::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn reads_writes_flushes_and_discards() {
        let mut log = Writer::new();
        let data = [[7; SECTOR], [0; SECTOR], [7; SECTOR]].concat();
        let entries = parse(log.write(5, &data).flush().discard(90, 10)).unwrap();
        let actions: Vec<&Action> = entries.iter().map(|entry| &entry.action).collect();
        let write = Action::Write(5, vec![1, 0, 1]);
        assert_eq!(actions, [&write, &Action::Flush, &Action::Discard(90, 10)]);
        let ends: Vec<u64> = entries.iter().map(|entry| entry.end / SECTOR as u64).collect();
        assert_eq!(ends, [5, 6, 7]);
    }

    #[test]
    fn rejects_invalid_logs() {
        for (head, expected) in [
            ([0, 0, 8, 0], "flags 0x8"),
            ([0, 0, 3, 0], "flags 0x3"),
            ([0, 1, FLUSH, 0], "flags 0x1"),
            ([0, 0, 0, 5], "5 bytes of data"),
            ([95, 6, 0, 0], "6 sectors from 95"),
            ([u64::MAX, 2, DISCARD, 0], "2 sectors from"),
            ([0, u64::MAX, 0, 0], "sectors from 0"),
            ([0, 1, 0, 0], "fill whole buffer"),
        ] {
            let error = parse(Writer::new().entry(head, &[])).unwrap_err();
            assert!(error.contains(expected), "{head:?}: {error}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for bytes in [vec![], vec![1; 4096]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(read(&path, 100, &mut Contents::default()).is_err());
        }
    }
}
