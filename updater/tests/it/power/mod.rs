//! Power cuts at every operation that writes. Whichever of the unflushed writes reached the disk, the
//! boot loader must find a complete release, and the next update must succeed.

mod disk;
mod host;
mod kept;

use std::collections::HashSet;

use proptest::prelude::*;
use protocol::Role;
use protocol::esp::{GRUBENV, STARTED, Slot, slot_file};
use protocol::grubenv::{Block, BootState, DiskTag, Trial};
use updater::candidate::Candidate;
use updater::confirmation::mark_started;
use updater::files::FileSystem as _;
use updater::grubenv_file::GrubenvFile;
use updater::slot_content::Content;
use updater::slots::inspect;

use self::disk::{Disk, Fault, SECTOR};
use self::host::{Host, content, release};

/// The largest number of pending writes for which every combination is tested.
const EXHAUSTIVE: usize = 6;
/// The number of random combinations that are tested of more pending writes, besides none, all, each
/// one, and all but one.
const SAMPLES: u64 = 24;

/// An action that is interrupted. It begins with a disk that has no pending writes.
type Action<'a> = &'a dyn Fn(&Disk) -> Result<(), String>;

#[derive(Debug, Default)]
struct Counts {
    /// Operations before which the power failed.
    cuts: usize,
    /// Different contents of the disk after these cuts.
    states: usize,
    /// Problems with the disks that do not boot or cannot be updated. The search ends with the first
    /// operation that has any.
    problems: Vec<String>,
}

