//! The raw disk image: a GPT with the EFI system partition (ESP) and, where machines have a BIOS, a BIOS boot
//! partition.
//!
//! A GPT and a FAT count in the logical sectors of the disk, so disks with sectors of 512 and of 4096 bytes need
//! an image each. Both have the ESP at the same offset.

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

const MIB: u64 = 1 << 20;
/// The size of the boot sector, on all disks (UEFI specification, section 5.2.1).
const BOOT_SECTOR: u64 = bios::SECTOR as u64;
/// The offset and the size of the BIOS boot partition.
const BIOS_START: u64 = MIB;
const BIOS_SIZE: u64 = MIB;
/// The ESP follows the BIOS boot partition. It starts at the same offset in an image without that partition.
const ESP_START: u64 = BIOS_START + BIOS_SIZE;
/// The space after the ESP. The backup GPT needs 33 sectors of 512 bytes, or 5 of 4096 bytes; 1 MiB keeps the
/// size a whole number of MiB.
const TAIL: u64 = MIB;

/// Returns whether machines of an architecture can boot by BIOS.
pub(crate) fn has_bios(arch: Arch) -> bool {
    match arch {
        Arch::Amd64 => true,
        Arch::Arm64 => false,
    }
}

/// Returns the name of the part at an offset of a disk image of `size` bytes, which boots by BIOS if `bios`.
pub(crate) fn part_at(offset: u64, size: u64, bios: bool) -> &'static str {
    match offset {
        0..BOOT_SECTOR => "the boot sector",
        BOOT_SECTOR..BIOS_START => "the partition table",
        BIOS_START..ESP_START if bios => "the BIOS boot partition",
        BIOS_START..ESP_START => "the space before the EFI system partition",
        offset if offset < size.saturating_sub(TAIL) => "the EFI system partition",
        _ => "the backup of the partition table",
    }
}

/// Returns the bytes of the ESP in a disk image of `size` bytes.
pub(crate) fn esp(size: u64) -> Range<u64> {
    ESP_START..size.saturating_sub(TAIL)
}

/// The contents of a disk image.
#[derive(Debug)]
pub(crate) struct Disk<'a> {
    /// The image of the ESP, whose size is a whole number of MiB. Its FAT has the sectors of the disk.
    pub esp: &'a Path,
    /// The logical sectors of the disks that the image is for.
    pub sectors: Sectors,
    /// The text that GUIDs are derived from, so that the same content gives the same image.
    pub seed: &'a str,
}

/// The size of the logical sectors of a disk.
#[derive(Debug)]
pub(crate) enum Sectors {
    /// 512 bytes. A BIOS boots only from such disks: with this loader, which is absent if [`has_bios`] is false.
    Of512(Option<BiosLoader>),
    /// 4096 bytes.
    Of4096,
}

