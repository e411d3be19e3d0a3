//! Every state that a host can get into, by boots, confirmations, updates that are cut at every step,
//! ways back by hand and faults, in every order, while the CDN goes on from release to release. From
//! each of them it gets by itself to where it should be.
//!
//! The decisions are the updater's. What surrounds them is retold here: `grub.cfg`, the order in which
//! [`updater::update`] writes, and units that reboot what is on trial and not healthy. That the order
//! survives a power cut is tested in `power`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootId, BootState, Trial};
use updater::confirmation::why_not;
use updater::grubenv_file::good_without_grubenv;
use updater::host::Booted;
use updater::plan::{Facts, Permissions, Step, next};
use updater::slot_content::{Content, Slots};
use updater::trial::{
    Rollback, cancel_trial, expire_trial, mark_confirmed, promote, roll_back, start_trial,
};
use updater::update::state_to_record;

/// What the CDN offers, one after the other.
type Offers = &'static [(Kind, u64)];

/// What becomes of a boot, for each of the releases that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    First,
    Second,
    Third,
    Unhealthy,
    Panics,
}
use Kind::{First, Panics, Second, Third, Unhealthy};

impl Kind {
    fn is_healthy(self) -> bool {
        !matches!(self, Unhealthy | Panics)
    }
}

/// Bad ones in both slots, one that is withdrawn, and one that comes again under a newer number.
const ALL: Offers =
    &[(First, 1), (Second, 2), (Unhealthy, 3), (Second, 4), (Panics, 5), (Third, 6)];

static RELEASE: LazyLock<Release> = LazyLock::new(|| crate::world::release(1));

fn release((kind, build): (Kind, u64)) -> Release {
    let mut release = Release { version: format!("{kind:?}"), build, ..RELEASE.clone() };
    for artifact in &mut release.artifacts {
        artifact.sha256 = format!("{:02x}", kind as u8).repeat(32);
    }
    release
}

fn kind(release: &Release) -> Kind {
    let kinds = [First, Second, Third, Unhealthy, Panics];
    kinds.into_iter().find(|kind| format!("{kind:?}") == release.version).unwrap()
}

/// How often this may still happen.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    rollbacks: u8,
    /// grubenv is lost.
    losses: u8,
    /// GRUB cannot load the good slot, once.
    misreadings: u8,
    /// GRUB cannot load a slot any more until it is written anew, although it is whole.
    blindness: u8,
    /// A file of a slot is lost, while the other slot has something that is healthy, and is not taken
    /// for bad.
    damages: u8,
}

/// This boot and one before it: no more has to be known of them.
const NOW: BootId = BootId(2);
const BEFORE: BootId = BootId(1);

#[derive(Debug, Clone)]
struct Host {
    offers: Offers,
    offer: usize,
    /// Lost, if there is none.
    grubenv: Option<BootState>,
    slots: Slots,
    /// By more faults than anybody could know of.
    is_lost: bool,
    /// What GRUB cannot load.
    blind: Option<Slot>,
    /// Slots with the mark of [`protocol::esp::CONFIRMED`].
    marked: Vec<Slot>,
    running: Slot,
    /// What was booted from it. It is in memory, whatever becomes of the slot.
    kind: Kind,
    /// As the updater knows it: not any more when it was confirmed.
    on_trial: bool,
    faults: Faults,
}

impl Host {
    fn new(offers: Offers, faults: Faults) -> Self {
        let slots = Slots { a: Content::Complete(release((First, 0))), b: Content::Empty };
        let grubenv = Some(BootState::with_good(Slot::A));
        let (marked, running) = (vec![Slot::A], Slot::A);
        Self {
            offers,
            offer: 0,
            grubenv,
            slots,
            blind: None,
            is_lost: false,
            marked,
            running,
            kind: First,
            on_trial: false,
            faults,
        }
    }

