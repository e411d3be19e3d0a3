//! Reads all files on the ESP of a disk image.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use protocol::Arch;

use super::disk::{SECTOR, Sectors, find_esp};
use super::fat::{Fat, FatError};
use crate::platform::platform;

/// Receives the absolute path, the size and the content of a file.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&str, u64, &mut dyn Read) -> io::Result<()>;

/// The maximum number of files and directories. A damaged directory can contain itself.
const NODES_MAX: usize = 10_000;

/// Calls `visit` with each file on the ESP of a disk image.
///
/// # Errors
/// Fails if the disk has no ESP, if its file system is damaged, or if `visit` fails.
pub fn visit_esp(disk: &File, visit: Visit<'_>) -> io::Result<()> {
    let (start, _) = find_esp(disk)?
        .ok_or_else(|| io::Error::other("the disk has no GPT, or no EFI system partition"))?;
    let fat = Fat::open(disk, start).map_err(io::Error::other)?;
    let root = fat.find("").map_err(io::Error::other)?;
    let mut rest: Vec<_> = root.into_iter().map(|root| (String::new(), root)).collect();
    let mut found = 0;
    while let Some((path, node)) = rest.pop() {
        let damaged = |error: FatError| io::Error::other(format!("{path} on the ESP: {error}"));
        if node.is_directory {
            let children = fat.list(&node).map_err(damaged)?;
            found += children.len();
            rest.extend(children.into_iter().map(|node| (format!("{path}/{}", node.name), node)));
        } else {
            let sectors = fat.sectors(&node).map_err(damaged)?.into_iter();
            let mut content = Content { disk, sectors, buffer: [0; SECTOR], used: SECTOR };
            visit(&path, node.size, &mut (&mut content).take(node.size))?;
        }
        if found > NODES_MAX {
            let problem = format!("the ESP has more than {NODES_MAX} files; it may be damaged");
            return Err(io::Error::other(problem));
        }
    }
    Ok(())
}

/// Returns the architectures for which a disk image has a removable-media boot loader, such as
/// `EFI/BOOT/BOOTX64.EFI`.
///
/// # Errors
/// Fails if the disk has no ESP, or if its file system is damaged.
pub(crate) fn boot_loaders(disk: &File) -> io::Result<Vec<Arch>> {
    let mut found = BTreeSet::new();
    visit_esp(disk, &mut |path, _, _| {
        found.insert(path.to_ascii_lowercase());
        Ok(())
    })?;
    let has = |arch: &Arch| found.contains(&format!("/efi/boot/boot{}.efi", platform(*arch).efi));
    Ok(Arch::ALL.into_iter().filter(has).collect())
}

/// The content of a file, up to the end of its last sector.
struct Content<'a> {
    disk: &'a File,
    sectors: std::vec::IntoIter<u64>,
    buffer: [u8; SECTOR],
    /// The number of bytes of the buffer that were read already.
    used: usize,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == SECTOR {
            let Some(sector) = self.sectors.next() else { return Ok(0) };
            self.buffer = Sectors::read(self.disk, sector)?;
            self.used = 0;
        }
        let count = buffer.len().min(SECTOR - self.used);
        buffer[..count].copy_from_slice(&self.buffer[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}
