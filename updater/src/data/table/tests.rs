//! Tests of the codec and of the order of writes, on a disk in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const GEOMETRY: Geometry = Geometry { sector: 512, sectors: 20_000 };
const LARGE: Geometry = Geometry { sector: 4096, sectors: 20_000 };
/// The first sector of the first partition.
const START: u64 = 2048;

/// A disk in memory. Sectors that were never written are zero.
#[derive(Clone)]
struct Memory {
    geometry: Geometry,
    sectors: RefCell<BTreeMap<u64, Vec<u8>>>,
}

impl Memory {
    fn new(geometry: Geometry) -> Self {
        Self { geometry, sectors: RefCell::default() }
    }

    /// Returns the disk with a table of these partitions.
    fn with(geometry: Geometry, partitions: &[(u64, u64)]) -> Self {
        let disk = Self::new(geometry);
        table(partitions).write(&disk).unwrap();
        disk
    }

    fn sector(&self, at: u64) -> Vec<u8> {
        let zeros = || vec![0; self.geometry.sector as usize];
        self.sectors.borrow().get(&at).cloned().unwrap_or_else(zeros)
    }

    /// Splits writes into the sectors that they change.
    fn changed(&self, writes: &[Write]) -> Vec<(u64, Vec<u8>)> {
        let split = |(first, bytes): &Write| {
            let sectors = bytes.chunks(self.geometry.sector as usize).map(<[u8]>::to_vec);
            (*first..).zip(sectors).collect::<Vec<_>>()
        };
        let all = writes.iter().flat_map(split);
        all.filter(|(at, bytes)| self.sector(*at) != *bytes).collect()
    }

    fn copies(&self) -> Copies {
        Copies::read(self).unwrap()
    }
}

