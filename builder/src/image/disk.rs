//! The raw disk image: a GPT with a BIOS boot partition and the EFI system partition (ESP).

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BIOS, EFI};
use protocol::digest;
use uuid::Uuid;

use super::{bios, sparse};

/// The number of sectors in a MiB.
const MIB: u64 = (1 << 20) / bios::SECTOR as u64;
/// The BIOS boot partition starts at 1 MiB and has the size of 1 MiB.
const BIOS_START: u64 = MIB;
const BIOS_SECTORS: u64 = MIB;
/// The ESP follows the BIOS boot partition.
const ESP_START: u64 = BIOS_START + BIOS_SECTORS;
/// The space after the ESP. The backup GPT needs 33 sectors; 1 MiB keeps the size a whole number of MiB.
const TAIL: u64 = MIB;

/// Returns the name of the part at an offset of a disk image of `size` bytes.
pub(crate) fn part_at(offset: u64, size: u64) -> &'static str {
    match offset / bios::SECTOR as u64 {
        0 => "the boot sector",
        1..BIOS_START => "the partition table",
        BIOS_START..ESP_START => "the BIOS boot partition",
        sector if sector < (size / bios::SECTOR as u64).saturating_sub(TAIL) => {
            "the EFI system partition"
        }
        _ => "the backup of the partition table",
    }
}

/// Returns the bytes of the ESP in a disk image of `size` bytes.
pub(crate) fn esp(size: u64) -> Range<u64> {
    let sector = bios::SECTOR as u64;
    ESP_START * sector..size.saturating_sub(TAIL * sector)
}

/// The contents of a disk image.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    /// The image of the ESP, whose size is a whole number of MiB.
    pub esp: &'a Path,
    /// GRUB's `boot.img`.
    pub boot_img: &'a [u8],
    /// GRUB's `core.img`.
    pub core_img: &'a [u8],
    /// The text that GUIDs are derived from, so that the same content gives the same image.
    pub seed: &'a str,
}

impl Disk<'_> {
    /// Writes the disk image. Runs of zeros in the ESP become holes.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let failed = || format!("writing {}", to.display());
        let esp_size =
            self.esp.metadata().with_context(|| format!("reading {}", self.esp.display()))?.len();
        ensure!(
            esp_size > 0 && esp_size % (1 << 20) == 0,
            "{} has {esp_size} bytes, expected a whole number of MiB",
            self.esp.display()
        );
        let esp_sectors = esp_size / bios::SECTOR as u64;
        let sectors = ESP_START + esp_sectors + TAIL;
        let mut disk = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(to)
            .with_context(failed)?;
        disk.set_len(sectors * bios::SECTOR as u64).with_context(failed)?;
        self.partition(&mut disk, sectors, esp_sectors).with_context(failed)?;
        let core = bios::core(self.core_img, BIOS_START, BIOS_SECTORS)?;
        disk.write_all_at(&core, BIOS_START * bios::SECTOR as u64).with_context(failed)?;
        let esp = File::open(self.esp);
        let esp = esp.with_context(|| format!("reading {}", self.esp.display()))?;
        sparse::copy(&esp, &disk, ESP_START * bios::SECTOR as u64).with_context(failed)
    }

    fn partition(&self, disk: &mut File, sectors: u64, esp_sectors: u64) -> Result<()> {
        // The MBR has to exist before the GPT, because the library reads it back.
        let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
        mbr.set_bootcode(bios::boot_code(self.boot_img, BIOS_START)?);
        mbr.overwrite_lba0(disk)?;
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(LogicalBlockSize::Lb512)
            .create_from_device(disk, Some(self.guid("disk")))?;
        table.add_partition_at("BIOS boot", 1, BIOS_START, BIOS_SECTORS, BIOS, 0)?;
        table.add_partition_at("EFI system", 2, ESP_START, esp_sectors, EFI, 0)?;
        let mut partitions = table.partitions().clone();
        for (number, partition) in &mut partitions {
            partition.part_guid = self.guid(&format!("partition {number}"));
        }
        table.update_partitions(partitions)?;
        table.write()?;
        Ok(())
    }

    /// Derives a GUID from the seed. RFC 9562 reserves version 8 for such custom formats.
    fn guid(&self, what: &str) -> Uuid {
        let digest = digest::of_bytes(format!("EtchaOS {what} {}", self.seed).as_bytes());
        let bits = u128::from_str_radix(&digest[..32], 16).expect("a digest is hexadecimal");
        uuid::Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{judge, skip};

    fn disk(directory: &Path, esp_size: u64) -> Result<std::path::PathBuf> {
        let esp = directory.join("esp.img");
        File::create(&esp)?.set_len(esp_size)?;
        let to = directory.join("disk.raw");
        let (boot_img, core_img) = ([1; 512], [2; 100_000]);
        let disk = Disk { esp: &esp, boot_img: &boot_img, core_img: &core_img, seed: "a version" };
        disk.write(&to).map(|()| to)
    }

    #[test]
    fn sgdisk_accepts_disk_and_finds_both_partitions() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = disk(directory.path(), 40 << 20).unwrap();
        let Some(verdict) = judge("sgdisk", &["--verify", "--print", disk.to_str().unwrap()])
        else {
            return;
        };
        assert!(verdict.contains("No problems found"), "{verdict}");
        assert!(verdict.contains("EF02") && verdict.contains("EF00"), "{verdict}");
    }

    #[test]
    fn same_content_gives_same_disk() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |directory: &Path| std::fs::read(disk(directory, 8 << 20).unwrap()).unwrap();
        assert!(read(a.path()) == read(b.path()));
    }

    #[test]
    fn rejects_esp_of_invalid_size() {
        let directory = tempfile::tempdir().unwrap();
        assert!(disk(directory.path(), 0).is_err());
        assert!(disk(directory.path(), (8 << 20) + 1).is_err());
    }
}