/// Returns subsets of the pending writes as bit masks: all of them, or a sample.
fn subsets(pending: usize, seed: u64) -> Vec<u64> {
    if pending <= EXHAUSTIVE {
        return (0..1 << pending).collect();
    }
    let all = (1_u64 << pending.min(63)) - 1;
    let single = (0..pending.min(63)).flat_map(|index| [1 << index, all ^ (1 << index)]);
    // splitmix64, seeded so that every run tests the same subsets.
    let random = (0..SAMPLES).map(|index| {
        let mut z = (seed << 8 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & all
    });
    [0, all].into_iter().chain(single).chain(random).collect()
}

/// Cuts the power before every operation of `action`, and calls `check` on every disk that may result.
fn cut_everywhere(
    disk: &Disk,
    action: Action<'_>,
    check: &dyn Fn(&Disk) -> Result<(), String>,
) -> Counts {
    let uncut = disk.copy();
    uncut.fault.set(disk.fault.get());
    action(&uncut).unwrap();
    let mut counts = Counts::default();
    let mut seen = HashSet::new();
    // Begins at the end, because most problems occur late.
    for operations in (0..=uncut.operations()).rev() {
        if !counts.problems.is_empty() {
            break;
        }
        let cut = disk.copy();
        cut.fault.set(disk.fault.get());
        cut.fail_after(operations);
        let result = action(&cut);
        assert_eq!(result.is_ok(), operations == uncut.operations(), "{result:?}");
        counts.cuts += 1;
        for subset in subsets(cut.pending(), operations as u64) {
            let left = cut.after_power_cut(|index| index > 62 || subset & 1 << index != 0);
            if !seen.insert(left.fingerprint()) {
                continue;
            }
            counts.states += 1;
            if let Err(why) = check(&left) {
                counts.problems.push(format!("cut at {operations}, {subset:b}: {why}"));
            }
        }
    }
    counts
}

/// Checks that a disk boots a complete release, and that the update from there succeeds.
fn survives(host: &Host, left: &Disk, candidate: &Candidate) -> Result<(), String> {
    // The boot loader sees the disk before any repair.
    host.boot(&left.copy())?;
    // Linux sees it after fsck. Half of the disks are also tested without fsck, unless they have a short
    // chain, which makes Linux remount the disk read-only.
    let repaired = left.copy();
    repaired.fsck();
    reaches_candidate(host, &repaired, candidate)?;
    if left.fingerprint().is_multiple_of(2) && !left.has_short_chains() {
        reaches_candidate(host, &left.copy(), candidate)
            .map_err(|why| format!("without fsck: {why}"))?;
    }
    Ok(())
}

/// Checks that the update to `candidate` succeeds, with a writable disk and no partial slot at the end.
fn reaches_candidate(host: &Host, disk: &Disk, candidate: &Candidate) -> Result<(), String> {
    let result = host.boot_until_updated(disk, candidate);
    if let Some(read_only_reason) = &*disk.read_only_reason.borrow() {
        return Err(format!("the disk became read-only: {read_only_reason}"));
    }
    let slots = inspect(disk, &host.keys);
    for slot in Slot::ALL {
        if matches!(slots.get(slot), Content::Partial { .. }) {
            return Err(format!("slot {slot} is still partial"));
        }
    }
    result.map(|_| ())
}

/// Checks that every power cut during `action` leaves a disk that [`survives`].
#[track_caller]
fn assert_survives_cuts(
    name: &str,
    host: &Host,
    disk: &Disk,
    candidate: &Candidate,
    action: Action<'_>,
) {
    let counts = cut_everywhere(disk, action, &|left| survives(host, left, candidate));
    eprintln!(
        "{name}: {} cuts, {} states, {} problems",
        counts.cuts,
        counts.states,
        counts.problems.len()
    );
    assert!(
        counts.problems.is_empty(),
        "{name}: {:#?}",
        &counts.problems[..counts.problems.len().min(5)]
    );
}

/// Changes the boot state in grubenv.
fn change_state(disk: &Disk, change: impl FnOnce(BootState) -> BootState) {
    let state = BootState::read(&Block::parse(&disk.read(GRUBENV).unwrap()).unwrap()).unwrap();
    disk.put(GRUBENV, &change(state).to_bytes());
}

/// Returns a disk whose slot b runs on trial, with slot a as the fallback.
fn disk_on_trial(host: &Host) -> Disk {
    let disk = host.disk(1);
    host.fill(&disk, Slot::B, 2);
    let trial = Trial { slot: Slot::B, tries: 2, release: Some(release(2).id()), since: None };
    change_state(&disk, |state| BootState { trial: Some(trial), ..state });
    disk
}

/// Returns a copy of the disk whose slot b has a partial download of the n-th release, interrupted in the
/// middle of the initrd.
fn with_partial_download(host: &Host, disk: &Disk, n: u64) -> Disk {
    let candidate = host.candidate(n);
    let complete = disk.copy();
    host.update(&complete, Slot::A, 1, &candidate).unwrap();
    (0..complete.operations())
        .rev()
        .find_map(|operations| {
            let cut = disk.copy();
            cut.fail_after(operations);
            host.update(&cut, Slot::A, 1, &candidate).unwrap_err();
            let left = cut.unmounted();
            let is_partial = matches!(inspect(&left, &host.keys).b, Content::Partial { bytes, release: ref r } if bytes > 4500 && bytes < r.boot_artifacts().map(|a| a.size).sum());
            is_partial.then_some(left)
        })
        .unwrap()
}

#[test]
fn update_of_an_empty_slot_survives_power_cuts() {
    let host = Host::new();
    let candidate = host.candidate(2);
    let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    assert_survives_cuts("empty slot", &host, &host.disk(1), &candidate, &update);
}

#[test]
fn update_over_an_older_release_survives_power_cuts() {
    let host = Host::new();
    let candidate = host.candidate(3);
    let disk = host.disk(2);
    host.fill(&disk, Slot::B, 1);
    let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    assert_survives_cuts("used slot", &host, &disk, &candidate, &update);
}

#[test]
fn update_by_copy_and_delta_survives_power_cuts() {
    let host = Host::new();
    let candidate = host.candidate_with_delta(3);
    let disk = host.disk(2);
    host.fill(&disk, Slot::B, 1);
    let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    assert_survives_cuts("delta", &host, &disk, &candidate, &update);
}

#[test]
fn update_over_a_partial_download_survives_power_cuts() {
    let host = Host::new();
    for n in [2, 3] {
        let candidate = host.candidate(n);
        let disk = with_partial_download(&host, &host.disk(1), 2);
        let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
        assert_survives_cuts(&format!("partial 2, offered {n}"), &host, &disk, &candidate, &update);
    }
}

#[test]
fn update_over_a_pending_trial_survives_power_cuts() {
    let host = Host::new();
    let disk = host.disk(1);
    host.update(&disk, Slot::A, 1, &host.candidate(2)).unwrap();
    let (disk, candidate) = (disk.unmounted(), host.candidate(3));
    let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    assert_survives_cuts("over a trial", &host, &disk, &candidate, &update);
}

#[test]
fn confirm_rollback_and_withdrawal_survive_power_cuts() {
    let host = Host::new();
    let disk = disk_on_trial(&host);
    let confirm = |disk: &Disk| host.confirm(disk, Slot::B);
    assert_survives_cuts("confirm", &host, &disk, &host.candidate(2), &confirm);
    // The abandoned release is not installed again, so the CDN offers a newer one.
    let rollback = |disk: &Disk| host.roll_back(disk, Slot::B);
    assert_survives_cuts("rollback from a trial", &host, &disk, &host.candidate(3), &rollback);
    let confirmed = disk.copy();
    host.confirm(&confirmed, Slot::B).unwrap();
    assert_survives_cuts("rollback", &host, &confirmed.unmounted(), &host.candidate(3), &rollback);
    let running = host.candidate(1);
    let withdraw = |disk: &Disk| host.update(disk, Slot::A, 1, &running).map(|_| ());
    assert_survives_cuts("withdraw", &host, &disk, &host.candidate(2), &withdraw);
}

#[test]
fn repair_of_the_spare_slot_survives_power_cuts() {
    let host = Host::new();
    let candidate = host.candidate(2);
    let disk = host.disk(2);
    host.fill(&disk, Slot::B, 1);
    disk.put("etchaos/b/initrd", b"damaged");
    let repair = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    assert_survives_cuts("repair", &host, &disk, &candidate, &repair);
}

#[test]
fn rewriting_a_lost_running_slot_survives_power_cuts() {
    let host = Host::new();
    let candidate = host.candidate(2);
    for lost in ["vmlinuz", "initrd"] {
        let disk = host.disk(2);
        host.fill(&disk, Slot::B, 1);
        // Slot b is tested with and without the mark of a confirmed slot.
        if lost == "initrd" {
            disk.put("etchaos/b/good", b"");
        }
        disk.remove_file(&format!("etchaos/a/{lost}")).unwrap();
        let disk = disk.unmounted();
        let repair = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
        assert_survives_cuts(
            &format!("{lost} of the running slot"),
            &host,
            &disk,
            &candidate,
            &repair,
        );
    }
}

#[test]
fn recreating_grubenv_survives_power_cuts() {
    let host = Host::new();
    let candidate = host.candidate(2);
    let disk = host.disk(1);
    disk.put(GRUBENV, b"damaged");
    let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    assert_survives_cuts("damaged grubenv", &host, &disk, &candidate, &update);
}

/// The tag and the boot counter are one write, the mark of the slot is another one, and the disk
/// keeps its tag.
#[test]
fn tagging_a_disk_survives_power_cuts() {
    let host = Host::new();
    let disk = host.disk(1);
    change_state(&disk, |state| BootState { boots: 5, ..state });
    let tag = DiskTag(7);
    let started = |disk: &Disk| {
        let mut grubenv = GrubenvFile::read(disk, Slot::A);
        grubenv.set_tag(tag);
        let state = grubenv.state.clone();
        grubenv.write(disk, state).map_err(|error| error.to_string())?;
        mark_started(disk, Slot::A).map_err(|error| error.to_string())
    };
    assert_survives_cuts("tag", &host, &disk, &host.candidate(2), &started);
    cut_everywhere(&disk, &started, &|left| {
        let grubenv = GrubenvFile::read(left, Slot::A);
        let found = (grubenv.tag(), grubenv.state.boots);
        assert!([(None, 5), (Some(tag), 0)].contains(&found), "{found:?}");
        Ok(())
    });
    let tagged = disk.copy();
    started(&tagged).unwrap();
    let is_marked = |slot: Slot| tagged.read(&format!("{}/{STARTED}", slot.directory())).is_some();
    assert!(is_marked(Slot::A) && !is_marked(Slot::B));
    // An installation removes the mark, because it belongs to the release.
    mark_started(&tagged, Slot::B).unwrap();
    assert!(!is_marked(Slot::B), "the slot is empty");
    host.fill(&tagged, Slot::B, 3);
    mark_started(&tagged, Slot::B).unwrap();
    assert!(is_marked(Slot::B));
    host.update(&tagged, Slot::A, 1, &host.candidate(2)).unwrap();
    assert!(is_marked(Slot::A) && !is_marked(Slot::B));
    host.boot_until_updated(&tagged, &host.candidate(2)).unwrap();
    assert_eq!(GrubenvFile::read(&tagged, Slot::A).tag(), Some(tag));
}

/// Space that the partial download occupies need not be free.
#[test]
fn resumed_download_needs_less_space() {
    let host = Host::new();
    let candidate = host.candidate(2);
    let needed_sectors = |disk: &Disk| {
        (0..200).find(|sectors| {
            let disk = disk.copy();
            disk.free.set(sectors * SECTOR as u64);
            let result = host.update(&disk, Slot::A, 1, &candidate);
            if let Err(error) = &result {
                assert!(error.contains("are free"), "{error}");
                // Only grubenv was written, to record the newest build.
                assert!(disk.operations() <= 3, "{} operations", disk.operations());
            }
            result.is_ok()
        })
    };
    let disk = host.disk(1);
    let interrupted = with_partial_download(&host, &disk, 2);
    let occupied: u64 = updater::files::files_in(&interrupted, "etchaos/b")
        .unwrap()
        .iter()
        .map(|path| interrupted.read(path).unwrap().len().div_ceil(SECTOR) as u64)
        .sum();
    assert!(occupied > 10);
    assert_eq!(needed_sectors(&interrupted).unwrap() + occupied, needed_sectors(&disk).unwrap());
}

/// FAT ignores the case of names, so a file in capital letters is the file of the slot.
#[test]
fn resumes_a_download_whose_names_are_in_capital_letters() {
    let host = Host::new();
    let candidate = host.candidate(2);
    let disk = with_partial_download(&host, &host.disk(1), 2);
    host.update(&disk, Slot::A, 1, &candidate).unwrap();
    let disk_in_capitals = with_partial_download(&host, &host.disk(1), 2);
    disk_in_capitals.capitalize("etchaos/b");
    host.update(&disk_in_capitals, Slot::A, 1, &candidate).unwrap();
    assert_eq!(disk_in_capitals.operations(), disk.operations());
    assert!(inspect(&disk_in_capitals, &host.keys).b.is_complete());
}

/// Shows that these tests detect faults.
#[test]
fn detects_missing_flushes_and_wrong_order_of_writes() {
    let host = Host::new();
    let candidate = host.candidate(2);
    let update = |disk: &Disk| host.update(disk, Slot::A, 1, &candidate).map(|_| ());
    let overwrite_running_slot = |disk: &Disk| {
        let kernel = vec![b'x'; 1400];
        updater::files::overwrite(disk, "etchaos/a/vmlinuz", &kernel).map_err(|e| e.to_string())
    };
    let start_trial_first = |disk: &Disk| {
        let release = Some(release(2).id());
        let trial = Trial { slot: Slot::B, tries: 3, release, since: None };
        let state = BootState { trial: Some(trial), ..BootState::with_good(Slot::A) };
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            updater::files::overwrite(disk, GRUBENV, &state.to_bytes())?;
            updater::files::create_directories(disk, "etchaos/b")?;
            for role in Role::BOOT {
                let mut file = disk.create(&format!("etchaos/b/{}", slot_file(role).unwrap()))?;
                file.write_at(&content(role, 2), 0)?;
                file.sync()?;
                disk.sync_directory("etchaos/b")?;
            }
            Ok(())
        };
        write().map_err(|error| error.to_string())
    };
    let faulty: [(&str, Fault, Action<'_>); 4] = [
        ("files are not flushed", Fault::FilesAreNotFlushed, &update),
        ("directories are not flushed", Fault::DirectoriesAreNotFlushed, &update),
        ("the running slot is overwritten", Fault::None, &overwrite_running_slot),
        ("grubenv is written first", Fault::None, &start_trial_first),
    ];
    for (name, fault, action) in faulty {
        let disk = host.disk(1);
        disk.fault.set(fault);
        let counts = cut_everywhere(&disk, action, &|left| survives(&host, left, &candidate));
        eprintln!("{name}: detected after {} states", counts.states);
        assert!(!counts.problems.is_empty(), "{name}: not detected");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The power fails several times, each time during the confirmation or update of the next boot.
    #[test]
    fn survives_repeated_power_cuts(cuts in prop::collection::vec((0_usize..80, any::<u64>(), any::<bool>()), 1..5)) {
        let host = Host::new();
        let mut disk = host.disk(1);
        for (index, (operations, subset, changes)) in cuts.into_iter().enumerate() {
            let candidate = host.candidate(if changes { 3 } else { 2 });
            let (running, _) = host.boot(&disk).unwrap();
            disk.fail_after(operations);
            let _ = host
                .confirm(&disk, running)
                .and_then(|()| host.update(&disk, running, index as u32, &candidate));
            disk = disk.after_power_cut(|index| index > 62 || subset & 1 << index != 0);
            prop_assert_eq!(host.boot(&disk.copy()).err(), None);
            disk.fsck();
        }
        prop_assert_eq!(survives(&host, &disk, &host.candidate(3)).err(), None);
    }
}
