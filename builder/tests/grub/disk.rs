//! Disks with one small FAT partition for each state.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use protocol::boot_order::SlotFiles;
use protocol::esp::{DIRECTORY, GRUBENV, Slot};
use protocol::grubenv::SIZE;

use crate::table::State;
use crate::{path, slot_files};

const SECTOR: usize = 512;
/// The size of a partition: FAT12 with clusters of one sector.
const PARTITION: usize = 128 * SECTOR;
/// The size of the partition with the scripts.
const FILES: usize = 1 << 20;
/// The first partition begins here, after the table.
const FIRST: usize = 64 * SECTOR;
/// The number of entries in a GPT.
const PARTITIONS_MAX: usize = 128;

/// Creates the file systems of states.
pub(crate) struct Partitions<'a> {
    directory: &'a Path,
    /// A file system with every file.
    full: Vec<u8>,
    /// The offset of the content of grubenv in a file system.
    grubenv: usize,
    /// File systems from which some files are deleted.
    known: HashMap<([SlotFiles; 2], bool), Vec<u8>>,
}

impl<'a> Partitions<'a> {
    pub(crate) fn new(directory: &'a Path) -> Self {
        let marker = b"The content of grubenv is here. ".repeat(SIZE / 32);
        let content = |path: &str| if path == GRUBENV { marker.clone() } else { vec![b'x'] };
        let image = directory.join("full.img");
        make_fat(&image, PARTITION);
        mtools(&image, "mmd", &[DIRECTORY.into(), Slot::A.directory(), Slot::B.directory()]);
        for path in all_paths() {
            copy(&image, &directory.join("content"), &path, &content(&path));
        }
        let full = fs::read(image).unwrap();
        let grubenv = full.windows(SIZE).position(|window| window == marker);
        let grubenv = grubenv.expect("mcopy stores a small file on an empty disk in one piece");
        Self { directory, full, grubenv, known: HashMap::new() }
    }

    /// Returns a disk with a partition for each of these states.
    pub(crate) fn disk(&mut self, states: &[State]) -> Vec<u8> {
        let mut disk = partition_table(states.len(), PARTITION);
        for state in states {
            disk.extend(self.partition(state));
        }
        disk
    }

    /// Returns the content of grubenv in the partition with this index.
    pub(crate) fn grubenv(&self, disk: &[u8], index: usize) -> Vec<u8> {
        let start = FIRST + index * PARTITION + self.grubenv;
        disk[start..start + SIZE].to_vec()
    }

    fn partition(&mut self, state: &State) -> Vec<u8> {
        let files = Slot::ALL.map(|slot| *state.slot(slot).0);
        let key = (files, state.grubenv.is_some());
        if !self.known.contains_key(&key) {
            let mut missing: Vec<String> = Slot::ALL
                .into_iter()
                .zip(files)
                .flat_map(|(slot, files)| slot_files(files).map(|file| (slot, file)))
                .filter(|(_, (_, exists))| !exists)
                .map(|(slot, (name, _))| path(slot, name))
                .collect();
            if state.grubenv.is_none() {
                missing.push(GRUBENV.into());
            }
            let image = self.directory.join("some.img");
            fs::write(&image, &self.full).unwrap();
            if !missing.is_empty() {
                mtools(&image, "mdel", &missing);
            }
            self.known.insert(key, fs::read(image).unwrap());
        }
        let mut partition = self.known[&key].clone();
        if let Some(grubenv) = &state.grubenv {
            partition[self.grubenv..self.grubenv + SIZE].copy_from_slice(grubenv);
        }
        partition
    }
}

/// Returns a disk with one FAT partition that contains these files.
pub(crate) fn with_files(directory: &Path, files: &[(&str, &[u8])]) -> Vec<u8> {
    let image = directory.join("files.img");
    make_fat(&image, FILES);
    for (path, content) in files {
        copy(&image, &directory.join("content"), path, content);
    }
    [partition_table(1, FILES), fs::read(image).unwrap()].concat()
}

fn all_paths() -> Vec<String> {
    let slots = Slot::ALL
        .into_iter()
        .flat_map(|slot| slot_files(SlotFiles::default()).map(|(name, _)| path(slot, name)));
    slots.chain([GRUBENV.to_owned()]).collect()
}

/// Returns the parts of a GPT that GRUB reads: a protective MBR, and a header and entries without
/// checksums.
fn partition_table(partitions: usize, size: usize) -> Vec<u8> {
    assert!(partitions <= PARTITIONS_MAX);
    let mut table = vec![0; FIRST];
    table[446 + 4] = 0xee;
    table[446 + 8..446 + 16].copy_from_slice(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    let header = &mut table[SECTOR..2 * SECTOR];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x1_0000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&(PARTITIONS_MAX as u32).to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    for index in 0..partitions {
        let entry = &mut table[2 * SECTOR + index * 128..][..128];
        entry[..32].fill(1);
        let first = ((FIRST + index * size) / SECTOR) as u64;
        let last = first + (size / SECTOR) as u64 - 1;
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    table
}

fn make_fat(image: &Path, size: usize) {
    fs::write(image, vec![0; size]).unwrap();
    tool(Command::new("mkfs.vfat").args(["-F", "12", "-s", "1", "-i", "0123ABCD"]).arg(image));
}

fn copy(image: &Path, content: &Path, path: &str, bytes: &[u8]) {
    fs::write(content, bytes).unwrap();
    let to = format!("::{path}");
    tool(mtools_command("mcopy", image).arg(content).arg(to));
}

fn mtools(image: &Path, program: &str, paths: &[String]) {
    tool(mtools_command(program, image).args(paths.iter().map(|path| format!("::{path}"))));
}

fn mtools_command(program: &str, image: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image);
    command
}

/// Runs a program that has to succeed.
pub(crate) fn tool(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {stderr}");
}
