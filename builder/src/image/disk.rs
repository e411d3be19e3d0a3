//! The raw disk image: a GPT with the EFI system partition (ESP) and, where machines have a BIOS, a BIOS boot
//! partition.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BIOS, EFI};
use protocol::{Arch, digest};
use uuid::Uuid;

use super::{bios, sparse};

/// The number of sectors in a MiB.
const MIB: u64 = (1 << 20) / bios::SECTOR as u64;
/// The BIOS boot partition starts at 1 MiB and has the size of 1 MiB.
const BIOS_START: u64 = MIB;
const BIOS_SECTORS: u64 = MIB;
/// The ESP follows the BIOS boot partition. It starts at the same offset in an image without that partition.
const ESP_START: u64 = BIOS_START + BIOS_SECTORS;
/// The space after the ESP. The backup GPT needs 33 sectors; 1 MiB keeps the size a whole number of MiB.
const TAIL: u64 = MIB;

/// Returns whether machines of an architecture can boot by BIOS.
pub(crate) fn has_bios(arch: Arch) -> bool {
    match arch {
        Arch::Amd64 => true,
        Arch::Arm64 => false,
    }
}

/// Returns the name of the part at an offset of a disk image of `size` bytes.
pub(crate) fn part_at(offset: u64, size: u64, arch: Arch) -> &'static str {
    match offset / bios::SECTOR as u64 {
        0 => "the boot sector",
        1..BIOS_START => "the partition table",
        BIOS_START..ESP_START if has_bios(arch) => "the BIOS boot partition",
        BIOS_START..ESP_START => "the space before the EFI system partition",
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
    /// GRUB for BIOS; absent if [`has_bios`] is false.
    pub bios: Option<BiosLoader>,
    /// The text that GUIDs are derived from, so that the same content gives the same image.
    pub seed: &'a str,
}

/// GRUB for BIOS.
#[derive(Debug)]
pub(crate) struct BiosLoader {
    /// `boot.img`.
    pub boot_img: Vec<u8>,
    /// `core.img`.
    pub core_img: Vec<u8>,
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
        if let Some(loader) = &self.bios {
            let core = bios::core(&loader.core_img, BIOS_START, BIOS_SECTORS)?;
            disk.write_all_at(&core, BIOS_START * bios::SECTOR as u64).with_context(failed)?;
        }
        let esp = File::open(self.esp);
        let esp = esp.with_context(|| format!("reading {}", self.esp.display()))?;
        sparse::copy(&esp, &disk, ESP_START * bios::SECTOR as u64).with_context(failed)
    }

    fn partition(&self, disk: &mut File, sectors: u64, esp_sectors: u64) -> Result<()> {
        // The MBR has to exist before the GPT, because the library reads it back.
        let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX));
        if let Some(loader) = &self.bios {
            mbr.set_bootcode(bios::boot_code(&loader.boot_img, BIOS_START)?);
        }
        mbr.overwrite_lba0(disk)?;
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(LogicalBlockSize::Lb512)
            .create_from_device(disk, Some(self.guid("disk")))?;
        let mut number = 1;
        if self.bios.is_some() {
            table.add_partition_at("BIOS boot", number, BIOS_START, BIOS_SECTORS, BIOS, 0)?;
            number += 1;
        }
        table.add_partition_at("EFI system", number, ESP_START, esp_sectors, EFI, 0)?;
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

    fn disk(directory: &Path, esp_size: u64, arch: Arch) -> Result<std::path::PathBuf> {
        let esp = directory.join("esp.img");
        File::create(&esp)?.set_len(esp_size)?;
        let to = directory.join("disk.raw");
        let loader = BiosLoader { boot_img: vec![1; 512], core_img: vec![2; 100_000] };
        let bios = has_bios(arch).then_some(loader);
        let disk = Disk { esp: &esp, bios, seed: "a version" };
        disk.write(&to).map(|()| to)
    }

    #[test]
    fn sgdisk_accepts_disk_and_finds_its_partitions() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        for arch in [Arch::Amd64, Arch::Arm64] {
            let directory = tempfile::tempdir().unwrap();
            let disk = disk(directory.path(), 40 << 20, arch).unwrap();
            let Some(verdict) = judge("sgdisk", &["--verify", "--print", disk.to_str().unwrap()])
            else {
                return;
            };
            assert!(verdict.contains("No problems found"), "{verdict}");
            assert!(verdict.contains("EF00"), "{verdict}");
            assert_eq!(verdict.contains("EF02"), has_bios(arch), "{verdict}");
        }
    }

    #[test]
    fn disk_without_bios_has_no_code_before_the_esp() {
        let directory = tempfile::tempdir().unwrap();
        let disk = std::fs::read(disk(directory.path(), 40 << 20, Arch::Arm64).unwrap()).unwrap();
        assert_eq!(disk[..bios::BOOT_CODE], [0; bios::BOOT_CODE]);
        let (start, end) = (BIOS_START as usize * bios::SECTOR, ESP_START as usize * bios::SECTOR);
        assert!(disk[start..end].iter().all(|byte| *byte == 0));
        let size = disk.len() as u64;
        assert_eq!(esp(size), end as u64..size - (1 << 20));
        assert_eq!(part_at(start as u64, size, Arch::Amd64), "the BIOS boot partition");
        assert!(!part_at(start as u64, size, Arch::Arm64).contains("BIOS"));
        assert_eq!(part_at(end as u64, size, Arch::Arm64), "the EFI system partition");
    }

    #[test]
    fn same_content_gives_same_disk() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |directory: &Path| {
            std::fs::read(disk(directory, 8 << 20, Arch::Amd64).unwrap()).unwrap()
        };
        assert!(read(a.path()) == read(b.path()));
    }

    #[test]
    fn rejects_esp_of_invalid_size() {
        let directory = tempfile::tempdir().unwrap();
        assert!(disk(directory.path(), 0, Arch::Amd64).is_err());
        assert!(disk(directory.path(), (8 << 20) + 1, Arch::Amd64).is_err());
    }
}
