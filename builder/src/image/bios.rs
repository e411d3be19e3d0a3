//! Installs GRUB for BIOS into a disk image, as `grub-bios-setup` does on a disk.
//!
//! `boot.img` is in the first sector of the disk. It loads the first sector of `core.img`, which loads
//! the rest. Both contain the position of `core.img`, at offsets that GRUB defines in
//! `include/grub/i386/pc/boot.h` and `include/grub/offsets.h`.

use anyhow::{Result, ensure};

/// The size of a sector, in bytes.
pub(crate) const SECTOR: usize = 512;
/// The size of the code in the first sector, in bytes. The disk signature and the partition table
/// follow.
pub(crate) const BOOT_CODE: usize = 440;

/// The offset in `boot.img` of the 64-bit LBA at which `core.img` starts.
const KERNEL_SECTOR: usize = 0x5c;
/// The offset in `boot.img` of the drive to read from; 0xff is the boot drive.
const BOOT_DRIVE: usize = 0x64;
/// The offset in `boot.img` of a jump that replaces the drive number of the BIOS. For hard disks, the
/// number is right, and two no-ops replace the jump.
const DRIVE_CHECK: usize = 0x66;
/// The offset in the first sector of `core.img` of the block list: an LBA of 64 bits, a number of
/// sectors and a segment of 16 bits each.
const BLOCK_LIST: usize = SECTOR - 12;
/// The segment that the second sector of `core.img` is loaded to.
const SEGMENT: u16 = 0x820;

/// Returns the code of the first sector, for a `core.img` at the sector `core_lba`.
pub(crate) fn boot_code(boot_img: &[u8], core_lba: u64) -> Result<[u8; BOOT_CODE]> {
    ensure!(
        boot_img.len() == SECTOR,
        "GRUB's boot.img has {} bytes, expected {SECTOR}",
        boot_img.len()
    );
    let mut code = [0; BOOT_CODE];
    code.copy_from_slice(&boot_img[..BOOT_CODE]);
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_lba.to_le_bytes());
    code[BOOT_DRIVE] = 0xff;
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

/// Returns `core.img` for the position `lba`, padded to whole sectors.
///
/// # Errors
/// Fails if it does not fit into `sectors`.
pub(crate) fn core(core_img: &[u8], lba: u64, sectors: u64) -> Result<Vec<u8>> {
    let mut core = core_img.to_vec();
    core.resize(core.len().next_multiple_of(SECTOR), 0);
    let count = core.len() / SECTOR;
    ensure!(count > 1, "GRUB's core.img has only {} bytes", core_img.len());
    ensure!(
        count as u64 <= sectors,
        "GRUB's core.img takes {count} sectors, its partition has {sectors}"
    );
    let rest = u16::try_from(count - 1)?;
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(lba + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&rest.to_le_bytes());
    core[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&SEGMENT.to_le_bytes());
    Ok(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_code_contains_position_of_core() {
        let code = boot_code(&[7; SECTOR], 2048).unwrap();
        assert_eq!(code[KERNEL_SECTOR..KERNEL_SECTOR + 8], 2048u64.to_le_bytes());
        assert_eq!(code[DRIVE_CHECK..DRIVE_CHECK + 2], [0x90, 0x90]);
        assert_eq!(code[0], 7);
        assert!(boot_code(&[0; 440], 2048).is_err());
    }

    #[test]
    fn core_is_padded_and_size_is_checked() {
        let core_img = core(&[1; 1300], 2048, 2048).unwrap();
        assert_eq!(core_img.len(), 3 * SECTOR);
        assert_eq!(core_img[BLOCK_LIST..SECTOR], [1, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 0x08]);
        assert!(core(&[1; 1300], 2048, 2).is_err());
        assert!(core(&[1; 100], 2048, 2048).is_err());
    }
}
