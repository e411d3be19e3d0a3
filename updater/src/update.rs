//! One update of a disk: a look at it, the decision, and what follows from it. This is all of `update`
//! between the CDN's answer and the reboot; power cuts are tested by it.

use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::BootState;
use protocol::{KeyRing, Release};

use crate::confirm::{has_confirmed_mark, unmark};
use crate::files::{FileError, FileSystem};
use crate::grubenv_file::GrubenvFile;
use crate::host::Booted;
use crate::install::{InstallError, Installed, Job, Source, Space, install, put_on_trial};
use crate::plan::{Facts, Permissions, Slots, Step, next};
use crate::progress::Progress;
use crate::slots::inspect;
use crate::trial::{
    abandon, cancel_trial, expire_trial, is_abandoned, is_bad, promote, record_newest,
};

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The ESP.
    pub esp: &'a dyn FileSystem,
    /// What runs.
    pub booted: Booted,
    /// What the CDN offers.
    pub source: Source<'a>,
    /// What the operator allows.
    pub allow: Permissions,
}

/// An update that is decided.
pub struct Update<'a> {
    request: Request<'a>,
    /// What GRUB goes by, with what follows from the slots and from what runs.
    known: BootState,
    /// What was in the slots.
    pub slots: Slots,
    /// grubenv, as it is by now.
    pub grubenv: GrubenvFile,
    /// What is to be done, or was done.
    pub step: Step,
}

/// An update that was refused, or did not work. What was running before still boots.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// What is offered is older.
    #[error(
        "the CDN offers {offered}, which is older than {running}: refused; \"update --allow-downgrade\" installs it"
    )]
    Downgrade {
        /// What is offered.
        offered: String,
        /// What runs.
        running: String,
    },
    /// A trial was asked for, and GRUB did not begin it.
    #[error(
        "slot {0} was to be tried at the last boot, and the boot loader did not: it cannot write {GRUBENV} on the ESP (is the file whole, and the disk writable for the firmware?); \"update --retry-failed\" tries once more"
    )]
    NotTried(Slot),
    /// The release could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// grubenv could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl<'a> Update<'a> {
    /// Looks at the disk and decides.
    pub fn decide(request: Request<'a>) -> Self {
        let Request { esp, booted, source: Source { candidate, keys, .. }, allow } = request;
        let (slots, grubenv, known) = look(esp, booted, keys);
        let candidate = candidate.release();
        let step = next(&Facts { booted, state: &known, slots: &slots, candidate, allow });
        Self { request, known, slots, grubenv, step }
    }

    /// Whether something is to be written.
    pub fn writes(&self) -> bool {
        let is_change = match self.step {
            Step::Withdraw(_) | Step::Install(_) | Step::Activate(_) | Step::Repair(_) => true,
            Step::UpToDate
            | Step::Pending(_)
            | Step::NotTried(_)
            | Step::Return(_)
            | Step::Unconfirmed { .. }
            | Step::FailedBefore
            | Step::Downgrade => false,
        };
        is_change || self.memory().is_some() || self.stale_mark().is_some()
    }

    /// What the CDN offers.
    pub fn candidate(&self) -> &Release {
        self.request.source.candidate.release()
    }

    /// Which key signed it.
    pub fn key_id(&self) -> &str {
        self.request.source.candidate.key_id()
    }

    /// What runs, by its slot's manifest; or what would.
    pub fn here(&self) -> Option<&Release> {
        self.slots.get(self.request.booted.slot.unwrap_or(self.grubenv.state.good)).release()
    }

    /// What the reboot leads to, if one is wanted.
    pub fn next_boot(&self) -> &Release {
        match self.step {
            Step::Pending(slot) | Step::Return(slot) | Step::Activate(slot) => {
                self.slots.get(slot).release()
            }
            _ => None,
        }
        .unwrap_or(self.candidate())
    }

    /// An error, if there is no space for what was decided.
    pub fn check_space(&self) -> Result<(), InstallError> {
        if let Some(slot) = self.step.writes() {
            Space::check(self.request.esp, slot, self.request.source.candidate)?;
        }
        Ok(())
    }

    /// An error, if that was the decision.
    pub fn refuse_downgrade(&self) -> Result<(), UpdateError> {
        match self.step {
            Step::Downgrade => Err(UpdateError::Downgrade {
                offered: named(self.candidate()),
                running: self.here().map_or("what runs".into(), named),
            }),
            _ => Ok(()),
        }
    }

    /// Writes down what must not be forgotten, and does what was decided. Says whether the host has to
    /// be rebooted for it.
    pub fn carry_out(&mut self, progress: &Progress) -> Result<bool, UpdateError> {
        self.refuse_downgrade()?;
        self.remember()?;
        let Request { esp, booted, .. } = self.request;
        let installed = match self.step {
            Step::UpToDate | Step::Unconfirmed { .. } | Step::FailedBefore | Step::Downgrade => {
                return Ok(false);
            }
            Step::Pending(_) | Step::Return(_) => return Ok(true),
            Step::NotTried(slot) => return Err(UpdateError::NotTried(slot)),
            Step::Withdraw(_) => {
                self.grubenv.write(esp, cancel_trial(&self.grubenv.state))?;
                return Ok(false);
            }
            Step::Repair(slot) => {
                self.install(slot, progress)?;
                return Ok(false);
            }
            Step::Install(slot) => self.install(slot, progress)?,
            // It was found whole by this very look, or the step would be another one.
            Step::Activate(slot) => match Installed::found(&self.slots, slot) {
                Some(installed) => installed,
                None => self.install(slot, progress)?,
            },
        };
        put_on_trial(esp, &installed, &mut self.grubenv, booted.id)?;
        Ok(true)
    }

    fn install(&mut self, slot: Slot, progress: &Progress) -> Result<Installed, InstallError> {
        let Request { esp, source, .. } = self.request;
        install(Job { esp, slot, source, progress }, &mut self.grubenv)
    }

    /// What grubenv is to say before anything else is done; nothing, if it does.
    fn memory(&self) -> Option<BootState> {
        let Request { booted, allow, .. } = self.request;
        let GrubenvFile { state, problem, .. } = &self.grubenv;
        let candidate = self.candidate();
        let facts = Facts { booted, state: &self.known, slots: &self.slots, candidate, allow };
        // Who runs from elsewhere does not know what is good here.
        let is_unknown = problem.is_some() && booted.slot.is_none();
        let memory = memory(&facts, &self.step, state).filter(|_| !is_unknown)?;
        (problem.is_some() || memory != *state).then_some(memory)
    }

    /// A slot that was confirmed before, and is known to be bad by now: it was rolled back.
    fn stale_mark(&self) -> Option<Slot> {
        let slot = self.known.good.other();
        let is_running = self.request.booted.slot == Some(slot);
        let is_bad = is_bad(&self.known, self.slots.get(slot));
        (!is_running && is_bad && has_confirmed_mark(self.request.esp, slot)).then_some(slot)
    }

    /// Writes down what must not be forgotten.
    fn remember(&mut self) -> Result<(), FileError> {
        if let Some(slot) = self.stale_mark() {
            unmark(self.request.esp, slot)?;
        }
        let Some(known) = self.memory() else { return Ok(()) };
        let GrubenvFile { state, problem, .. } = &self.grubenv;
        if let Some(problem) = problem {
            log::warn!("{problem}: it is made anew, with slot {} as good", known.good);
        }
        if let (Some(failed), true) = (known.failed, known.failed != state.failed) {
            log::warn!(release = failed.to_string().as_str(); "release {failed} failed its trial");
        }
        if known.good != state.good {
            log::warn!("slot {} does not boot: slot {} takes its place", state.good, known.good);
        }
        self.grubenv.write(self.request.esp, known)
    }
}

