//! The disk that has the data partition: the one that was booted, or one that the configuration names.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::DataError;
use super::sectors::Sectors;
use super::table::Geometry;
use crate::host::{Host, read_limited};

/// The limit on attributes of sysfs, which have at most a page.
const ATTRIBUTE_MAX: u64 = 4096;
/// The unit of `size` and `start` in sysfs, whatever the sectors of the disk are.
const SYSFS_SECTOR: u64 = 512;
/// The sizes of sectors that a table can be written in.
const SECTORS: [u64; 2] = [512, 4096];
/// How long to wait for a disk that the configuration names.
const DISK_TIMEOUT: Duration = Duration::from_secs(90);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A whole disk, open for reading and writing.
#[derive(Debug)]
pub(super) struct Disk {
    /// Its node below /dev.
    pub(super) node: PathBuf,
    /// Its directory in sysfs.
    pub(super) directory: PathBuf,
    pub(super) sectors: Sectors,
}

impl Disk {
    /// Opens the disk of a partition, given by its node.
    pub(super) fn of_partition(host: &Host, partition: &Path) -> Result<Self, DataError> {
        let directory = sysfs_directory(host, partition)?;
        let whole = directory.parent().filter(|_| directory.join("partition").exists());
        let whole = whole.ok_or_else(|| DataError::NoPartitionTable(partition.to_owned()))?;
        Self::open(host, whole.to_owned())
    }

    /// Opens a disk by its name in /dev. Waits for it to appear.
    pub(super) fn named(host: &Host, name: &Path) -> Result<Self, DataError> {
        let node = host.path(&name.to_string_lossy());
        let since = Instant::now();
        let uptime = host.uptime().unwrap_or(DISK_TIMEOUT);
        while !node.exists() {
            if since.elapsed() + uptime > DISK_TIMEOUT {
                return Err(DataError::NoDisk(name.to_owned()));
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
        let directory = sysfs_directory(host, &node)?;
        if directory.join("partition").exists() {
            return Err(DataError::NotWhole(name.to_owned()));
        }
        Self::open(host, directory)
    }

    /// Opens the disk with this directory in sysfs.
    fn open(host: &Host, directory: PathBuf) -> Result<Self, DataError> {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().replace('!', "/");
        let node = host.path("/dev").join(name);
        let file = File::options().read(true).write(true).open(&node);
        let file = file.map_err(DataError::io("open", &node))?;
        let number = |name: &str| attribute(&directory, name).and_then(|text| text.parse().ok());
        let sector = number("queue/logical_block_size").unwrap_or(SYSFS_SECTOR);
        let bytes = number("size").unwrap_or(0) * SYSFS_SECTOR;
        if !SECTORS.contains(&sector) {
            return Err(DataError::SectorSize { node, sector });
        }
        let geometry = Geometry { sector, sectors: bytes / sector };
        Ok(Self { node, directory, sectors: Sectors { file, geometry } })
    }

    /// Returns the size of a sector in bytes, and the number of sectors.
    pub(super) fn geometry(&self) -> Geometry {
        self.sectors.geometry
    }

    /// Returns whether the kernel uses the disk or a part of it: it is mounted or part of another device, or
    /// has partitions.
    pub(super) fn is_in_use(&self) -> bool {
        let has_entries = |path: PathBuf| {
            std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
        };
        let mut entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let has_partitions = entries.any(|entry| entry.path().join("partition").exists());
        has_partitions || has_entries(self.directory.join("holders"))
    }

    /// Returns the partition with this number as the kernel sees it.
    pub(super) fn kernel_partition(&self, host: &Host, number: u32) -> Option<KernelPartition> {
        let entries = std::fs::read_dir(&self.directory).ok()?.flatten();
        let is_it = |directory: &PathBuf| {
            attribute(directory, "partition").is_some_and(|found| found == number.to_string())
        };
        let directory = entries.map(|entry| entry.path()).find(is_it)?;
        let bytes =
            |name: &str| Some(attribute(&directory, name)?.parse::<u64>().ok()? * SYSFS_SECTOR);
        let name = directory.file_name()?.to_string_lossy().replace('!', "/");
        let node = host.path("/dev").join(name);
        Some(KernelPartition { node, start: bytes("start")?, size: bytes("size")? })
    }
}

/// A partition as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelPartition {
    /// Its node below /dev, which may not exist yet.
    pub(super) node: PathBuf,
    /// Its offset on the disk in bytes.
    pub(super) start: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// Returns the directory in sysfs of a block device.
fn sysfs_directory(host: &Host, node: &Path) -> Result<PathBuf, DataError> {
    let data = std::fs::metadata(node).map_err(DataError::io("open", node))?;
    if !data.file_type().is_block_device() {
        return Err(DataError::NotWhole(node.to_owned()));
    }
    let number = data.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let link = host.path(&format!("/sys/dev/block/{major}:{minor}"));
    std::fs::canonicalize(&link).map_err(DataError::io("find", &link))
}

fn attribute(directory: &Path, name: &str) -> Option<String> {
    let bytes = read_limited(&directory.join(name), ATTRIBUTE_MAX).ok()??;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}
