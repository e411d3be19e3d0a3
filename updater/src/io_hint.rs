//! Advice on I/O errors of the ESP.

use std::io;

use nix::errno::Errno;

/// Returns advice on I/O errors whose text does not say what to do, to be appended to a message.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS) => {
            "; Linux makes a damaged FAT read-only (see dmesg), or the disk is write-protected: the next update repairs the FAT if fsck.vfat is installed, or run \"fsck.vfat -a\" on the device while it is not mounted"
        }
        Some(Errno::ENOSPC) => "; the file system is full: remove files that are not needed",
        Some(Errno::EEXIST) => "; a file of this name is in the way: remove it",
        Some(Errno::EIO) => "; the disk may be failing (see dmesg)",
        _ => "",
    }
}
