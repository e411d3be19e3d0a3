//! The block devices that may be the ESP: those with a FAT of its volume ID.
//!
//! A link below /dev/disk/by-uuid names only one of several devices, so each of them is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;

use super::error::{BootDiskError, io_error};
use crate::host::{Host, read_limited};
use crate::timeout::run_with_timeout;

/// The timeout of reading a boot sector. A disk that is spun down takes some seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The limit on attributes of sysfs, which have at most a page.
const ATTRIBUTE_MAX: u64 = 4096;
const SECTOR: usize = 512;
/// How much of a serial number is shown.
const SERIAL_MAX: usize = 64;

/// A block device, such as a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its name in sysfs.
    pub(super) name: String,
    /// Its node below /dev.
    pub(super) node: PathBuf,
    /// Its major and minor number, such as `254:1`.
    pub(super) number: String,
    /// A number of its disk, which no other disk gets during this boot.
    pub(super) sequence: Option<String>,
    /// The serial number of its disk. A copy on another disk has another one.
    pub(super) serial: Option<String>,
    /// What it has in common with the other paths to it: an identifier of its disk, its first sector and its
    /// size. `None` if its disk has no identifier that is unique in the world.
    pub(super) extent: Option<String>,
    /// A description for messages.
    pub(super) description: String,
}

/// Returns the device with this name, or `None` if there is none.
pub(super) fn named(host: &Host, name: &str) -> Option<Candidate> {
    let entry = host.path("/sys/class/block").join(name);
    let number = attribute(&entry, "dev")?;
    let disk = disk_of(&entry);
    let uevent = attribute(&entry, "uevent").unwrap_or_default();
    let node = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    // sysfs replaces slashes in names.
    let node = node.map_or_else(|| name.replace('!', "/"), str::to_owned);
    let node = host.path("/dev").join(node.trim_start_matches('/'));
    let serial = serial(&disk);
    let description = format!("{}{}", node.display(), details(&disk, serial.as_deref()));
    let sequence = attribute(&disk, "diskseq").or_else(|| inode(&disk));
    let extent = extent(&entry, &disk);
    Some(Candidate { name: name.to_owned(), node, number, sequence, serial, extent, description })
}

/// Returns the inode number of a directory of sysfs. It stands in for the sequence number of a disk, which
/// Linux has since 5.15: sysfs counts its inode numbers up.
fn inode(directory: &Path) -> Option<String> {
    Some(format!("inode {}", std::fs::metadata(directory).ok()?.ino()))
}

/// Returns the devices whose FAT has this volume ID, which udev spells as the UUID. A device that cannot be
/// read is left out, because GRUB could read the one that it booted from.
///
/// # Errors
/// Fails if the devices cannot be listed, or if reading them is not permitted.
pub(super) fn with_uuid(host: &Host, uuid: &str) -> Result<Vec<Candidate>, BootDiskError> {
    let directory = host.path("/sys/class/block");
    let names = names_in(&directory).map_err(io_error("list", &directory))?;
    let mut found = Vec::new();
    for name in names {
        let Some(candidate) = named(host, &name).filter(|_| may_be_booted(host, &name)) else {
            continue;
        };
        match read_sector(&candidate.node) {
            Ok(sector) if volume_id(&sector).as_deref() == Some(uuid) => found.push(candidate),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(BootDiskError::NotRoot(candidate.node));
            }
            Err(error) => log::debug!("cannot read {}: {error}", candidate.node.display()),
        }
    }
    Ok(found)
}

/// Returns the sorted names in a directory; none if it does not exist, as before sysfs is mounted.
fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Returns whether GRUB could have booted from the device. It sees no loop devices, and a device that a RAID
/// or a multipath device is built of is not used itself.
fn may_be_booted(host: &Host, name: &str) -> bool {
    let entry = host.path("/sys/class/block").join(name);
    let disk = disk_of(&entry);
    let is_held = |directory: &Path| {
        let mut holders = std::fs::read_dir(directory.join("holders")).into_iter().flatten();
        holders.next().is_some()
    };
    let is_empty = attribute(&entry, "size").is_none_or(|size| size == "0");
    !is_empty && !disk.join("loop").exists() && !is_held(&entry) && !is_held(&disk)
}

