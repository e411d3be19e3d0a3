//! Finds the disk that GRUB booted from. A host may have several with the same ESP: an installation stick
//! that was left in, a spare, a snapshot that was attached. `proof` decides between them.

mod candidates;
mod error;
mod proof;
mod record;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::grubenv::{Block, DiskTag};

use self::candidates::{Candidate, named, with_uuid};
pub use self::error::BootDiskError;
use self::error::io_error;
use self::proof::{Found, Told, Verdict, judge};
use self::record::Record;
use crate::host::Host;

/// How long after the boot a disk may take to appear. In an emulated machine on a busy host, udev took
/// three minutes.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a disk may take to appear later.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long after the boot to wait for another disk, if the one that is there does not have the count of this
/// boot. A host whose boot loader cannot write to its disk waits this long in each boot.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(60);
/// The time between two searches, if no disk is there yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The time between two searches, if disks are there that were not booted. Each search mounts them.
const NEXT_DISK_INTERVAL: Duration = Duration::from_secs(1);

/// The disk that GRUB booted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootDisk {
    /// The node of its ESP below /dev.
    pub(crate) node: PathBuf,
    /// Whether it needs a new tag: it has none, or another disk has the same. `false` if GRUB would not pass
    /// the tag to the kernel.
    pub(crate) needs_tag: bool,
}

/// Reads the grubenv of a device; `None` if it cannot be read.
pub(crate) type ReadGrubenv<'a> = &'a dyn Fn(&Path) -> Option<Block>;

/// A search for the disk that was booted.
pub(crate) struct Search<'a> {
    pub(crate) host: &'a Host,
    /// The UUID of the ESP, as udev spells it.
    pub(crate) uuid: &'a str,
    /// The directory of the record, which is kept until the next boot.
    pub(crate) run_directory: &'a Path,
    pub(crate) read_grubenv: ReadGrubenv<'a>,
}

impl Search<'_> {
    /// Returns the disk that was booted. Waits for a disk that appears late.
    pub(crate) fn run(&self) -> Result<BootDisk, BootDiskError> {
        let cmdline = self.host.cmdline().map_err(io_error("read", Path::new("/proc/cmdline")))?;
        let told = Told::of(&cmdline);
        let since = Instant::now();
        let uptime = self.host.uptime().unwrap_or(Duration::MAX);
        let until = |after_boot: Duration| after_boot.saturating_sub(uptime).max(TIMEOUT);
        loop {
            let record = Record::read(self.run_directory);
            if let Some(disk) = record.as_ref().and_then(|record| self.recorded(record)) {
                return Ok(disk);
            }
            let candidates = with_uuid(self.host, self.uuid)?;
            let waited = since.elapsed();
            match self.judge(&told, record.as_ref(), &candidates) {
                (Verdict::Booted(index), found) => {
                    return self.found(&told, &candidates, &found, index);
                }
                (Verdict::Probably(index), found) if waited > until(DOUBT_TIMEOUT) => {
                    log::warn!(
                        "{} does not have the count of this boot, but no other disk is there",
                        candidates[index].description
                    );
                    return self.found(&told, &candidates, &found, index);
                }
                (Verdict::Copies(indexes), _) => {
                    let describe = |index: &usize| candidates[*index].description.clone();
                    return Err(BootDiskError::Copies {
                        disks: indexes.iter().map(describe).collect(),
                    });
                }
                (Verdict::None | Verdict::Probably(_), _) => {}
            }
            if waited > until(BOOT_TIMEOUT) {
                return Err(self.missing(candidates));
            }
            std::thread::sleep(match candidates.is_empty() {
                true => RETRY_INTERVAL,
                false => NEXT_DISK_INTERVAL,
            });
        }
    }

    /// Returns the disk that an earlier search of this boot found, if it is still there.
    fn recorded(&self, record: &Record) -> Option<BootDisk> {
        let candidate = named(self.host, &record.name).filter(|found| record.is_of(found))?;
        Some(BootDisk { node: candidate.node, needs_tag: record.needs_tag })
    }

    /// Judges the disks. A disk that was found before, and got another device since, is found by its tag.
    fn judge(
        &self,
        told: &Told,
        record: Option<&Record>,
        candidates: &[Candidate],
    ) -> (Verdict, Vec<Found>) {
        let is_tagged = record.is_some_and(|record| record.tag.is_some());
        if told.is_nothing() && !is_tagged {
            let found = vec![Found::default(); candidates.len()];
            return (judge(told, &found), found);
        }
        let read = |candidate: &Candidate| (self.read_grubenv)(&candidate.node);
        let found: Vec<Found> =
            candidates.iter().map(|candidate| Found::of(read(candidate).as_ref())).collect();
        let Some(record) = record else { return (judge(told, &found), found) };
        let tag: Option<DiskTag> = record.tag.as_ref().and_then(|tag| tag.parse().ok());
        let has_tag = |index: &usize| tag.is_some() && found[*index].tag == tag;
        let same: Vec<usize> = (0..found.len()).filter(has_tag).collect();
        let verdict = match same[..] {
            [] => Verdict::None,
            [only] => Verdict::Booted(only),
            _ => Verdict::Copies(same),
        };
        (verdict, found)
    }

    /// Records the disk.
    fn found(
        &self,
        told: &Told,
        candidates: &[Candidate],
        found: &[Found],
        index: usize,
    ) -> Result<BootDisk, BootDiskError> {
        let (tag, node) = (found[index].tag, candidates[index].node.clone());
        let is_shared = found.iter().filter(|other| other.tag == tag).count() > 1;
        let needs_tag = told.passes_tags() && (tag.is_none() || is_shared);
        let tag = tag.map(|tag| tag.to_string());
        Record::new(&candidates[index], tag, needs_tag)
            .write(self.run_directory, &node)
            .map_err(io_error("record the disk in", self.run_directory))?;
        log::info!("the host was booted from {}", candidates[index].description);
        Ok(BootDisk { node, needs_tag })
    }

    /// Records that the disk got this tag.
    pub(crate) fn record_tag(&self, tag: DiskTag) -> Result<(), BootDiskError> {
        let Some(record) = Record::read(self.run_directory) else { return Ok(()) };
        let Some(candidate) = named(self.host, &record.name) else { return Ok(()) };
        let record = Record { tag: Some(tag.to_string()), needs_tag: false, ..record };
        record
            .write(self.run_directory, &candidate.node)
            .map_err(io_error("record the disk in", self.run_directory))
    }

    fn missing(&self, candidates: Vec<Candidate>) -> BootDiskError {
        match candidates.is_empty() {
            true => BootDiskError::Missing(self.uuid.to_owned()),
            false => BootDiskError::OnlyOthers {
                disks: candidates.into_iter().map(|candidate| candidate.description).collect(),
            },
        }
    }
}