    /// Two hosts with the same one are the same.
    fn key(&self) -> String {
        let slot = |content: &Content| match content {
            Content::Complete(release) => format!("{} {}", release.version, release.build),
            Content::Partial { release, .. } => format!("part of {}", release.version),
            Content::Empty | Content::Damaged { .. } => "-".to_owned(),
        };
        let Self {
            offer, grubenv, is_lost, blind, marked, running, kind, on_trial, faults, ..
        } = self;
        let slots = [&self.slots.a, &self.slots.b].map(slot);
        format!(
            "{running} {kind:?} {on_trial} {is_lost} {slots:?} {blind:?} {marked:?} {grubenv:?} {offer} {faults:?}"
        )
    }

    fn offered(&self) -> Release {
        release(self.offers[self.offer])
    }

    fn booted(&self) -> Booted {
        Booted { slot: Some(self.running), on_trial: self.on_trial, id: Some(NOW) }
    }

    fn state(&self) -> BootState {
        let otherwise = || BootState::with_good(good_without_grubenv(self.booted(), &self.slots));
        self.grubenv.clone().unwrap_or_else(otherwise)
    }

    fn put(&mut self, slot: Slot, content: Content) {
        if matches!(content, Content::Partial { .. }) {
            self.marked.retain(|marked| *marked != slot);
            self.blind = self.blind.filter(|blind| *blind != slot);
        }
        match slot {
            Slot::A => self.slots.a = content,
            Slot::B => self.slots.b = content,
        }
    }

    /// As in `builder/variants/boot/grub.cfg`, until something runs.
    fn boot(&mut self, mut misreads_good: bool) -> Result<(), String> {
        if let Some(trial) = self.grubenv.as_mut().and_then(|state| state.trial.as_mut()) {
            trial.since = trial.since.map(|_| BEFORE);
        }
        for _ in 0..5 {
            let has_manifest = |slot: &Slot| self.slots.get(*slot).release().is_some();
            let guess = [self.marked.clone(), Slot::ALL.to_vec()].concat();
            let guess = guess.into_iter().find(has_manifest).unwrap_or(Slot::A);
            let good = self.grubenv.as_ref().map_or(guess, |state| state.good);
            let mut order = vec![(good, false), (good.other(), false)];
            if std::mem::take(&mut misreads_good) {
                order.remove(0);
            }
            let trial = self.grubenv.as_mut().and_then(|state| state.trial.as_mut());
            if let Some(Trial { slot, tries: tries @ 1.., .. }) = trial {
                *tries -= 1;
                order.insert(0, (*slot, true));
            }
            let booted = order.into_iter().find_map(|(slot, on_trial)| {
                let Content::Complete(release) = self.slots.get(slot) else { return None };
                if self.blind == Some(slot) {
                    return None;
                }
                Some((slot, on_trial, kind(release)))
            });
            match booted {
                None => return self.no_boot("nothing boots"),
                // The kernel reboots.
                Some((_, _, Panics)) => {}
                Some((running, on_trial, kind)) => {
                    (self.running, self.on_trial, self.kind) = (running, on_trial, kind);
                    return Ok(());
                }
            }
        }
        self.no_boot("it panics for ever")
    }

    fn no_boot(&mut self, why: &str) -> Result<(), String> {
        self.is_lost = !self.has_something();
        if self.is_lost { Ok(()) } else { Err(why.into()) }
    }

    /// Whether there is anything healthy that could be booted, and is not taken for bad.
    fn has_something(&self) -> bool {
        let failed = expire_trial(&self.state(), Some(self.running)).failed;
        Slot::ALL.into_iter().any(|slot| match self.slots.get(slot) {
            Content::Complete(release) => {
                let is_taken_for_bad = failed == Some(release.id());
                kind(release).is_healthy() && !is_taken_for_bad && self.blind != Some(slot)
            }
            _ => false,
        })
    }

    fn confirm(&mut self) {
        let state = self.grubenv.clone().unwrap_or(BootState::with_good(self.running));
        let has_confirmed_mark = self.marked.contains(&self.running);
        if why_not(&state, self.booted(), has_confirmed_mark).is_none() {
            if self.slots.get(self.running).release().is_some() && !has_confirmed_mark {
                self.marked.push(self.running);
                self.marked.sort();
            }
            self.grubenv = Some(mark_confirmed(&state, self.running));
            self.on_trial = false;
        }
    }