/// Returns the directory of the disk that a partition belongs to, or of the device itself.
fn disk_of(entry: &Path) -> PathBuf {
    let entry = entry.canonicalize().unwrap_or_else(|_| entry.to_owned());
    match entry.parent() {
        Some(disk) if entry.join("partition").exists() => disk.to_owned(),
        _ => entry,
    }
}

/// Returns the serial number and the place of a disk, as far as they are known.
fn details(disk: &Path, serial: Option<&str>) -> String {
    let serial = serial.map(|serial| format!("serial {serial}"));
    let device = disk.join("device").canonicalize().ok();
    let place = device.as_ref().and_then(|device| {
        let text = device.to_str()?;
        Some(format!("at {}", text.split_once("/devices/")?.1))
    });
    let known: Vec<String> = serial.into_iter().chain(place).collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}

/// Returns the serial number of a disk, where its driver has put it: virtio and NVMe, MMC, USB, and for SCSI
/// and SATA the identifier of the device.
fn serial(disk: &Path) -> Option<String> {
    let device = disk.join("device");
    attribute(disk, "serial")
        .or_else(|| attribute(&device, "serial"))
        .or_else(|| usb_serial(&device))
        .or_else(|| attribute(&device, "wwid"))
        .or_else(|| attribute(disk, "wwid"))
        .map(|text| {
            let is_shown = |c: &char| c.is_ascii_graphic() || *c == ' ';
            let shown: String = text.chars().filter(is_shown).collect();
            shown.trim().chars().take(SERIAL_MAX).collect()
        })
        .filter(|serial: &String| !serial.is_empty())
}

/// Returns the serial number of the USB device that a disk is part of.
fn usb_serial(device: &Path) -> Option<String> {
    attribute(&usb_device(device)?, "serial")
}

fn usb_device(device: &Path) -> Option<PathBuf> {
    let device = device.canonicalize().ok()?;
    device.ancestors().find(|directory| directory.join("idVendor").exists()).map(Path::to_owned)
}

/// The kinds of identifiers that are unique in the world. Those of the kind "t10." and "nvme." contain a
/// serial number, which the copy of a virtual machine has, too.
const UNIQUE: [&str; 3] = ["naa.", "eui.", "uuid."];

/// Returns [`Candidate::extent`]. USB disks have no second path, and some have the identifier of their bridge,
/// which is the same for all of its kind.
fn extent(entry: &Path, disk: &Path) -> Option<String> {
    let device = disk.join("device");
    let id = attribute(&device, "wwid").or_else(|| attribute(disk, "wwid"))?;
    let is_unique = UNIQUE.iter().any(|kind| id.starts_with(kind)) && usb_device(&device).is_none();
    let start = attribute(entry, "start").unwrap_or_default();
    let size = attribute(entry, "size")?;
    is_unique.then(|| format!("{id} {start} {size}"))
}

fn attribute(directory: &Path, name: &str) -> Option<String> {
    let bytes = read_limited(&directory.join(name), ATTRIBUTE_MAX).ok()??;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn read_sector(node: &Path) -> io::Result<Vec<u8>> {
    let path = node.to_owned();
    let read = move || {
        let mut sector = vec![0; SECTOR];
        // Without O_NONBLOCK, Linux closes the tray of a CD drive.
        let flags = (OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits();
        let mut device = File::options().read(true).custom_flags(flags).open(path)?;
        device.read_exact(&mut sector)?;
        Ok(sector)
    };
    let timed_out = || Err(io::Error::other("the disk does not respond"));
    run_with_timeout(READ_TIMEOUT, read).unwrap_or_else(timed_out)
}

/// Returns the volume ID of a FAT (FAT specification, "Boot Sector"), or `None` if it is something else.
fn volume_id(sector: &[u8]) -> Option<String> {
    let has = |at: usize, text: &[u8]| sector.get(at..at + text.len()) == Some(text);
    let at = match () {
        () if !has(510, &[0x55, 0xaa]) => return None,
        () if has(0x52, b"FAT32") => 0x43,
        () if has(0x36, b"FAT1") => 0x27,
        () => return None,
    };
    let [a, b, c, d] = *sector.get(at..at + 4)? else { return None };
    Some(format!("{d:02X}{c:02X}-{b:02X}{a:02X}"))
}