impl Sectors {
    fn size(&self) -> LogicalBlockSize {
        match self {
            Self::Of512(_) => LogicalBlockSize::Lb512,
            Self::Of4096 => LogicalBlockSize::Lb4096,
        }
    }
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
            esp_size > 0 && esp_size % MIB == 0,
            "{} has {esp_size} bytes, expected a whole number of MiB",
            self.esp.display()
        );
        let mut disk = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(to)
            .with_context(failed)?;
        disk.set_len(ESP_START + esp_size + TAIL).with_context(failed)?;
        self.partition(&mut disk, esp_size).with_context(failed)?;
        if let Sectors::Of512(Some(loader)) = &self.sectors {
            let (lba, sectors) = (BIOS_START / BOOT_SECTOR, BIOS_SIZE / BOOT_SECTOR);
            let core = bios::core(&loader.core_img, lba, sectors)?;
            disk.write_all_at(&core, BIOS_START).with_context(failed)?;
        }
        let esp = File::open(self.esp);
        let esp = esp.with_context(|| format!("reading {}", self.esp.display()))?;
        sparse::copy(&esp, &disk, ESP_START).with_context(failed)
    }

    fn partition(&self, disk: &mut File, esp_size: u64) -> Result<()> {
        let sector_size = self.sectors.size();
        let sectors = |bytes: u64| bytes / u64::from(sector_size);
        // The MBR has to exist before the GPT, because the library reads it back.
        let last = sectors(ESP_START + esp_size + TAIL) - 1;
        let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(last).unwrap_or(u32::MAX));
        let bios = match &self.sectors {
            Sectors::Of512(loader) => loader.as_ref(),
            Sectors::Of4096 => None,
        };
        if let Some(loader) = bios {
            mbr.set_bootcode(bios::boot_code(&loader.boot_img, sectors(BIOS_START))?);
        }
        mbr.overwrite_lba0(disk)?;
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(sector_size)
            .create_from_device(disk, Some(self.guid("disk")))?;
        let mut number = 1;
        if bios.is_some() {
            let (first, count) = (sectors(BIOS_START), sectors(BIOS_SIZE));
            table.add_partition_at("BIOS boot", number, first, count, BIOS, 0)?;
            number += 1;
        }
        let (first, count) = (sectors(ESP_START), sectors(esp_size));
        table.add_partition_at("EFI system", number, first, count, EFI, 0)?;
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
    use std::path::PathBuf;

    fn disk(directory: &Path, esp_size: u64, arch: Arch) -> Result<PathBuf> {
        let loader = BiosLoader { boot_img: vec![1; 512], core_img: vec![2; 100_000] };
        write(directory, esp_size, Sectors::Of512(has_bios(arch).then_some(loader)))
    }

    fn write(directory: &Path, esp_size: u64, sectors: Sectors) -> Result<PathBuf> {
        let esp = directory.join("esp.img");
        File::create(&esp)?.set_len(esp_size)?;
        let to = directory.join("disk.raw");
        Disk { esp: &esp, sectors, seed: "a version" }.write(&to).map(|()| to)
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

    // sgdisk reads files in sectors of 512 bytes only.
    #[test]
    fn fdisk_accepts_disk_with_sectors_of_4096_bytes() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let disk = write(directory.path(), 40 << 20, Sectors::Of4096).unwrap();
        // fdisk has the verification only as a command of its dialog.
        let script = "printf 'p\\nv\\nq\\n' | LC_ALL=C fdisk --sector-size 4096 \"$1\"";
        let verify = || judge("sh", &["-c", script, "sh", disk.to_str().unwrap()]);
        if judge("fdisk", &["--version"]).is_none() {
            return;
        }
        let verdict = verify().unwrap();
        // 2 MiB before the ESP, and 40 MiB of it.
        let rows: Vec<Vec<&str>> =
            verdict.lines().map(|l| l.split_whitespace().collect()).collect();
        let esp = rows.iter().find(|row| row.ends_with(&["40M", "EFI", "System"]));
        assert_eq!(esp.unwrap()[1..4], ["512", "10751", "10240"], "{verdict}");
        assert!(verdict.contains("No errors detected"), "{verdict}");
        assert!(verdict.contains("Using 1 out of 128 partitions"), "{verdict}");
        assert!(!verdict.contains("corrupt"), "{verdict}");

        let size = disk.metadata().unwrap().len();
        File::options().write(true).open(&disk).unwrap().write_all_at(b"x", size - 4096).unwrap();
        assert!(verify().unwrap().contains("corrupt"), "the judge does not read the backup");
    }

    #[test]
    fn disk_without_bios_has_no_code_before_the_esp() {
        let without = |sectors| {
            let directory = tempfile::tempdir().unwrap();
            let disk = write(directory.path(), 40 << 20, sectors).unwrap();
            let disk = std::fs::read(disk).unwrap();
            assert_eq!(disk[..bios::BOOT_CODE], [0; bios::BOOT_CODE]);
            let (start, end) = (BIOS_START as usize, ESP_START as usize);
            assert!(disk[start..end].iter().all(|byte| *byte == 0));
            let size = disk.len() as u64;
            assert_eq!(esp(size), end as u64..size - (1 << 20));
            assert_eq!(part_at(BIOS_START, size, true), "the BIOS boot partition");
            assert!(!part_at(BIOS_START, size, false).contains("BIOS"));
            assert_eq!(part_at(ESP_START, size, false), "the EFI system partition");
        };
        without(Sectors::Of512(None));
        without(Sectors::Of4096);
    }

    #[test]
    fn same_content_gives_same_disk() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let read = |sectors| {
            let directory = tempfile::tempdir().unwrap();
            std::fs::read(write(directory.path(), 8 << 20, sectors).unwrap()).unwrap()
        };
        let loader = || BiosLoader { boot_img: vec![1; 512], core_img: vec![2; 100_000] };
        let of_512 = || read(Sectors::Of512(Some(loader())));
        assert!(of_512() == of_512());
        assert!(read(Sectors::Of4096) == read(Sectors::Of4096));
    }

    #[test]
    fn rejects_esp_of_invalid_size() {
        let directory = tempfile::tempdir().unwrap();
        assert!(disk(directory.path(), 0, Arch::Amd64).is_err());
        assert!(disk(directory.path(), (8 << 20) + 1, Arch::Amd64).is_err());
    }
}
