//! Power cuts at every moment of everything that writes: whatever of the unflushed writes reached the
//! disk, the boot loader finds a whole release, and the next update arrives.

mod disk;
mod host;

use std::collections::HashSet;

use proptest::prelude::*;
use protocol::Role;
use protocol::esp::{GRUBENV, Slot, slot_file};
use protocol::grubenv::{Block, BootState, Trial};
use updater::candidate::Candidate;
use updater::files::FileSystem as _;
use updater::slot_content::Content;
use updater::slots::inspect;

use self::disk::{Disk, Fault, SECTOR};
use self::host::{Place, content, release};

/// So many pending writes are tried in every combination.
const EXHAUSTIVE: usize = 6;
/// Of more, so many combinations besides the obvious ones.
const SAMPLES: u64 = 24;

/// What is cut short, from a disk on which nothing is pending.
type Action<'a> = &'a dyn Fn(&Disk) -> Result<(), String>;

#[derive(Debug, Default)]
struct Counts {
    /// Moments at which the power failed.
    cuts: usize,
    /// Different disks that this led to.
    states: usize,
    /// Of these, not bootable, or stuck. No more are looked for when there are some.
    bad: Vec<String>,
}

/// Which of `pending` writes reached the disk, in many ways.
fn subsets(pending: usize, seed: u64) -> Vec<u64> {
    if pending <= EXHAUSTIVE {
        return (0..1 << pending).collect();
    }
    let all = (1_u64 << pending.min(63)) - 1;
    let single = (0..pending.min(63)).flat_map(|index| [1 << index, all ^ (1 << index)]);
    // A generator that is good enough to choose, and the same on every run (splitmix64).
    let random = (0..SAMPLES).map(|index| {
        let mut z = (seed << 8 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & all
    });
    [0, all].into_iter().chain(single).chain(random).collect()
}

/// Cuts `action` at every operation, and judges every disk that may be left.
fn cut_everywhere(
    disk: &Disk,
    action: Action<'_>,
    judge: &dyn Fn(&Disk) -> Result<(), String>,
) -> Counts {
    let whole = disk.copy();
    whole.fault.set(disk.fault.get());
    action(&whole).unwrap();
    let mut counts = Counts::default();
    let mut seen = HashSet::new();
    // Backwards: what goes wrong does so late.
    for operations in (0..=whole.operations()).rev() {
        if !counts.bad.is_empty() {
            break;
        }
        let cut = disk.copy();
        cut.fault.set(disk.fault.get());
        cut.fail_after(operations);
        let result = action(&cut);
        assert_eq!(result.is_ok(), operations == whole.operations(), "{result:?}");
        counts.cuts += 1;
        for subset in subsets(cut.pending(), operations as u64) {
            let left = cut.after_a_cut(|index| index > 62 || subset & 1 << index != 0);
            if !seen.insert(left.fingerprint()) {
                continue;
            }
            counts.states += 1;
            if let Err(why) = judge(&left) {
                counts.bad.push(format!("cut at {operations}, {subset:b}: {why}"));
            }
        }
    }
    counts
}

/// It boots a whole release, and the update goes on from there to its end.
fn survives(place: &Place, left: &Disk, candidate: &Candidate) -> Result<(), String> {
    // As the boot loader finds it.
    place.boot(&left.copy())?;
    // As Linux finds it after a repair; and, for half of them, without one, where it would not be
    // stopped by what it finds anyway.
    let repaired = left.copy();
    repaired.fsck();
    arrives(place, &repaired, candidate)?;
    if left.fingerprint().is_multiple_of(2) && !left.has_short_chains() {
        arrives(place, &left.copy(), candidate).map_err(|why| format!("without fsck: {why}"))?;
    }
    Ok(())
}

fn arrives(place: &Place, disk: &Disk, candidate: &Candidate) -> Result<(), String> {
    let result = place.arrive(disk, candidate);
    if let Some(trap) = &*disk.trap.borrow() {
        return Err(format!("the disk is read-only now: {trap}"));
    }
    let slots = inspect(disk, &place.keys);
    for slot in Slot::ALL {
        if matches!(slots.get(slot), Content::Partial { .. }) {
            return Err(format!("slot {slot} is still partial"));
        }
    }
    result.map(|_| ())
}

#[track_caller]
fn all_survive(name: &str, place: &Place, disk: &Disk, candidate: &Candidate, action: Action<'_>) {
    let counts = cut_everywhere(disk, action, &|left| survives(place, left, candidate));
    eprintln!("{name}: {} cuts, {} states, {} BAD", counts.cuts, counts.states, counts.bad.len());
    assert!(counts.bad.is_empty(), "{name}: {:#?}", &counts.bad[..counts.bad.len().min(5)]);
}

/// A disk with the state that the boot loader goes by.
fn with_state(disk: &Disk, change: impl FnOnce(BootState) -> BootState) {
    let state = BootState::read(&Block::parse(&disk.read(GRUBENV).unwrap()).unwrap()).unwrap();
    disk.put(GRUBENV, &change(state).to_bytes());
}

/// b runs on trial, with a as the way back.
fn on_trial(place: &Place) -> Disk {
    let disk = place.disk(1);
    place.fill(&disk, Slot::B, 2);
    let trial = Trial { slot: Slot::B, tries: 2, release: Some(release(2).id()), since: None };
    with_state(&disk, |state| BootState { trial: Some(trial), ..state });
    disk
}

/// Slot b has the beginning of the n-th release: the download was ended in the middle of the initrd.
fn partial(place: &Place, disk: &Disk, n: u64) -> Disk {
    let candidate = place.candidate(n);
    let whole = disk.copy();
    place.update(&whole, Slot::A, 1, &candidate).unwrap();
    (0..whole.operations())
        .rev()
        .find_map(|operations| {
            let cut = disk.copy();
            cut.fail_after(operations);
            place.update(&cut, Slot::A, 1, &candidate).unwrap_err();
            let left = cut.unmounted();
            let is_partial = matches!(inspect(&left, &place.keys).b, Content::Partial { bytes, release: ref r } if bytes > 4500 && bytes < r.boot_artifacts().map(|a| a.size).sum());
            is_partial.then_some(left)
        })
        .unwrap()
}

#[test]
fn an_update_into_an_empty_slot() {
    let place = Place::new();
    let candidate = place.candidate(2);
    let update = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
    all_survive("empty slot", &place, &place.disk(1), &candidate, &update);
}

#[test]
fn an_update_over_an_older_release() {
    let place = Place::new();
    let candidate = place.candidate(3);
    let disk = place.disk(2);
    place.fill(&disk, Slot::B, 1);
    let update = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
    all_survive("used slot", &place, &disk, &candidate, &update);
}

#[test]
fn an_update_that_goes_on_and_one_that_does_not() {
    let place = Place::new();
    for n in [2, 3] {
        let candidate = place.candidate(n);
        let disk = partial(&place, &place.disk(1), 2);
        let update = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
        all_survive(&format!("partial 2, offered {n}"), &place, &disk, &candidate, &update);
    }
}

#[test]
fn a_newer_release_over_one_on_trial_that_was_not_tried() {
    let place = Place::new();
    let disk = place.disk(1);
    place.update(&disk, Slot::A, 1, &place.candidate(2)).unwrap();
    let (disk, candidate) = (disk.unmounted(), place.candidate(3));
    let update = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
    all_survive("over a trial", &place, &disk, &candidate, &update);
}

#[test]
fn a_confirmation_a_way_back_and_a_withdrawal() {
    let place = Place::new();
    let disk = on_trial(&place);
    let confirm = |disk: &Disk| place.confirm(disk, Slot::B);
    all_survive("confirm", &place, &disk, &place.candidate(2), &confirm);
    // What is gone back from is not installed again: a newer one is.
    let back = |disk: &Disk| place.roll_back(disk, Slot::B);
    all_survive("rollback from a trial", &place, &disk, &place.candidate(3), &back);
    let confirmed = disk.copy();
    place.confirm(&confirmed, Slot::B).unwrap();
    all_survive("rollback", &place, &confirmed.unmounted(), &place.candidate(3), &back);
    let running = place.candidate(1);
    let withdraw = |disk: &Disk| place.update(disk, Slot::A, 1, &running).map(|_| ());
    all_survive("withdraw", &place, &disk, &place.candidate(2), &withdraw);
}

#[test]
fn a_repair_of_the_spare_slot() {
    let place = Place::new();
    let candidate = place.candidate(2);
    let disk = place.disk(2);
    place.fill(&disk, Slot::B, 1);
    disk.put("etchaos/b/initrd", b"damaged");
    let repair = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
    all_survive("repair", &place, &disk, &candidate, &repair);
}

#[test]
fn rewriting_a_lost_running_slot_survives_power_cuts() {
    let place = Place::new();
    let candidate = place.candidate(2);
    for lost in ["vmlinuz", "initrd"] {
        let disk = place.disk(2);
        place.fill(&disk, Slot::B, 1);
        // Confirmed before, or not.
        if lost == "initrd" {
            disk.put("etchaos/b/good", b"");
        }
        disk.remove_file(&format!("etchaos/a/{lost}")).unwrap();
        let disk = disk.unmounted();
        let repair = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
        all_survive(&format!("{lost} of the running slot"), &place, &disk, &candidate, &repair);
    }
}

#[test]
fn a_grubenv_that_is_made_anew() {
    let place = Place::new();
    let candidate = place.candidate(2);
    let disk = place.disk(1);
    disk.put(GRUBENV, b"damaged");
    let update = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
    all_survive("damaged grubenv", &place, &disk, &candidate, &update);
}

/// What is there already need not be free.
#[test]
fn a_download_that_is_gone_on_with_needs_less_space() {
    let place = Place::new();
    let candidate = place.candidate(2);
    let needs = |disk: &Disk| {
        (0..200).find(|sectors| {
            let disk = disk.copy();
            disk.free.set(sectors * SECTOR as u64);
            let result = place.update(&disk, Slot::A, 1, &candidate);
            if let Err(error) = &result {
                assert!(error.contains("are free"), "{error}");
                // grubenv remembers what was offered. Nothing else happened.
                assert!(disk.operations() <= 3, "{} operations", disk.operations());
            }
            result.is_ok()
        })
    };
    let disk = place.disk(1);
    let begun = partial(&place, &disk, 2);
    let there: u64 = updater::files::files_in(&begun, "etchaos/b")
        .unwrap()
        .iter()
        .map(|path| begun.read(path).unwrap().len().div_ceil(SECTOR) as u64)
        .sum();
    assert!(there > 10);
    assert_eq!(needs(&begun).unwrap() + there, needs(&disk).unwrap());
}

/// The judge is not blind.
#[test]
fn wrong_orders_are_found() {
    let place = Place::new();
    let candidate = place.candidate(2);
    let update = |disk: &Disk| place.update(disk, Slot::A, 1, &candidate).map(|_| ());
    let in_place = |disk: &Disk| {
        let kernel = vec![b'x'; 1400];
        updater::files::overwrite(disk, "etchaos/a/vmlinuz", &kernel).map_err(|e| e.to_string())
    };
    let flip_first = |disk: &Disk| {
        let release = Some(release(2).id());
        let trial = Trial { slot: Slot::B, tries: 3, release, since: None };
        let state = BootState { trial: Some(trial), ..BootState::with_good(Slot::A) };
        let written = || -> Result<(), Box<dyn std::error::Error>> {
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
        written().map_err(|error| error.to_string())
    };
    let wrong: [(&str, Fault, Action<'_>); 4] = [
        ("files are not flushed", Fault::FilesAreNotFlushed, &update),
        ("directories are not flushed", Fault::DirectoriesAreNotFlushed, &update),
        ("the running slot is overwritten", Fault::None, &in_place),
        ("grubenv first", Fault::None, &flip_first),
    ];
    for (name, fault, action) in wrong {
        let disk = place.disk(1);
        disk.fault.set(fault);
        let counts = cut_everywhere(&disk, action, &|left| survives(&place, left, &candidate));
        eprintln!("{name}: BAD after {} states", counts.states);
        assert!(!counts.bad.is_empty(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A host whose power fails again and again, at any moment of what it does then.
    #[test]
    fn one_cut_after_another(cuts in prop::collection::vec((0_usize..80, any::<u64>(), any::<bool>()), 1..5)) {
        let place = Place::new();
        let mut disk = place.disk(1);
        for (index, (operations, subset, changes)) in cuts.into_iter().enumerate() {
            let candidate = place.candidate(if changes { 3 } else { 2 });
            let (running, _) = place.boot(&disk).unwrap();
            disk.fail_after(operations);
            let _ = place
                .confirm(&disk, running)
                .and_then(|()| place.update(&disk, running, index as u32, &candidate));
            disk = disk.after_a_cut(|index| index > 62 || subset & 1 << index != 0);
            prop_assert_eq!(place.boot(&disk.copy()).err(), None);
            disk.fsck();
        }
        prop_assert_eq!(survives(&place, &disk, &place.candidate(3)).err(), None);
    }
}
