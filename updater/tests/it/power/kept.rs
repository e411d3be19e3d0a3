//! What is kept of sources on the ESP.

use serde_json::json;
use updater::sources::{Kept, Limits, read_all, remove, write};

use super::cut_everywhere;
use super::disk::Disk;

const LIMITS: Limits = Limits { record: 64 * 1024, total: 256 * 1024 };

/// Returns a record of several sectors.
fn kept(source: &str, sequence: u64) -> Kept {
    let mut kept = Kept { sequence, ..Kept::new(source) };
    let commands = json!({"id": "x".repeat(1500 + 700 * usize::try_from(sequence).unwrap())});
    kept.commands.replace(Some(vec![commands]));
    kept
}

/// Returns the numbers of the records of two sources. Reports of damaged files are expected.
fn sequences(disk: &Disk) -> [Option<u64>; 2] {
    let found = read_all(disk, &mut |_| ());
    ["web", "other"].map(|source| found.get(source).map(|kept| kept.sequence))
}

/// Cuts the power in the middle of an action, and checks that the record of `web` is one of `expected`, that the
/// other record is there, and that the next record can be written.
fn assert_survives_cuts(
    disk: &Disk,
    expected: &[Option<u64>],
    action: &dyn Fn(&Disk) -> Result<(), String>,
) {
    let counts = cut_everywhere(disk, action, &|left| {
        let repaired = left.copy();
        repaired.fsck();
        let mut disks = vec![repaired];
        if !left.has_short_chains() {
            disks.push(left.copy());
        }
        for disk in disks {
            let [web, other] = sequences(&disk);
            if !expected.contains(&web) || other != Some(7) {
                return Err(format!("found {web:?} and {other:?}"));
            }
            write(&disk, &kept("web", 9), LIMITS).map_err(|error| error.to_string())?;
            let after = disk.after_power_cut(|_| false);
            if sequences(&after) != [Some(9), Some(7)] {
                return Err(format!("after the next write: {:?}", sequences(&after)));
            }
            if let Some(reason) = &*disk.read_only_reason.borrow() {
                return Err(format!("the disk became read-only: {reason}"));
            }
        }
        Ok(())
    });
    eprintln!("{} cuts, {} states", counts.cuts, counts.states);
    assert!(counts.cuts >= 3 && counts.problems.is_empty(), "{:#?}", counts.problems);
}

fn disk() -> Disk {
    let disk = Disk::new();
    write(&disk, &kept("other", 7), LIMITS).unwrap();
    disk.unmounted()
}

#[test]
fn one_of_both_records_survives_a_power_cut() {
    let write_web = |sequence| {
        move |disk: &Disk| {
            write(disk, &kept("web", sequence), LIMITS).map_err(|error| error.to_string())
        }
    };
    assert_survives_cuts(&disk(), &[None, Some(1)], &write_web(1));
    let disk = disk();
    for sequence in 1..4 {
        write_web(sequence)(&disk).unwrap();
        let unmounted = disk.unmounted();
        let next = write_web(sequence + 1);
        assert_survives_cuts(&unmounted, &[Some(sequence), Some(sequence + 1)], &next);
    }
}

#[test]
fn a_removal_survives_a_power_cut() {
    let disk = disk();
    write(&disk, &kept("web", 1), LIMITS).unwrap();
    let remove = |disk: &Disk| remove(disk, "web").map_err(|error| error.to_string());
    assert_survives_cuts(&disk.unmounted(), &[None, Some(1)], &remove);
}