impl Medium for Memory {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, first: u64, count: u64) -> io::Result<Vec<u8>> {
        Ok((first..first + count).flat_map(|at| self.sector(at)).collect())
    }

    fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        for (at, bytes) in (first..).zip(bytes.chunks(self.geometry.sector as usize)) {
            assert!(at < self.geometry.sectors, "write beyond the end of the disk");
            self.sectors.borrow_mut().insert(at, bytes.to_vec());
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn entry(first: u64, last: u64) -> Entry {
    Entry::new([7; 16], first, last)
}

fn table(partitions: &[(u64, u64)]) -> Table {
    let mut entries: Vec<Entry> = partitions.iter().map(|(a, b)| entry(*a, *b)).collect();
    entries.resize(128, Entry([0; ENTRY_SIZE]));
    Table { disk: [5; 16], first_usable: 34, entries, array: None }
}

/// Returns the table that firmware uses, as EDK2 does (MdeModulePkg, PartitionInstallGptChildHandles): the
/// primary copy, or else the backup in the last sector.
fn firmware(disk: &Memory) -> Option<Vec<Entry>> {
    let copies = disk.copies();
    copies.current().map(|table| table.entries.clone())
}

/// Calls `judge` with each disk that a power cut in one of the steps can leave. Returns their number.
fn cut_power(disk: &Memory, steps: &[Vec<Write>], judge: &mut dyn FnMut(&Memory)) -> usize {
    let (disk, mut count) = (disk.clone(), 0);
    for step in steps {
        let changed = disk.changed(step);
        assert!(changed.len() <= 12, "{} sectors are too many for all subsets", changed.len());
        for subset in 0_u32..1 << changed.len() {
            let state = disk.clone();
            for (index, (at, bytes)) in changed.iter().enumerate() {
                if subset & 1 << index != 0 {
                    state.write(*at, bytes).unwrap();
                }
            }
            judge(&state);
            count += 1;
        }
        for (at, bytes) in changed {
            disk.write(at, &bytes).unwrap();
        }
    }
    count
}

fn steps(disk: &Memory, table: &Table) -> Vec<Vec<Write>> {
    table.steps(disk.geometry, &disk.sector(0)).unwrap()
}

/// Returns disks with a table, each with the table that it is to get.
fn changes() -> Vec<(&'static str, Memory, Table)> {
    let of = |name, disk: Memory, change: &dyn Fn(&mut Table)| {
        let mut new = disk.copies().current().unwrap().clone();
        change(&mut new);
        (name, disk, new)
    };
    let esp = [(START, 2 * START)];
    let both = [(START, 2 * START), (2 * START + 1, 9000)];
    let grown = Memory {
        geometry: Geometry { sectors: 30_000, ..GEOMETRY },
        ..Memory::with(GEOMETRY, &both)
    };
    let twice = Memory::with(GEOMETRY, &esp);
    twice.copies().current().unwrap().write(&twice).unwrap();
    let add = |table: &mut Table| {
        table.add(entry(2 * START + 1, 9000)).unwrap();
    };
    vec![
        of("a partition", Memory::with(GEOMETRY, &esp), &add),
        of("a partition, 4096", Memory::with(LARGE, &esp), &add),
        of("a partition, other array", twice, &add),
        of("an attribute", Memory::with(GEOMETRY, &both), &|table| {
            table.entry_mut(2).unwrap().set_attribute(1 << 48, true);
        }),
        of("a larger disk", grown, &|table| table.entry_mut(2).unwrap().set_last(29_000)),
    ]
}

#[test]
fn a_power_cut_never_takes_the_primary_copy_away() {
    for (name, disk, new) in changes() {
        let old = firmware(&disk).unwrap();
        let count = cut_power(&disk, &steps(&disk, &new), &mut |state| {
            let primary = state.copies().primary.map(|table| table.entries);
            assert!(primary.as_ref() == Some(&old) || primary.as_ref() == Some(&new.entries));
        });
        assert!(count > 8, "{name}: {count}");
        new.write(&disk).unwrap();
        let Copies { primary, backup } = disk.copies();
        assert_eq!(primary.unwrap().entries, new.entries, "{name}");
        assert_eq!(backup.unwrap().entries, new.entries, "{name}");
    }
}

#[test]
fn a_power_cut_without_the_flush_can_leave_no_table() {
    for (name, disk, new) in changes() {
        let all = [steps(&disk, &new).concat()];
        let mut without = 0;
        cut_power(&disk, &all, &mut |state| without += usize::from(firmware(state).is_none()));
        assert!(without > 0, "{name}");
    }
}

#[test]
fn a_lost_primary_copy_is_restored_before_the_backup_is_written() {
    for at in [PRIMARY, ARRAY] {
        let disk = Memory::with(GEOMETRY, &[(START, 2 * START)]);
        let old = firmware(&disk).unwrap();
        disk.write(at, &[0xff; 512]).unwrap();
        let mut new = disk.copies().current().unwrap().clone();
        new.add(entry(2 * START + 1, 9000)).unwrap();
        cut_power(&disk, &steps(&disk, &new), &mut |state| {
            let found = firmware(state).unwrap();
            assert!(found == old || found == new.entries);
        });
        new.write(&disk).unwrap();
        assert_eq!(disk.copies().primary.unwrap().entries, new.entries);
    }
}

#[test]
fn a_new_table_appears_with_its_primary_copy_first() {
    let disk = Memory::new(GEOMETRY);
    let new = table(&[(START, 9000)]);
    let mut states = 0;
    cut_power(&disk, &steps(&disk, &new), &mut |state| {
        let copies = state.copies();
        states += usize::from(copies.current().is_some());
        assert!(copies.current().is_none() || copies.primary.is_some());
    });
    assert!(states > 4, "{states}");
}

#[test]
fn keeps_boot_code_and_other_partitions_of_the_first_sector() {
    let disk = Memory::with(GEOMETRY, &[(START, 9000)]);
    let mut sector = disk.sector(0);
    assert_eq!(sector[MBR_ENTRY + 4], PROTECTIVE);
    assert_eq!(sector[MBR_ENTRY + 12..][..4], 19_999_u32.to_le_bytes());
    assert_eq!(protective(GEOMETRY, &sector), None);
    sector[..440].fill(9);
    let larger = Geometry { sectors: 1 << 40, ..GEOMETRY };
    let changed = protective(larger, &sector).unwrap();
    assert_eq!(changed[..440], [9; 440]);
    assert_eq!(changed[MBR_ENTRY + 12..][..4], [0xff; 4]);
    sector[MBR_ENTRY + 4] = 0x0c;
    assert_eq!(protective(larger, &sector), None);
}

#[test]
fn rejects_tables_that_do_not_fit() {
    let steps = |table: &Table| table.steps(GEOMETRY, &[0; 512]);
    assert_eq!(steps(&table(&[(60, 9000)])), Err(TableError::NoRoom { first: 60, expected: 66 }));
    let usable = 20_000 - 1 - 33;
    assert!(steps(&table(&[(START, usable)])).is_ok());
    let last = usable + 1;
    assert_eq!(steps(&table(&[(START, last)])), Err(TableError::TooSmall { last, usable }));
    let between = Table { array: Some(20), ..table(&[(START, 9000)]) };
    assert_eq!(steps(&between), Err(TableError::Place(20)));
    for (array, place) in [(2, 34), (34, 2), (66, 2), (500, 2)] {
        let table = Table { array: Some(array), ..table(&[(START, 9000)]) };
        assert_eq!(table.free_place(32), Ok(place));
    }
    let mut full = table(&vec![(START, 9000); 128]);
    assert_eq!(full.add(entry(1, 2)), Err(TableError::Full(128)));
}

#[test]
fn rejects_entries_with_impossible_places() {
    assert_eq!(table(&[(START, START), (5000, 1 << 50)]).check_entries(), Ok(()));
    for place in [(5001, 5000), (0, u64::MAX), (u64::MAX, u64::MAX), (START, 1 << 51)] {
        let found = table(&[(START, 4999), place]).check_entries();
        assert_eq!(found, Err(TableError::Entry(2)), "{place:?}");
    }
}

#[test]
fn keeps_the_end_of_the_image_free() {
    let table = table(&[(START, 19_000)]);
    // On a disk that is as large as the image, there is nothing to keep free.
    assert_eq!(table.with_end_of_image(GEOMETRY, [1; 16]), table);
    let geometry = Geometry { sectors: 30_000, ..GEOMETRY };
    let found = *table.with_end_of_image(geometry, [1; 16]).entry(2).unwrap();
    assert_eq!((found.first(), found.last()), (19_001, 19_000 + 2048));
}

#[test]
fn ignores_damaged_copies() {
    let disk = Memory::with(GEOMETRY, &[(START, 9000)]);
    let header = disk.sector(PRIMARY);
    for at in [0, 8, 12, 16, 24, 72, 79, 80, 83, 84, 88] {
        let mut damaged = header.clone();
        damaged[at] ^= 0x40;
        disk.write(PRIMARY, &damaged).unwrap();
        assert!(disk.copies().primary.is_none() && disk.copies().backup.is_some(), "{at}");
        // With a right checksum, the numbers themselves have to be checked.
        let size = u32::from_le_bytes(damaged[12..16].try_into().unwrap()) as usize;
        if at > 16 {
            put(&mut damaged, 16, &[0; 4]);
            let sum = checksum(&damaged[..size]);
            put(&mut damaged, 16, &sum.to_le_bytes());
            disk.write(PRIMARY, &damaged).unwrap();
            assert!(disk.copies().primary.is_none(), "{at}");
        }
    }
}

proptest! {
    #[test]
    fn reads_what_it_writes(
        lengths in prop::collection::vec(1_u64..2000, 1..8),
        grown in 0_u64..10_000,
        large in any::<bool>(),
        times in 1..4,
    ) {
        let mut first = START;
        let partitions: Vec<(u64, u64)> = lengths
            .iter()
            .map(|length| {
                let last = first + length - 1;
                (std::mem::replace(&mut first, last + 1), last)
            })
            .collect();
        let geometry = if large { LARGE } else { GEOMETRY };
        let mut disk = Memory::with(geometry, &partitions);
        disk.geometry.sectors += grown;
        for _ in 0..times {
            let table = disk.copies().current().unwrap().clone();
            table.write(&disk).unwrap();
            let copies = disk.copies();
            prop_assert_eq!(&copies.primary.unwrap().entries, &table.entries);
            prop_assert_eq!(&copies.backup.unwrap().entries, &table.entries);
        }
    }

    #[test]
    fn does_not_panic_on_any_header(bytes in prop::collection::vec(any::<u8>(), 0..120), crc in any::<bool>()) {
        let mut header = Header::parse(&[]).map_or_else(|| b"EFI PART\0\0\x01\0\x5c\0\0\0".to_vec(), |_| unreachable!());
        header.extend(bytes);
        header.resize(512, 0);
        if crc {
            put(&mut header, 16, &[0; 4]);
            let sum = checksum(&header[..92]);
            put(&mut header, 16, &sum.to_le_bytes());
        }
        let disk = Memory::new(GEOMETRY);
        disk.write(PRIMARY, &header).unwrap();
        let _ = disk.copies();
    }
}
