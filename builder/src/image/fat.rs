//! A reader of FAT32 file systems that finds the free space, from Microsoft's "FAT File System
//! Specification".

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};

/// The maximum size of a FAT, which has 4 bytes for each cluster. 64 MiB are enough for any ESP.
const FAT_MAX: u64 = 64 << 20;
/// The bits of an entry that have the next cluster; the others are reserved.
const ENTRY_MASK: u32 = 0x0fff_ffff;
/// The number of entries at the start of a FAT that belong to no cluster.
const RESERVED_ENTRIES: usize = 2;

/// Returns the byte ranges of `disk` that are free in the FAT32 file system at `partition`. They are in
/// order and do not touch.
///
/// # Errors
/// Fails if there is no valid FAT32 file system.
pub(crate) fn free_space(disk: &File, partition: Range<u64>) -> Result<Vec<Range<u64>>> {
    let mut boot = [0; 512];
    disk.read_exact_at(&mut boot, partition.start).context("reading the boot sector")?;
    let layout = Layout::parse(&boot, partition.end.saturating_sub(partition.start))?;
    let mut fat = vec![0; usize::try_from(layout.fat_size)?];
    disk.read_exact_at(&mut fat, partition.start + layout.fat).context("reading the FAT")?;

    let first = partition.start + layout.data;
    let mut free: Vec<Range<u64>> = Vec::new();
    let (entries, _) = fat.as_chunks::<4>();
    let clusters = entries.iter().skip(RESERVED_ENTRIES).zip(0..layout.clusters);
    for (entry, number) in clusters {
        if u32::from_le_bytes(*entry) & ENTRY_MASK != 0 {
            continue;
        }
        let start = first + number * layout.cluster_size;
        let end = start + layout.cluster_size;
        match free.last_mut().filter(|last| last.end == start) {
            Some(last) => last.end = end,
            None => free.push(start..end),
        }
    }
    Ok(free)
}

/// Where the parts of a file system are, in bytes from its start.
#[derive(Debug)]
struct Layout {
    /// The start of the first FAT.
    fat: u64,
    /// The size of a FAT.
    fat_size: u64,
    /// The start of the first cluster.
    data: u64,
    cluster_size: u64,
    /// The number of clusters.
    clusters: u64,
}

impl Layout {
    fn parse(boot: &[u8; 512], partition_size: u64) -> Result<Self> {
        let byte = |at: usize| u64::from(boot[at]);
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        ensure!(boot[510..] == [0x55, 0xaa], "the boot sector has no signature");
        let (sector, per_cluster) = (word(11), byte(13));
        ensure!(
            (512..=4096).contains(&sector) && sector.is_power_of_two(),
            "a sector has {sector} bytes, expected 512 to 4096"
        );
        ensure!(per_cluster.is_power_of_two(), "a cluster has {per_cluster} sectors");
        let (reserved, fats, fat) = (word(14), byte(16), long(36));
        ensure!(
            word(17) == 0 && word(22) == 0 && fat > 0 && reserved > 0 && fats > 0,
            "the file system is not FAT32"
        );
        let total = long(32);
        ensure!(
            total * sector <= partition_size,
            "the file system has {total} sectors, more than its partition"
        );
        let data = reserved + fats * fat;
        ensure!(data < total, "the FATs take {data} of {total} sectors");
        let clusters = (total - data) / per_cluster;
        let fat_size = fat * sector;
        ensure!(
            fat_size <= FAT_MAX && clusters + RESERVED_ENTRIES as u64 <= fat_size / 4,
            "a FAT of {fat_size} bytes does not fit {clusters} clusters"
        );
        Ok(Self {
            fat: reserved * sector,
            fat_size,
            data: data * sector,
            cluster_size: per_cluster * sector,
            clusters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a boot sector for 100 clusters of one sector.
    fn boot_sector() -> [u8; 512] {
        let mut boot = [0; 512];
        boot[11..17].copy_from_slice(&[0, 2, 1, 32, 0, 2]);
        boot[32] = 134;
        boot[36] = 1;
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    fn free(boot: [u8; 512], entries: &[(usize, u32)]) -> Result<Vec<Range<u64>>> {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(1024 + 134 * 512).unwrap();
        disk.write_all_at(&boot, 1024).unwrap();
        for (number, entry) in entries {
            let at = 1024 + 32 * 512 + 4 * *number as u64;
            disk.write_all_at(&entry.to_le_bytes(), at).unwrap();
        }
        free_space(&disk, 1024..1024 + 134 * 512)
    }

    #[test]
    fn merges_free_clusters_and_ignores_reserved_bits() {
        let cluster = |number: u64| 1024 + (34 + number - 2) * 512;
        let entries = [(2, 0x0fff_ffff), (3, 0xf000_0000), (5, 7), (6, 1)];
        let expected = [cluster(3)..cluster(5), cluster(7)..cluster(102)];
        assert_eq!(free(boot_sector(), &entries).unwrap(), expected);
    }

    #[test]
    fn rejects_file_systems_that_are_not_fat32_or_do_not_fit() {
        let changes: [(usize, u8); 10] = [
            (510, 0),
            (12, 0),
            (12, 3),
            (13, 0),
            (13, 3),
            (14, 0),
            (16, 0),
            (17, 1),
            (33, 1),
            (38, 1),
        ];
        for (at, value) in changes {
            let mut boot = boot_sector();
            boot[at] = value;
            assert!(free(boot, &[]).is_err(), "byte {at} = {value}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_within_the_partition(
            changes in prop::collection::vec((11_usize..48, any::<u8>()), 0..8),
        ) {
            let mut boot = boot_sector();
            for (at, value) in changes {
                boot[at] = value;
            }
            if let Ok(ranges) = free(boot, &[]) {
                prop_assert!(ranges.iter().all(|range| range.end <= 1024 + 134 * 512));
            }
        }
    }
}