    /// `update`, ended after some of its steps, or not. Says whether a reboot is wanted.
    fn update(&mut self, ended_after: Option<u8>) -> bool {
        let (booted, candidate) = (self.booted(), self.offered());
        let settled = expire_trial(&self.state(), booted.slot);
        let has_confirmed_mark = self.marked.contains(&settled.good.other());
        let known = promote(&settled, booted, &self.slots, has_confirmed_mark);
        let facts = Facts {
            booted,
            state: &known,
            slots: &self.slots,
            candidate: &candidate,
            allow: Permissions::default(),
        };
        let step = next(&facts);
        let remembered = state_to_record(&facts, &step, &settled);
        let mut state = remembered.clone().unwrap_or(known.clone());
        self.grubenv = remembered.or(self.grubenv.take());
        let spare = known.good.other();
        if self.running != spare && self.slots.get(spare).release().map(Release::id) == known.failed
        {
            self.marked.retain(|marked| *marked != spare);
        }
        if ended_after == Some(0) {
            return false;
        }
        match step {
            Step::Pending(_) | Step::Return(_) => return true,
            Step::Withdraw(_) => self.grubenv = Some(cancel_trial(&state)),
            Step::Install(slot) | Step::Repair(slot) | Step::Activate(slot) => {
                if step.writes().is_some() {
                    state.trial = state.trial.filter(|trial| trial.slot != slot);
                    self.grubenv = Some(state.clone());
                    self.put(slot, Content::Partial { release: candidate.clone(), bytes: 1 });
                    if ended_after == Some(1) {
                        return false;
                    }
                    self.put(slot, Content::Complete(candidate.clone()));
                }
                assert_ne!(slot, state.good);
                if ended_after != Some(2) && !matches!(step, Step::Repair(_)) {
                    let release = self.slots.get(slot).release().unwrap();
                    self.grubenv = Some(start_trial(&state, slot, release, booted.id));
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// What may happen next.
    fn events(&self) -> Vec<(String, Result<Self, String>)> {
        let mut events = Vec::new();
        if self.is_lost {
            return events;
        }
        let mut may = |name: &str, happen: &dyn Fn(&mut Self) -> Result<(), String>| {
            let mut host = self.clone();
            let happened = happen(&mut host);
            events.push((name.to_owned(), happened.map(|()| host)));
        };
        may("reboot", &|host| host.boot(false));
        for ended_after in [None, Some(0), Some(1), Some(2)] {
            may(&format!("update {ended_after:?}"), &|host| {
                host.update(ended_after);
                Ok(())
            });
        }
        if self.kind.is_healthy() {
            may("confirm", &|host| {
                host.confirm();
                Ok(())
            });
        }
        if self.offer + 1 < self.offers.len() {
            may("the CDN goes on", &|host| {
                host.offer += 1;
                Ok(())
            });
        }
        if self.faults.rollbacks > 0 {
            may("rollback", &|host| {
                host.faults.rollbacks -= 1;
                let back = roll_back(&host.state(), host.running, &host.slots, Some(NOW));
                if let Ok(Rollback::Stay(state) | Rollback::Reboot(state, _)) = back {
                    host.grubenv = Some(state);
                }
                Ok(())
            });
        }
        if self.faults.losses > 0 {
            may("grubenv is lost", &|host| {
                host.faults.losses -= 1;
                host.grubenv = None;
                Ok(())
            });
        }
        let failed = expire_trial(&self.state(), Some(self.running)).failed;
        let has_way_back = |slot: &Slot| match self.slots.get(slot.other()) {
            Content::Complete(release) => {
                kind(release).is_healthy() && failed != Some(release.id())
            }
            _ => false,
        };
        if self.faults.damages > 0 {
            for slot in Slot::ALL.into_iter().filter(has_way_back) {
                may(&format!("a file of slot {slot} is lost"), &|host| {
                    host.faults.damages -= 1;
                    let release = host.slots.get(slot).release().cloned();
                    host.put(slot, Content::Damaged { release, problem: String::new() });
                    Ok(())
                });
            }
        }
        if self.faults.blindness > 0 && self.blind.is_none() {
            for slot in Slot::ALL.into_iter().filter(has_way_back) {
                may(&format!("slot {slot} does not load any more"), &|host| {
                    host.faults.blindness -= 1;
                    host.blind = Some(slot);
                    Ok(())
                });
            }
        }
        let spare = self.slots.get(self.state().good.other());
        if self.faults.misreadings > 0 && matches!(spare, Content::Complete(_)) {
            may("reboot, the good slot is not read", &|host| {
                host.faults.misreadings -= 1;
                host.boot(true)
            });
        }
        events
    }

    /// When nothing happens any more but what units and timers do, and the CDN offers this.
    fn ends_well(mut self, offer: usize) -> Result<(), String> {
        self.offer = offer;
        let mut quiet = 0;
        for _ in 0..40 {
            let before = self.key();
            if self.kind.is_healthy() {
                self.confirm();
            }
            // etchaos-deadline.service and etchaos-fallback.service.
            if self.on_trial || self.update(None) {
                self.boot(false)?;
            }
            if self.is_lost {
                return Ok(());
            }
            quiet = if self.key() == before { quiet + 1 } else { 0 };
            if quiet == 2 {
                return self.is_well();
            }
        }
        Err("it does not come to rest".into())
    }

    fn is_well(&self) -> Result<(), String> {
        let (offered, state) = (self.offered(), self.grubenv.as_ref());
        let was_failed = state.is_some_and(|state| state.failed == Some(offered.id()));
        let is_news = kind(&offered).is_healthy() && !was_failed;
        if !self.kind.is_healthy() && !self.has_something() && !is_news {
            return Ok(());
        }
        if !self.kind.is_healthy() {
            return Err(format!("it stays on {:?}", self.kind));
        }
        if state.is_none_or(|state| state.good != self.running) {
            return Err("what runs is not confirmed".into());
        }
        match kind(&offered) {
            kind if kind.is_healthy() && kind != self.kind && !was_failed => {
                Err(format!("{kind:?} is never installed"))
            }
            _ => Ok(()),
        }
    }
}

/// Goes everywhere. Says how many states there are; or the shortest way to one that is bad.
fn explore(offers: Offers, faults: Faults) -> Result<usize, String> {
    let start = Host::new(offers, faults);
    let mut ways = HashMap::from([(start.key(), String::new())]);
    let mut open = VecDeque::from([start]);
    while let Some(host) = open.pop_front() {
        let way = ways[&host.key()].clone();
        for (offer, offered) in offers.iter().enumerate().skip(host.offer) {
            let end = host.clone().ends_well(offer);
            end.map_err(|why| format!("{way}; then {offered:?} is offered: {why}"))?;
        }
        for (event, happened) in host.events() {
            let way = format!("{way} > {event}");
            let host = happened.map_err(|why| format!("{way}: {why}"))?;
            if let Entry::Vacant(new) = ways.entry(host.key()) {
                new.insert(way);
                open.push_back(host);
            }
        }
    }
    Ok(ways.len())
}

#[track_caller]
fn all_end_well(offers: Offers, faults: Faults) {
    let states = explore(offers, faults).unwrap();
    eprintln!("{faults:?}: {states} states");
    assert!(states > 100);
}

#[test]
fn bad_releases_and_cuts_and_ways_back_end_well() {
    all_end_well(ALL, Faults { rollbacks: 1, ..Faults::default() });
}

#[test]
fn a_grubenv_that_is_lost_ends_well() {
    all_end_well(ALL, Faults { losses: 1, rollbacks: 1, ..Faults::default() });
}

#[test]
fn a_good_slot_that_is_misread_ends_well() {
    all_end_well(ALL, Faults { misreadings: 1, ..Faults::default() });
}

#[test]
fn a_slot_that_is_lost_ends_well() {
    all_end_well(ALL, Faults { damages: 1, rollbacks: 1, ..Faults::default() });
}

#[test]
fn a_slot_that_does_not_load_ends_well() {
    all_end_well(ALL, Faults { blindness: 1, ..Faults::default() });
}