/// What is in the slots, grubenv, and what GRUB goes by with what follows from both and from what runs.
fn look(esp: &dyn FileSystem, booted: Booted, keys: &KeyRing) -> (Slots, GrubenvFile, BootState) {
    let slots = inspect(esp, keys);
    let grubenv = GrubenvFile::of_host(esp, booted, &slots);
    let state = expire_trial(&grubenv.state, booted.slot);
    let known = promote(&state, booted, &slots, has_confirmed_mark(esp, state.good.other()));
    (slots, grubenv, known)
}

/// What a grubenv that says `before` is to say from these facts and this decision on; nothing, if that is
/// left to `confirm`. Without grubenv the boot loader takes slot a for good, or one that was confirmed
/// before, whatever runs.
pub fn memory(facts: &Facts<'_>, step: &Step, before: &BootState) -> Option<BootState> {
    let Facts { booted, state, candidate, allow, .. } = facts;
    match (booted.slot, step) {
        (Some(running), Step::Return(_)) => Some(abandon(state, running, booted.id)),
        (Some(running), _) if running != state.good && state.good == before.good => None,
        _ => Some(record_newest(state, candidate, allow.downgrade)),
    }
}

/// The release that only waits for a reboot, if there is one: what a CDN offered last, for when it
/// offers nothing now.
pub fn outstanding(esp: &dyn FileSystem, booted: Booted, keys: &KeyRing) -> Option<Release> {
    let (slots, grubenv, known) = look(esp, booted, keys);
    let candidate = slots.get(grubenv.state.trial?.slot).release()?;
    // Whoever put it on trial had asked for an older one.
    let allow = Permissions { downgrade: true, ..Permissions::default() };
    match next(&Facts { booted, state: &known, slots: &slots, candidate, allow }) {
        Step::Pending(slot) => slots.get(slot).release().cloned(),
        // Asked for before; else it would have to be written down first.
        Step::Return(slot) if is_abandoned(&known, slot.other()) => {
            slots.get(slot).release().cloned()
        }
        _ => None,
    }
}

/// A release in a sentence.
pub fn named(release: &Release) -> String {
    format!("{} {} (build {})", release.target(), release.version, release.build)
}
