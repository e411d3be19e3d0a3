//! An update of a disk: inspects the slots, decides, and carries out the decision. This is everything
//! that `update` does between the CDN's response and the reboot, and the power-cut tests run it unchanged.

use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::BootState;
use protocol::{KeyRing, Release};

use crate::confirmation::{copy_marks, has_confirmed_mark, unmark};
use crate::files::{FileError, FileSystem};
use crate::grubenv_file::GrubenvFile;
use crate::host::Booted;
use crate::install::{
    FileOrigin, InstallError, Installed, Job, Source, Space, install, origins, put_on_trial,
};
use crate::plan::{Facts, Permissions, Step, next};
use crate::progress::Progress;
use crate::slot_content::Slots;
use crate::slots::{inspect, survey};
use crate::trial::{
    abandon, cancel_trial, expire_trial, has_failed, is_abandoned, promote, record_newest,
};

/// The input of an update.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The ESP.
    pub esp: &'a dyn FileSystem,
    /// How the host was booted.
    pub booted: Booted,
    /// The release that the CDN offers.
    pub source: Source<'a>,
    /// What the operator allows.
    pub allow: Permissions,
}

/// An update whose next step is decided.
pub struct Update<'a> {
    request: Request<'a>,
    /// The boot state after expired trials were ended and a lost good slot was replaced.
    effective_state: BootState,
    /// The contents of the slots at the time of the decision.
    pub slots: Slots,
    /// grubenv, including the changes made by [`Update::carry_out`].
    pub grubenv: GrubenvFile,
    /// The decision.
    pub step: Step,
    /// Where the files came from that [`Update::carry_out`] has written.
    written: Vec<FileOrigin>,
}

/// An update that was rejected or that failed. The release that was good before still boots.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The candidate is older than the running release.
    #[error(
        "the CDN offers {offered}, which is older than {running}, so it is not installed; to install it anyway, use \"update --allow-downgrade\""
    )]
    Downgrade {
        /// The candidate.
        offered: String,
        /// The running release.
        running: String,
    },
    /// GRUB did not start a trial that it should have started.
    #[error(
        "slot {0} is on trial, but the boot loader did not try it at the last boot: it cannot write {GRUBENV} on the ESP; check that the file is intact and that the firmware can write to the disk, then run \"update --retry-failed\""
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
    /// Hashes the slots and decides.
    pub fn decide(request: Request<'a>) -> Self {
        Self::with_slots(request, inspect(request.esp, request.source.keys))
    }

    /// Decides by manifests and file sizes alone, without hashing. The result shows whether write access
    /// will probably be needed. It must not be carried out.
    pub fn preview(request: Request<'a>) -> Self {
        Self::with_slots(request, survey(request.esp, request.source.keys))
    }

    fn with_slots(request: Request<'a>, slots: Slots) -> Self {
        let Request { esp, booted, source: Source { candidate, .. }, allow } = request;
        let (grubenv, effective_state) = read_state(esp, booted, &slots);
        let facts = Facts {
            booted,
            state: &effective_state,
            slots: &slots,
            candidate: candidate.manifest(),
            allow,
        };
        let step = next(&facts);
        Self { request, effective_state, slots, grubenv, step, written: Vec::new() }
    }

    /// Returns whether [`Update::carry_out`] writes to the ESP.
    pub fn writes(&self) -> bool {
        let is_change = match self.step {
            Step::Withdraw(_) | Step::Install(_) | Step::Activate(_) | Step::Repair(_) => true,
            // A downgrade is rejected before anything is recorded.
            Step::Downgrade => return false,
            Step::UpToDate
            | Step::Pending(_)
            | Step::NotTried(_)
            | Step::Return(_)
            | Step::Unconfirmed { .. }
            | Step::FailedBefore => false,
        };
        is_change || self.state_to_record().is_some() || self.stale_mark().is_some()
    }

    /// Returns the release that the CDN offers.
    pub fn candidate(&self) -> &Release {
        self.request.source.candidate.release()
    }

    /// Returns the id of the key that signed the candidate.
    pub fn key_id(&self) -> &str {
        self.request.source.candidate.key_id()
    }

    /// Returns the release in the running slot, or in the good slot if the host was not booted from this ESP.
    pub fn current(&self) -> Option<&Release> {
        self.slots.get(self.request.booted.slot.unwrap_or(self.grubenv.state.good)).release()
    }

    /// Returns the release that the next boot starts.
    pub fn next_boot(&self) -> &Release {
        match self.step {
            Step::Pending(slot) | Step::Return(slot) | Step::Activate(slot) => {
                self.slots.get(slot).release()
            }
            _ => None,
        }
        .unwrap_or(self.candidate())
    }

    /// Returns where the files that the step writes come from. Before [`Update::carry_out`], this is the plan, in
    /// which the bytes that an interrupted run has fetched count as well.
    pub fn origins(&self) -> Vec<FileOrigin> {
        match self.step.writes() {
            Some(slot) if self.written.is_empty() => {
                origins(self.request.source, &self.slots, slot)
            }
            _ => self.written.clone(),
        }
    }

    /// Checks that the ESP has enough space for the step.
    pub fn check_space(&self) -> Result<(), InstallError> {
        if let Some(slot) = self.step.writes() {
            Space::check(self.request.esp, slot, self.request.source.candidate)?;
        }
        Ok(())
    }

    /// Returns an error if the step is [`Step::Downgrade`].
    pub fn reject_downgrade(&self) -> Result<(), UpdateError> {
        match self.step {
            Step::Downgrade => Err(UpdateError::Downgrade {
                offered: describe(self.candidate()),
                running: self.current().map_or("the running release".into(), describe),
            }),
            _ => Ok(()),
        }
    }

    /// Records the boot state and carries out the step. Returns whether the host has to be rebooted.
    pub fn carry_out(&mut self, progress: &Progress) -> Result<bool, UpdateError> {
        self.reject_downgrade()?;
        self.record_state()?;
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
                // The good slot holds the same release.
                copy_marks(esp, slot.other(), slot);
                return Ok(false);
            }
            Step::Install(slot) => self.install(slot, progress)?,
            // `next` only activates a complete slot, so the second arm is not reached.
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
        let job = Job { esp, slot, source, slots: &self.slots, progress };
        let installed = install(job, &mut self.grubenv)?;
        self.written = installed.origins.clone();
        Ok(installed)
    }

    /// Returns the state to write to grubenv before the step, or `None` if grubenv already has it.
    fn state_to_record(&self) -> Option<BootState> {
        let Request { booted, allow, .. } = self.request;
        let GrubenvFile { state, problem, .. } = &self.grubenv;
        let (slots, candidate) = (&self.slots, self.request.source.candidate.manifest());
        let facts = Facts { booted, state: &self.effective_state, slots, candidate, allow };
        // Without grubenv, a system that was not booted from this ESP cannot know its good slot.
        let is_unknown = problem.is_some() && booted.slot.is_none();
        let state_to_record = state_to_record(&facts, &self.step, state).filter(|_| !is_unknown)?;
        (problem.is_some() || state_to_record != *state).then_some(state_to_record)
    }

    /// Returns the spare slot if it has the mark of a confirmed release, but its release has failed since.
    fn stale_mark(&self) -> Option<Slot> {
        let slot = self.effective_state.good.other();
        let is_running = self.request.booted.slot == Some(slot);
        let has_failed = has_failed(&self.effective_state, self.slots.get(slot));
        (!is_running && has_failed && has_confirmed_mark(self.request.esp, slot)).then_some(slot)
    }

    /// Removes a stale mark and writes the boot state to grubenv.
    fn record_state(&mut self) -> Result<(), FileError> {
        if let Some(slot) = self.stale_mark() {
            unmark(self.request.esp, slot)?;
        }
        let Some(new) = self.state_to_record() else { return Ok(()) };
        let GrubenvFile { state, problem, .. } = &self.grubenv;
        if let Some(problem) = problem {
            log::warn!("{problem}; recreating it with slot {} as the good slot", new.good);
        }
        if let (Some(failed), true) = (new.failed, new.failed != state.failed) {
            log::warn!(release = failed.to_string().as_str(); "release {failed} failed its trial");
        }
        if new.good != state.good {
            log::warn!("slot {} does not boot; slot {} is now the good slot", state.good, new.good);
        }
        self.grubenv.write(self.request.esp, new)
    }
}

