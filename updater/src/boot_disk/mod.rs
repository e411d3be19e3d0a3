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

use protocol::grubenv::DiskTag;

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
/// boot. A host whose boot loader cannot write to its disk waits this long in each boot. Later commands search
/// twice, because another command may be writing to the disk that they look for.
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
    /// Whether it is proven that the host was booted from it. If not, nothing is written to it.
    pub(crate) is_proven: bool,
}

/// Reads the grubenv of a device, which is empty if there is none; `None` if the device cannot be read.
pub(crate) type ReadGrubenv<'a> = &'a dyn Fn(&Path) -> Option<Vec<u8>>;

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
            let candidates = self.without_second_paths(with_uuid(self.host, self.uuid)?);
            let waited = since.elapsed();
            let (verdict, found) = self.judge(&told, record.as_ref(), &candidates);
            match verdict {
                Verdict::Booted(index) => {
                    return Ok(self.found(&told, &candidates[index], &found, found[index]));
                }
                Verdict::Probably(index)
                    if waited > DOUBT_TIMEOUT.saturating_sub(uptime).max(NEXT_DISK_INTERVAL) =>
                {
                    return Ok(probably(&candidates[index]));
                }
                Verdict::Copies(indexes) => return Err(copies(&candidates, &indexes)),
                Verdict::Undecided(indexes) if waited > until(BOOT_TIMEOUT) => {
                    return Err(copies(&candidates, &indexes));
                }
                _ if waited > until(BOOT_TIMEOUT) => return Err(self.missing(candidates)),
                Verdict::None | Verdict::Probably(_) | Verdict::Undecided(_) => {}
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
        Some(BootDisk { node: candidate.node, needs_tag: record.needs_tag, is_proven: true })
    }

    /// Removes a device that is another path to an earlier one. Without multipathd, Linux shows a disk at each
    /// of its paths. Identifiers that should be unique may not be, so the grubenv has to be the same, too.
    fn without_second_paths(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let read = |candidate: &Candidate| (self.read_grubenv)(&candidate.node);
        let is_second_path = |first: &Candidate, second: &Candidate| {
            let is_same = first.extent.is_some() && first.extent == second.extent;
            is_same && read(first).is_some_and(|grubenv| Some(grubenv) == read(second))
        };
        let mut kept: Vec<Candidate> = Vec::new();
        for candidate in candidates {
            if !kept.iter().any(|first| is_second_path(first, &candidate)) {
                kept.push(candidate);
            }
        }
        kept
    }

    /// Judges the disks. A disk that was found before, and got another device since, is found by its serial
    /// number, which a copy of the disk does not have, and by its tag if GRUB passes tags.
    fn judge(
        &self,
        told: &Told,
        record: Option<&Record>,
        candidates: &[Candidate],
    ) -> (Verdict, Vec<Option<Found>>) {
        if told.is_nothing() && record.is_none() {
            let found = vec![None; candidates.len()];
            return (judge(told, &found), found);
        }
        let read = |candidate: &Candidate| (self.read_grubenv)(&candidate.node);
        let found: Vec<Option<Found>> =
            candidates.iter().map(|candidate| Some(Found::of(&read(candidate)?))).collect();
        let Some(record) = record else { return (judge(told, &found), found) };
        let tag: Option<DiskTag> = record.tag.as_ref().and_then(|tag| tag.parse().ok());
        let is_recorded = |index: &usize| {
            let has_tag = match tag {
                Some(_) => found[*index].is_some_and(|found| found.tag == tag),
                None => told.is_nothing(),
            };
            has_tag && record.serial.is_some() && candidates[*index].serial == record.serial
        };
        let same: Vec<usize> = (0..found.len()).filter(is_recorded).collect();
        let verdict = match same[..] {
            [] => Verdict::None,
            [only] => Verdict::Booted(only),
            _ => Verdict::Copies(same),
        };
        (verdict, found)
    }

    /// Records the disk. Without a record, the next command has to find the disk again, and refuses to if it
    /// cannot.
    fn found(
        &self,
        told: &Told,
        candidate: &Candidate,
        all: &[Option<Found>],
        found: Option<Found>,
    ) -> BootDisk {
        let tag = found.and_then(|found| found.tag);
        let has_tag = |other: &&Option<Found>| other.is_some_and(|other| other.tag == tag);
        let is_shared = all.iter().filter(has_tag).count() > 1;
        let needs_tag = told.passes_tags() && (tag.is_none() || is_shared);
        let tag = tag.map(|tag| tag.to_string());
        let record = Record { tag, needs_tag, ..Record::of(candidate) };
        log::info!("the host was booted from {}", candidate.description);
        if let Err(error) = record.write(self.run_directory, &candidate.node) {
            log::warn!("{}", io_error("record the disk in", self.run_directory)(error));
        }
        BootDisk { node: candidate.node.clone(), needs_tag, is_proven: true }
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

/// Returns a disk that is only read. It is not recorded: the disk that was booted may still appear.
fn probably(candidate: &Candidate) -> BootDisk {
    log::warn!("{}", BootDiskError::NotProven(candidate.description.clone()));
    BootDisk { node: candidate.node.clone(), needs_tag: false, is_proven: false }
}

fn copies(candidates: &[Candidate], indexes: &[usize]) -> BootDiskError {
    let describe = |index: &usize| candidates[*index].description.clone();
    BootDiskError::Copies { disks: indexes.iter().map(describe).collect() }
}
