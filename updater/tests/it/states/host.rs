//! The model of a host, its slots and its boot loader.

use protocol::boot_order::{
    Attempt, Environment, GOOD_BOOTS, Load, OTHER_BOOTS, Outcome, Platform, Reason, Save, SlotFiles,
};
use protocol::esp::Slot;
use protocol::grubenv::{BootId, BootState, TRIES};
use protocol::{Manifest, Release};
use updater::confirmation::reason_not_to_confirm;
use updater::grubenv_file::good_without_grubenv;
use updater::host::Booted;
use updater::plan::{Facts, Permissions, Step, next};
use updater::slot_content::{Content, Slots};
use updater::trial::{
    Rollback, cancel_trial, expire_trial, mark_confirmed, mark_running, promote, roll_back,
    start_trial,
};
use updater::update::state_to_record;

use super::releases::Kind::{First, Panics};
use super::releases::{Kind, Offers, kind, manifest};

/// How often each fault may still happen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// The operator rolls back.
    pub(super) rollbacks: u8,
    /// grubenv is lost.
    pub(super) losses: u8,
    /// GRUB cannot load the good slot in one boot.
    pub(super) read_errors: u8,
    /// GRUB cannot load a slot, although it is complete, until the slot is written again.
    pub(super) unloadable: u8,
    /// The host is switched off before it has started.
    pub(super) early_ends: u8,
    /// A confirmed release no longer comes up in a slot, until the slot is written again.
    pub(super) broken: u8,
    /// A file of a slot is lost while the other slot has a healthy release that is not recorded as failed.
    pub(super) damages: u8,
}

/// Identifiers of this boot and an earlier one. Two are enough, because only equality counts.
const CURRENT_BOOT: BootId = BootId(2);
const EARLIER_BOOT: BootId = BootId(1);

#[derive(Debug, Clone)]
pub(super) struct Host {
    offers: Offers,
    pub(super) offer: usize,
    /// `None` if grubenv is lost.
    grubenv: Option<BootState>,
    pub(super) slots: Slots,
    /// Whether no healthy release is left, because of more faults than an update can survive.
    is_lost: bool,
    /// The slot that GRUB cannot load.
    pub(super) unloadable: Option<Slot>,
    /// The slot whose release panics, although it was confirmed.
    pub(super) broken: Option<Slot>,
    /// The slots with the mark [`protocol::esp::CONFIRMED`].
    pub(super) marked: Vec<Slot>,
    /// The slots with the mark [`protocol::esp::STARTED`].
    pub(super) started: Vec<Slot>,
    /// Older releases, which do not reset the boot counter.
    pub(super) old: &'static [Kind],
    pub(super) running: Slot,
    /// The release that was booted. It runs from memory, so later changes of the slot do not affect it.
    pub(super) kind: Kind,
    /// Whether this boot is on trial and not yet confirmed.
    on_trial: bool,
    faults: Faults,
}

impl Host {
    pub(super) fn new(offers: Offers, faults: Faults) -> Self {
        let slots = Slots { a: Content::Complete(manifest((First, 0))), b: Content::Empty };
        let grubenv = Some(BootState::with_good(Slot::A));
        let (marked, running) = (vec![Slot::A], Slot::A);
        let mut host = Self {
            offers,
            offer: 0,
            grubenv,
            slots,
            unloadable: None,
            broken: None,
            is_lost: false,
            marked,
            started: Vec::new(),
            old: &[],
            running,
            kind: First,
            on_trial: false,
            faults,
        };
        host.start();
        host
    }

    /// Returns a key that is equal for hosts in the same state.
    pub(super) fn key(&self) -> String {
        let slot = |content: &Content| match content {
            Content::Complete(Manifest { release, .. }) => {
                format!("{} {}", release.version, release.build)
            }
            Content::Partial { release, .. } => format!("part of {}", release.version),
            Content::Empty | Content::Damaged { .. } => "-".to_owned(),
        };
        let Self {
            offer,
            grubenv,
            is_lost,
            unloadable,
            broken,
            marked,
            started,
            running,
            kind,
            on_trial,
            faults,
            ..
        } = self;
        let slots = [&self.slots.a, &self.slots.b].map(slot);
        format!(
            "{running} {kind:?} {on_trial} {is_lost} {slots:?} {unloadable:?} {broken:?} {marked:?} {started:?} {grubenv:?} {offer} {faults:?}"
        )
    }

