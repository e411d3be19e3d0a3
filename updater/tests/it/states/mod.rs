//! Explores every state that a host can reach by boots, confirmations, updates interrupted at every step,
//! rollbacks by hand and faults, in every order, while the CDN moves from release to release. From each
//! state, the host must reach the desired state without help.
//!
//! The decisions are the updater's, and GRUB's are those of [`protocol::boot_order`]. Described here are
//! the order in which [`updater::update`] writes, and the units that reboot an unhealthy release on trial.
//! The tests in `power` show that the order survives a power cut.

mod host;
mod releases;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use protocol::boot_order::{GOOD_BOOTS, OTHER_BOOTS};
use protocol::esp::Slot;

use host::{Faults, Host};
use releases::Kind::{First, Second};
use releases::{ALL, Offers, kind};

/// Explores all states. Returns their number, or the shortest path to a state from which the host does not
/// recover.
fn explore(offers: Offers, faults: Faults) -> Result<usize, String> {
    let start = Host::new(offers, faults);
    let mut paths = HashMap::from([(start.key(), String::new())]);
    let mut unexplored = VecDeque::from([start]);
    while let Some(host) = unexplored.pop_front() {
        let path = paths[&host.key()].clone();
        for (offer, offered) in offers.iter().enumerate().skip(host.offer) {
            let end = host.clone().recovers(offer);
            end.map_err(|problem| format!("{path}; then the CDN offers {offered:?}: {problem}"))?;
        }
        for (event, result) in host.events() {
            let path = format!("{path} > {event}");
            let host = result.map_err(|problem| format!("{path}: {problem}"))?;
            if let Entry::Vacant(new) = paths.entry(host.key()) {
                new.insert(path);
                unexplored.push_back(host);
            }
        }
    }
    Ok(paths.len())
}

/// Asserts that the host recovers from every state.
#[track_caller]
fn assert_all_recover(offers: Offers, faults: Faults) {
    let states = explore(offers, faults).unwrap();
    eprintln!("{faults:?}: {states} states");
    assert!(states > 100, "only {states} states were explored");
}

#[test]
fn recovers_from_bad_releases_interruptions_and_rollbacks() {
    assert_all_recover(ALL, Faults { rollbacks: 1, ..Faults::default() });
}

#[test]
fn recovers_from_lost_grubenv() {
    assert_all_recover(ALL, Faults { losses: 1, rollbacks: 1, ..Faults::default() });
}

#[test]
fn recovers_from_read_error_in_good_slot() {
    assert_all_recover(ALL, Faults { read_errors: 1, ..Faults::default() });
}

#[test]
fn recovers_from_damaged_slot() {
    assert_all_recover(ALL, Faults { damages: 1, rollbacks: 1, ..Faults::default() });
}

#[test]
fn recovers_from_a_confirmed_release_that_no_longer_comes_up() {
    assert_all_recover(ALL, Faults { broken: 1, rollbacks: 1, ..Faults::default() });
}

#[test]
fn recovers_from_hosts_that_are_switched_off_early() {
    assert_all_recover(ALL, Faults { early_ends: 2, broken: 1, ..Faults::default() });
}

/// Returns a host that runs its second release, and has both confirmed.
fn host_with_two_releases() -> Host {
    let mut host = Host::new(&[(First, 1), (Second, 2)], Faults::default());
    for offer in 0..2 {
        host.offer = offer;
        for _ in 0..3 {
            host.confirm();
            if host.update(None) {
                host.boot(false).unwrap();
            }
        }
    }
    assert_eq!((host.kind, host.marked.len()), (Second, 2));
    host
}

/// However often a healthy host is switched off before it runs, it runs its release in the end.
#[test]
fn returns_to_its_release_after_being_switched_off_early() {
    let host = host_with_two_releases();
    for ends in 0..20 {
        let mut host = host.clone();
        for _ in 0..ends {
            host.run_grub(false);
        }
        host.boot(false).unwrap();
        let is_turn_of_other = (ends % (GOOD_BOOTS + OTHER_BOOTS)) >= GOOD_BOOTS;
        assert_eq!(host.kind, if is_turn_of_other { First } else { Second }, "{ends}");
        host.recovers(1).unwrap();
    }
}

/// A host that is not healthy in the place of a release that does not come up is not rebooted without end.
#[test]
fn stays_unconfirmed_in_the_place_of_a_release_that_does_not_come_up() {
    let mut host = host_with_two_releases();
    host.broken = Some(host.running);
    host.boot(false).unwrap();
    assert_eq!(host.kind, First);
    // The update returns to the good slot, and then tries the other release again. Both end in panics.
    let mut reboots = 0;
    for _ in 0..10 {
        if host.update(None) {
            host.boot(false).unwrap();
            reboots += 1;
        }
        assert_eq!(host.kind, First);
    }
    assert_eq!(reboots, 2);
}

/// An older release is not given up because it does not reset the boot counter.
#[test]
fn keeps_a_release_that_does_not_count_boots() {
    let second = host_with_two_releases();
    for old in [&[Second][..], &[First, Second], &[First]] {
        let mut host = second.clone();
        host.old = old;
        // What the old releases have not written.
        let is_old = |slot: &Slot| old.contains(&kind(host.slots.get(*slot).release().unwrap()));
        host.started = Slot::ALL.into_iter().filter(|slot| !is_old(slot)).collect();
        for _ in 0..20 {
            host.boot(false).unwrap();
            assert_eq!(host.kind, Second, "{old:?}");
            host.confirm();
        }
    }
}

#[test]
fn recovers_from_unloadable_slot() {
    assert_all_recover(ALL, Faults { unloadable: 1, ..Faults::default() });
}
