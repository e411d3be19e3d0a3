//! The raw disk: GPT with a BIOS boot partition and the EFI system partition.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BIOS, EFI};
use sha2::{Digest, Sha256};
use testbed::disk::copy_blocks;
use uuid::Uuid;

use super::bios;

/// Sectors in a MiB.
const MIB: u64 = (1 << 20) / bios::SECTOR as u64;
/// The BIOS boot partition begins at the first MiB and takes one.
const BIOS_START: u64 = MIB;
const BIOS_SECTORS: u64 = MIB;
/// The ESP follows.
const ESP_START: u64 = BIOS_START + BIOS_SECTORS;
/// The backup GPT at the end: 33 sectors; a whole MiB keeps the size round.
const TAIL: u64 = MIB;

/// What goes onto a disk.
#[derive(Debug)]
pub struct Disk<'a> {
    /// The image of the ESP; a whole number of MiB.
    pub esp: &'a Path,
    /// GRUB's `boot.img`.
    pub boot_img: &'a [u8],
    /// GRUB's `core.img`.
    pub core_img: &'a [u8],
    /// What the GUIDs are derived from, so that the same content gives the same disk.
    pub seed: &'a str,
}

impl Disk<'_> {
    /// Writes the disk image; empty parts of the ESP stay holes.
    pub fn write(&self, to: &Path) -> Result<()> {
        let failed = || format!("writing {}", to.display());
        let esp_size =
            self.esp.metadata().with_context(|| format!("reading {}", self.esp.display()))?.len();
        ensure!(
            esp_size > 0 && esp_size % (1 << 20) == 0,
            "{} has {esp_size} bytes, expected whole MiB",
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
        seek(&mut disk, BIOS_START)?;
        disk.write_all(&core).with_context(failed)?;
        seek(&mut disk, ESP_START)?;
        copy_blocks(&mut File::open(self.esp)?, &mut disk).with_context(failed)?;
        Ok(())
    }

    fn partition(&self, disk: &mut File, sectors: u64, esp_sectors: u64) -> Result<()> {
        // Before the GPT: the library reads the protective MBR back.
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

    /// A GUID (RFC 9562, version 8: made as we please) from the seed.
    fn guid(&self, what: &str) -> Uuid {
        let digest = Sha256::digest(format!("EtchaOS {what} {}", self.seed));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

fn seek(disk: &mut File, sector: u64) -> Result<()> {
    disk.seek(SeekFrom::Start(sector * bios::SECTOR as u64))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::judge;

    fn disk(directory: &Path, esp_size: u64) -> Result<std::path::PathBuf> {
        let esp = directory.join("esp.img");
        File::create(&esp)?.set_len(esp_size)?;
        let to = directory.join("disk.raw");
        let (boot_img, core_img) = ([1; 512], [2; 100_000]);
        let disk = Disk { esp: &esp, boot_img: &boot_img, core_img: &core_img, seed: "a version" };
        disk.write(&to).map(|()| to)
    }

    #[test]
    fn sgdisk_finds_no_fault_and_both_partitions() {
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
    fn the_same_content_gives_the_same_disk() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |directory: &Path| std::fs::read(disk(directory, 8 << 20).unwrap()).unwrap();
        assert!(read(a.path()) == read(b.path()));
    }

    #[test]
    fn a_broken_esp_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(disk(directory.path(), 0).is_err());
        assert!(disk(directory.path(), (8 << 20) + 1).is_err());
    }
}
