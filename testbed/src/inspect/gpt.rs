//! The partition table as firmware reads it (UEFI specification, section 5.3.2): the primary copy if it is valid,
//! otherwise the backup in the last sector.

use std::io;
use std::ops::Range;

use super::disk::{ESP_TYPE, SECTOR, Sectors};

/// The type of the data partition, in on-disk byte order.
const DATA_TYPE: [u8; 16] = [
    0x4e, 0x1a, 0x3d, 0x7c, 0xf2, 0x95, 0x0c, 0x4b, 0x8d, 0x6a, 0xe7, 0xc4, 0xa0, 0x5d, 0x11, 0xd8,
];
/// The attribute of a data partition without a complete file system.
const UNFINISHED: u64 = 1 << 48;
/// The sizes of the sectors of a disk, in sectors of [`SECTOR`] bytes.
const UNITS: [u64; 2] = [1, 8];
const HEADER: Range<usize> = 0..92;
const ENTRY: usize = 128;
/// The limit on the number of entries.
const ENTRIES_MAX: u32 = 1024;

/// The partitions that matter here. Ranges are in sectors of [`SECTOR`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partitions {
    /// The EFI system partition.
    pub esp: Range<u64>,
    /// The data partition, if its file system is complete.
    pub data: Option<Range<u64>>,
}

/// Returns the partitions of a disk with this number of sectors.
///
/// # Errors
/// Fails with the problem if neither copy of the table is valid, or if it has no EFI system partition.
pub(crate) fn partitions(disk: &impl Sectors, sectors: u64) -> Result<Partitions, String> {
    let unreadable = |error: io::Error| error.to_string();
    for unit in UNITS {
        let last = sectors / unit - 1;
        for header in [1, last] {
            if let Some(entries) = entries(disk, sectors, unit, header).map_err(unreadable)? {
                return of_entries(&entries, unit);
            }
        }
    }
    Err("neither the primary partition table nor the backup is valid".to_owned())
}

/// Returns the entries of the copy whose header is in the sector `own`, or `None` if it is not valid. Sectors
/// are counted in units of `unit` sectors of [`SECTOR`] bytes.
fn entries(disk: &impl Sectors, sectors: u64, unit: u64, own: u64) -> io::Result<Option<Vec<u8>>> {
    let mut header = disk.read(own * unit)?[HEADER].to_vec();
    let expected = u32_at(&header, 16);
    header[16..20].fill(0);
    let (count, size) = (u32_at(&header, 80), u32_at(&header, 84));
    let is_valid = header.starts_with(b"EFI PART")
        && u32_at(&header, 12) as usize == HEADER.end
        && crc32(&header) == expected
        && u64_at(&header, 24) == own
        && size as usize == ENTRY
        && (1..=ENTRIES_MAX).contains(&count);
    if !is_valid {
        return Ok(None);
    }
    let length = count as usize * ENTRY;
    let first = u64_at(&header, 72).saturating_mul(unit);
    let end = first.saturating_add(length.div_ceil(SECTOR) as u64);
    if end > sectors {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(length);
    for sector in first..end {
        bytes.extend(disk.read(sector)?);
    }
    bytes.truncate(length);
    Ok((crc32(&bytes) == u32_at(&header, 88)).then_some(bytes))
}

fn of_entries(entries: &[u8], unit: u64) -> Result<Partitions, String> {
    let mut entries = entries.chunks_exact(ENTRY);
    let range = |entry: &[u8]| u64_at(entry, 32) * unit..(u64_at(entry, 40) + 1) * unit;
    let esp = entries.clone().find(|entry| entry[..16] == ESP_TYPE);
    let esp = esp.map(range).ok_or("the partition table has no EFI system partition")?;
    let data = entries.find(|entry| entry[..16] == DATA_TYPE);
    let data = data.filter(|entry| u64_at(entry, 48) & UNFINISHED == 0).map(range);
    Ok(Partitions { esp, data })
}

/// Returns the CRC-32 with the polynomial of Ethernet, as the UEFI specification requires.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let add = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(!0, add)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::is_installed;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    const SECTORS: u64 = 65_536;

    #[test]
    fn computes_the_check_value_of_crc32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// Returns a disk with a table that sgdisk made, or `None` if it is not installed.
    fn disk(arguments: &[&str]) -> Option<(tempfile::TempDir, File)> {
        if !is_installed("sgdisk") {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "sgdisk is missing");
            eprintln!("SKIPPED: sgdisk is missing (package gdisk)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let file = File::create_new(&path).unwrap();
        file.set_len(SECTORS * SECTOR as u64).unwrap();
        let output = Command::new("sgdisk").args(arguments).arg(&path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Some((dir, file))
    }

    #[test]
    fn reads_the_copy_that_is_valid() {
        let Some((_dir, file)) = disk(&["--new=1:2048:4095", "--typecode=1:ef00"]) else { return };
        let expected = Partitions { esp: 2048..4096, data: None };
        assert_eq!(partitions(&file, SECTORS), Ok(expected.clone()));
        // The primary array is torn.
        file.write_all_at(&[1], 2 * SECTOR as u64 + 40).unwrap();
        assert_eq!(partitions(&file, SECTORS), Ok(expected));
        file.write_all_at(&[1], (SECTORS - 1) * SECTOR as u64 + 30).unwrap();
        assert!(partitions(&file, SECTORS).unwrap_err().contains("neither"));
    }

    #[test]
    fn finds_a_finished_data_partition() {
        let arguments = [
            "--new=1:2048:4095",
            "--typecode=1:ef00",
            "--new=2:4096:8191",
            "--typecode=2:7c3d1a4e-95f2-4b0c-8d6a-e7c4a05d11d8",
        ];
        let Some((_dir, file)) = disk(&arguments) else { return };
        assert_eq!(partitions(&file, SECTORS).unwrap().data, Some(4096..8192));
        let Some((_dir, file)) = disk(&[&arguments[..], &["--attributes=2:set:48"]].concat())
        else {
            return;
        };
        assert_eq!(partitions(&file, SECTORS).unwrap().data, None);
    }
}