/// Reads grubenv. Returns it with the effective boot state: expired trials are ended, and a lost good
/// slot is replaced.
fn read_state(esp: &dyn FileSystem, booted: Booted, slots: &Slots) -> (GrubenvFile, BootState) {
    let grubenv = GrubenvFile::of_host(esp, booted);
    let state = expire_trial(&grubenv.state, booted.slot);
    let effective = promote(&state, booted, slots, has_confirmed_mark(esp, state.good.other()));
    (grubenv, effective)
}

/// Returns the state to write to a grubenv that holds `before`, or `None` to leave grubenv to `confirm`:
/// while a slot that is not good runs, only a return or a promotion is recorded.
pub fn state_to_record(facts: &Facts<'_>, step: &Step, before: &BootState) -> Option<BootState> {
    let Facts { booted, state, candidate, allow, .. } = facts;
    match (booted.slot, step) {
        (Some(running), Step::Return(_)) => Some(abandon(state, running, booted.id)),
        (Some(running), _) if running != state.good && state.good == before.good => None,
        _ => Some(record_newest(state, &candidate.release, allow.downgrade)),
    }
}

/// Returns the installed release that is waiting for a reboot. No CDN is needed to boot it.
pub fn release_awaiting_reboot(
    esp: &dyn FileSystem,
    booted: Booted,
    keys: &KeyRing,
) -> Option<Release> {
    let slots = inspect(esp, keys);
    let (grubenv, effective_state) = read_state(esp, booted, &slots);
    let candidate = slots.get(grubenv.state.trial?.slot).manifest()?;
    // If it is older than the running release, the downgrade was allowed when the trial was started.
    let allow = Permissions { downgrade: true, ..Permissions::default() };
    match next(&Facts { booted, state: &effective_state, slots: &slots, candidate, allow }) {
        Step::Pending(slot) => slots.get(slot).release().cloned(),
        // A return that is not in grubenv yet would have to be written first.
        Step::Return(slot) if is_abandoned(&effective_state, slot.other()) => {
            slots.get(slot).release().cloned()
        }
        _ => None,
    }
}

/// Returns target, version and build of a release, for messages.
pub fn describe(release: &Release) -> String {
    format!("{} {} (build {})", release.target(), release.version, release.build)
}