    fn offered(&self) -> Manifest {
        manifest(self.offers[self.offer])
    }

    fn booted(&self) -> Booted {
        Booted { slot: Some(self.running), on_trial: self.on_trial, id: Some(CURRENT_BOOT) }
    }

    fn state(&self) -> BootState {
        let files = |slot| self.grub_files(slot);
        let fallback = || BootState::with_good(good_without_grubenv(self.booted(), files));
        self.grubenv.clone().unwrap_or_else(fallback)
    }

    fn put(&mut self, slot: Slot, content: Content) {
        if matches!(content, Content::Partial { .. }) {
            self.marked.retain(|marked| *marked != slot);
            self.started.retain(|started| *started != slot);
            self.unloadable = self.unloadable.filter(|unloadable| *unloadable != slot);
            self.broken = self.broken.filter(|broken| *broken != slot);
        }
        match slot {
            Slot::A => self.slots.a = content,
            Slot::B => self.slots.b = content,
        }
    }

    /// Boots until a release runs. With `read_error`, GRUB cannot load the good slot the first time.
    pub(super) fn boot(&mut self, mut read_error: bool) -> Result<(), String> {
        if let Some(trial) = self.grubenv.as_mut().and_then(|state| state.trial.as_mut()) {
            trial.since = trial.since.map(|_| EARLIER_BOOT);
        }
        // The tries of a trial, and then two turns of both slots.
        for _ in 0..TRIES + 2 * (GOOD_BOOTS + OTHER_BOOTS) {
            match self.run_grub(std::mem::take(&mut read_error)) {
                Outcome::Boots(Attempt { slot, reason, .. }) => {
                    let release = self.slots.get(slot).release().expect("a complete slot");
                    let kind = kind(release);
                    // After a panic the kernel reboots.
                    if kind != Panics && self.broken != Some(slot) {
                        let on_trial = reason == Reason::Trial;
                        (self.running, self.on_trial, self.kind) = (slot, on_trial, kind);
                        self.start();
                        return Ok(());
                    }
                }
                Outcome::Reboots(_) => return self.no_boot("GRUB reboots"),
                Outcome::NothingBoots => return self.no_boot("nothing boots"),
            }
        }
        self.no_boot("every boot ends in a panic")
    }

    /// Returns the files of a slot that GRUB finds.
    fn grub_files(&self, slot: Slot) -> SlotFiles {
        let content = self.slots.get(slot);
        SlotFiles {
            manifest: content.release().is_some(),
            mark: self.marked.contains(&slot),
            started: self.started.contains(&slot),
            kernel: content.is_complete(),
            initrd: content.is_complete(),
        }
    }

    /// Runs grub.cfg: counts a try, and returns what boots.
    pub(super) fn run_grub(&mut self, read_error: bool) -> Outcome {
        let environment = self.grubenv.as_ref().map(Environment::from).unwrap_or_default();
        let files = |slot| self.grub_files(slot);
        // GRUB cannot save to a file that does not exist.
        let save = if self.grubenv.is_some() { Save::Stored } else { Save::Failed };
        let decision = environment.decide(files, save);
        let load = |slot: Slot| {
            let fails = self.unloadable == Some(slot) || (read_error && slot == decision.good);
            if fails { Load::KernelFails } else { Load::Works }
        };
        let outcome = decision.outcome(Platform::Uefi, files, load);
        if let Some(state) = &mut self.grubenv {
            if let (Some(trial), Some(tries)) = (&mut state.trial, decision.saves) {
                trial.tries = tries;
            }
            state.boots = decision.saves_boots(outcome).unwrap_or(state.boots);
        }
        outcome
    }

    /// Does what etchaos-started.service does.
    fn start(&mut self) {
        if self.grubenv.is_none() || self.old.contains(&self.kind) {
            return;
        }
        self.record(self.grubenv.clone());
        if !self.started.contains(&self.running) {
            self.started.push(self.running);
            self.started.sort();
        }
    }

    /// Writes grubenv, as `GrubenvFile::write` does.
    fn record(&mut self, state: Option<BootState>) {
        let is_old = self.old.contains(&self.kind);
        self.grubenv = state.map(|state| if is_old { state } else { mark_running(&state) });
    }

