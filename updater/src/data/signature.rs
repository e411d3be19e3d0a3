//! Looks for file systems, partition tables and other formats by their signatures, with util-linux.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::error::DataError;
use super::table::Medium;
use crate::process::{Process, ProcessError};

/// The name of an encrypted partition's format, as blkid prints it.
pub(super) const LUKS: &str = "crypto_LUKS";
const TIMEOUT: Duration = Duration::from_secs(60);
/// A partition begins at a multiple of this many bytes.
const ALIGNMENT: u64 = 1 << 20;
/// How much of the free space is searched in bytes. Images differ by less. A hard disk needs a minute for this.
const SEARCH_MAX: u64 = 4 << 30;
/// The parts of a magic number: their offsets in bytes, and their values.
type Parts = &'static [(u64, &'static [u8])];
/// The offsets and the values of magic numbers, in the superblocks of the file systems (ext4(5), xfs(5), and
/// Documentation/filesystems/ext4/super.rst, fs/btrfs/accessors.h in the kernel's source), and in the header of LUKS
/// (the LUKS2 On-Disk Format Specification). The magic number of ext4 has only two bytes, which random data often
/// have, so its revision level is compared too: mkfs.ext4 writes 1.
const MAGIC: [(&str, Parts); 4] = [
    ("ext4", &[(1024 + 0x38, &[0x53, 0xef]), (1024 + 0x4c, &[1, 0, 0, 0])]),
    ("xfs", &[(0, b"XFSB")]),
    ("btrfs", &[(0x1_0040, b"_BHRfS_M")]),
    (LUKS, &[(0, b"LUKS\xba\xbe")]),
];
/// The exit codes of blkid(8): nothing was found, and several formats were found.
const NOTHING: i32 = 2;
const SEVERAL: i32 = 8;

/// Returns the types of what is on a disk, such as `gpt` or `LVM2_member`.
pub(super) fn on_disk(node: &Path) -> Result<Option<String>, DataError> {
    let arguments = ["--noheadings", "--output", "TYPE"];
    let process = Process::new("wipefs", TIMEOUT).args(arguments).args([node.as_os_str()]);
    let found = process.stdout()?;
    let types: Vec<&str> = found.split_whitespace().collect();
    Ok((!types.is_empty()).then(|| types.join(", ")))
}

/// Returns the type of what begins at an offset of a disk. Looks at `size` bytes at most.
pub(super) fn at_offset(node: &Path, offset: u64, size: u64) -> Result<Option<String>, DataError> {
    probe(node, &[format!("--offset={offset}"), format!("--size={size}")])
}

/// Returns the type of the file system of a partition.
pub(super) fn of_partition(node: &Path) -> Result<Option<String>, DataError> {
    probe(node, &[])
}

/// Removes all signatures from a partition that has no data yet. An interrupted attempt may have left
/// those of another format, and mkfs does not remove the copies of a LUKS header.
pub(super) fn wipe(node: &Path) -> Result<(), DataError> {
    let process = Process::new("wipefs", TIMEOUT).args(["--all", "--quiet"]);
    process.args([node.as_os_str()]).stdout()?;
    Ok(())
}

/// Returns the first file system of a data partition that begins in a range of a disk, and where.
pub(super) fn find_file_system(
    disk: &dyn Medium,
    range: Range<u64>,
) -> io::Result<Option<(&'static str, u64)>> {
    let sector = disk.geometry().sector;
    let end = range.end.min(range.start.saturating_add(SEARCH_MAX));
    let mut offset = range.start.next_multiple_of(ALIGNMENT);
    while offset + ALIGNMENT <= end {
        for (kind, magic) in MAGIC {
            let mut matches = true;
            for (at, bytes) in magic {
                let (at, inside) = ((offset + at) / sector, ((offset + at) % sector) as usize);
                matches = matches && disk.read(at, 1)?[inside..].starts_with(bytes);
            }
            if matches {
                return Ok(Some((kind, offset)));
            }
        }
        offset += ALIGNMENT;
    }
    Ok(None)
}

fn probe(node: &Path, range: &[String]) -> Result<Option<String>, DataError> {
    let process = Process::new("blkid", TIMEOUT)
        .args(["--probe", "--output", "export"])
        .args(range)
        .args([node.as_os_str()]);
    let code = |status: &ExitStatus| status.code();
    match process.stdout() {
        Ok(output) => Ok(kind(&output).map(str::to_owned)),
        Err(ProcessError::Failed { status, .. }) if code(&status) == Some(NOTHING) => Ok(None),
        Err(ProcessError::Failed { status, .. }) if code(&status) == Some(SEVERAL) => {
            Ok(Some("several formats".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the type in blkid's output. For a partition without one, blkid prints only its entry in the table.
fn kind(output: &str) -> Option<&str> {
    ["TYPE=", "PTTYPE="]
        .iter()
        .find_map(|key| output.lines().find_map(|line| line.strip_prefix(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_a_file_system_to_a_partition_table() {
        assert_eq!(kind("DEVNAME=/dev/x\nPTTYPE=dos\nUUID=1\nTYPE=ext4\n"), Some("ext4"));
        assert_eq!(kind("PTTYPE=gpt\n"), Some("gpt"));
        assert_eq!(kind("UUID=1\n"), None);
    }

    #[test]
    fn finds_a_file_system_at_an_offset() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        assert_eq!(on_disk(file.path()).unwrap(), None);
        assert_eq!(at_offset(file.path(), 1 << 20, 2 << 20).unwrap(), None);
        let mut command = std::process::Command::new("mkfs.ext4");
        let path = file.path().to_str().unwrap();
        let Ok(output) = command.args(["-q", "-E", "offset=1048576", path, "2M"]).output() else {
            assert!(std::env::var("CI").is_err(), "mkfs.ext4 is needed for this test");
            return eprintln!("SKIPPED: mkfs.ext4 is not installed");
        };
        assert!(output.status.success(), "{output:?}");
        let found = at_offset(file.path(), 1 << 20, 2 << 20).unwrap();
        assert_eq!(found.as_deref(), Some("ext4"));
        assert_eq!(at_offset(file.path(), 0, 1 << 20).unwrap(), None);
    }
}