    fn no_boot(&mut self, problem: &str) -> Result<(), String> {
        self.is_lost = !self.has_healthy_slot();
        if self.is_lost { Ok(()) } else { Err(problem.into()) }
    }

    /// Returns whether a slot has a healthy release that loads and is not recorded as failed.
    fn has_healthy_slot(&self) -> bool {
        let failed = expire_trial(&self.state(), Some(self.running)).failed;
        Slot::ALL.into_iter().any(|slot| match self.slots.get(slot) {
            Content::Complete(Manifest { release, .. }) => {
                let has_failed = failed == Some(release.id());
                // In the place of a broken release, GRUB boots only one that was confirmed.
                let is_in_its_place = self.broken.is_none() || self.marked.contains(&slot);
                let is_bootable =
                    is_in_its_place && ![self.unloadable, self.broken].contains(&Some(slot));
                kind(release).is_healthy() && !has_failed && is_bootable
            }
            _ => false,
        })
    }

    pub(super) fn confirm(&mut self) {
        let state = self.grubenv.clone().unwrap_or(BootState::with_good(self.running));
        let has_confirmed_mark = self.marked.contains(&self.running);
        if reason_not_to_confirm(&state, self.booted(), has_confirmed_mark).is_none() {
            if self.slots.get(self.running).release().is_some() && !has_confirmed_mark {
                self.marked.push(self.running);
                self.marked.sort();
            }
            self.record(Some(mark_confirmed(&state, self.running)));
            self.on_trial = false;
        }
    }

    /// Runs `update`, interrupted after this number of steps if given. Returns whether it requests a reboot.
    pub(super) fn update(&mut self, interrupted_after: Option<u8>) -> bool {
        let (booted, candidate) = (self.booted(), self.offered());
        let expired = expire_trial(&self.state(), booted.slot);
        let has_confirmed_mark = self.marked.contains(&expired.good.other());
        let known = promote(&expired, booted, &self.slots, has_confirmed_mark);
        let facts = Facts {
            booted,
            state: &known,
            slots: &self.slots,
            candidate: &candidate,
            allow: Permissions::default(),
        };
        let step = next(&facts);
        let recorded = state_to_record(&facts, &step, &expired);
        let mut state = recorded.clone().unwrap_or(known.clone());
        if recorded.is_some() {
            self.record(recorded);
        }
        let spare = known.good.other();
        if self.running != spare && self.slots.get(spare).release().map(Release::id) == known.failed
        {
            self.marked.retain(|marked| *marked != spare);
        }
        if interrupted_after == Some(0) {
            return false;
        }
        match step {
            Step::Pending(_) | Step::Return(_) => return true,
            Step::Withdraw(_) => self.record(Some(cancel_trial(&state))),
            Step::Install(slot) | Step::Repair(slot) | Step::Activate(slot) => {
                if step.writes().is_some() {
                    state.trial = state.trial.filter(|trial| trial.slot != slot);
                    self.record(Some(state.clone()));
                    self.put(
                        slot,
                        Content::Partial { release: candidate.release.clone(), bytes: 1 },
                    );
                    if interrupted_after == Some(1) {
                        return false;
                    }
                    self.put(slot, Content::Complete(candidate.clone()));
                    if matches!(step, Step::Repair(_)) && self.marked.contains(&slot.other()) {
                        self.marked = Slot::ALL.to_vec();
                    }
                    if matches!(step, Step::Repair(_)) && self.started.contains(&slot.other()) {
                        self.started = Slot::ALL.to_vec();
                    }
                }
                assert_ne!(slot, state.good);
                if interrupted_after != Some(2) && !matches!(step, Step::Repair(_)) {
                    let release = self.slots.get(slot).release().unwrap();
                    let started = start_trial(&state, slot, release, booted.id);
                    self.record(Some(started));
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// Returns the events that may happen next, with the host after each.
    pub(super) fn events(&self) -> Vec<(String, Result<Self, String>)> {
        let mut events = Vec::new();
        if self.is_lost {
            return events;
        }
        let mut add = |name: &str, apply: &dyn Fn(&mut Self) -> Result<(), String>| {
            let mut host = self.clone();
            let result = apply(&mut host);
            events.push((name.to_owned(), result.map(|()| host)));
        };
        add("reboot", &|host| host.boot(false));
        for interrupted_after in [None, Some(0), Some(1), Some(2)] {
            add(&format!("update {interrupted_after:?}"), &|host| {
                host.update(interrupted_after);
                Ok(())
            });
        }
        if self.kind.is_healthy() {
            add("confirm", &|host| {
                host.confirm();
                Ok(())
            });
        }
        if self.offer + 1 < self.offers.len() {
            add("the CDN offers the next release", &|host| {
                host.offer += 1;
                Ok(())
            });
        }
        if self.faults.rollbacks > 0 {
            add("rollback", &|host| {
                host.faults.rollbacks -= 1;
                let rollback =
                    roll_back(&host.state(), host.running, &host.slots, Some(CURRENT_BOOT));
                if let Ok(Rollback::Stay(state) | Rollback::Reboot(state, _)) = rollback {
                    host.record(Some(state));
                }
                Ok(())
            });
        }
        if self.faults.losses > 0 {
            add("grubenv is lost", &|host| {
                host.faults.losses -= 1;
                host.grubenv = None;
                Ok(())
            });
        }
        let failed = expire_trial(&self.state(), Some(self.running)).failed;
        let has_fallback = |slot: &Slot| match self.slots.get(slot.other()) {
            Content::Complete(Manifest { release, .. }) => {
                kind(release).is_healthy() && failed != Some(release.id())
            }
            _ => false,
        };
        if self.faults.damages > 0 {
            for slot in Slot::ALL.into_iter().filter(has_fallback) {
                add(&format!("a file of slot {slot} is lost"), &|host| {
                    host.faults.damages -= 1;
                    let manifest = host.slots.get(slot).manifest().cloned();
                    host.put(slot, Content::Damaged { manifest, problem: String::new() });
                    Ok(())
                });
            }
        }
        if self.faults.unloadable > 0 && self.unloadable.is_none() {
            for slot in Slot::ALL.into_iter().filter(has_fallback) {
                add(&format!("slot {slot} becomes unloadable"), &|host| {
                    host.faults.unloadable -= 1;
                    host.unloadable = Some(slot);
                    Ok(())
                });
            }
        }
        if self.faults.broken > 0 && self.broken.is_none() {
            for slot in Slot::ALL.into_iter().filter(|slot| has_fallback(slot)) {
                // A release that was confirmed, beside another one that was.
                if self.marked == Slot::ALL {
                    add(&format!("slot {slot} no longer comes up"), &|host| {
                        host.faults.broken -= 1;
                        host.broken = Some(slot);
                        Ok(())
                    });
                }
            }
        }
        if self.faults.early_ends > 0 {
            add("reboot, switched off before the host runs", &|host| {
                host.faults.early_ends -= 1;
                host.run_grub(false);
                host.boot(false)
            });
        }
        let spare = self.slots.get(self.state().good.other());
        if self.faults.read_errors > 0 && matches!(spare, Content::Complete(_)) {
            add("reboot with a read error in the good slot", &|host| {
                host.faults.read_errors -= 1;
                host.boot(true)
            });
        }
        events
    }

    /// Checks that units and timers alone bring the host to the desired state, when the CDN offers this
    /// release.
    pub(super) fn recovers(mut self, offer: usize) -> Result<(), String> {
        self.offer = offer;
        let mut unchanged = 0;
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
            unchanged = if self.key() == before { unchanged + 1 } else { 0 };
            if unchanged == 2 {
                return self.check_stable_state();
            }
        }
        Err("the host does not reach a stable state".into())
    }

    fn check_stable_state(&self) -> Result<(), String> {
        let (offered, state) = (self.offered().release, self.grubenv.as_ref());
        let has_failed = state.is_some_and(|state| state.failed == Some(offered.id()));
        let is_installable = kind(&offered).is_healthy() && !has_failed;
        if !self.kind.is_healthy() && !self.has_healthy_slot() && !is_installable {
            return Ok(());
        }
        if !self.kind.is_healthy() {
            return Err(format!("the host stays on {:?}", self.kind));
        }
        if state.is_none_or(|state| state.good != self.running) {
            return Err("the running release is not confirmed".into());
        }
        match kind(&offered) {
            kind if kind.is_healthy() && kind != self.kind && !has_failed => {
                Err(format!("{kind:?} is never installed"))
            }
            _ => Ok(()),
        }
    }
}
