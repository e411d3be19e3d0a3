//! The full update cycle of a release: stage 5 of the builder.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use protocol::esp::Slot;
use protocol::pattern::Mode;
use protocol::{KeyRing, PrivateKey, Role, Target};

use crate::accel::{self, Choice, Request};
use crate::actions;
use crate::artifacts::{self, ArtifactError, Artifacts};
use crate::cdn::Cdn;
use crate::checks::{self, Expected};
use crate::disk::{self, CopyError};
use crate::firmware::Firmware;
use crate::guest::{Cancel, Guest, GuestError};
use crate::host::{self, Missing};
use crate::machine::{Boot, Machine};
use crate::push;
use crate::report::{Done, Event, Report, Step};
use crate::work::{Work, WorkError};

/// What a cycle needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder with the manifest and the artifacts.
    pub artifacts: PathBuf,
    /// What they are for.
    pub target: Target,
    /// Who may have signed the manifest.
    pub keys: KeyRing,
    /// A folder for disk copies and sockets; needs room for one disk image. It may be shared.
    pub work: PathBuf,
    /// A folder for logs; those of an earlier run are replaced.
    pub logs: PathBuf,
    /// The accelerator.
    pub accel: Request,
    /// Memory of the VM in MiB.
    pub memory: u32,
    /// Virtual processors; unless told, as many as the accelerator runs well ([`Accel::cpus`](crate::accel::Accel::cpus)).
    pub cpus: Option<u32>,
    /// What `etchaos-updater --version` must say, without the name.
    pub updater_version: String,
    /// How to stop it from outside.
    pub cancel: Cancel,
}

impl Options {
    /// Memory of a VM in MiB, unless told otherwise.
    pub const MEMORY: u32 = 2048;
    /// The version of this workspace, which the updater shares.
    pub const UPDATER_VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// Why a cycle failed.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    /// Programs or firmware.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The release.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The folder of the run.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The copy of the disk.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The CDN.
    #[error("cannot serve the artifacts on the loopback: {0}")]
    Cdn(io::Error),
    /// The folder of logs.
    #[error("cannot make the folder for logs {}: {source}", path.display())]
    Logs {
        /// The folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The guest has a release again, but not from us.
    #[error(
        "the guest says that it updated, but it did not fetch {missing} from the CDN; the CDN was asked for: {asked}"
    )]
    NotFetched {
        /// The path that was not fetched.
        missing: String,
        /// Everything that was.
        asked: String,
    },
}

/// The step at which a cycle failed, why, and what succeeded before.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// Why.
    pub source: CycleError,
    /// The steps before it.
    pub report: Report,
}

/// Boots the release, damages it, has it update itself, and boots it by BIOS.
pub fn run(options: &Options, events: &dyn Fn(Event<'_>)) -> Result<Report, Box<Failure>> {
    let step = Cell::new(Step::VerifyArtifacts);
    let say = |line: &str| events(Event::Progress(step.get(), line));
    let report = Report { logs: options.logs.clone(), ..Report::default() };
    let mut steps = Steps { events, step: &step, report };
    match play(options, &mut steps, &say) {
        Ok(()) => Ok(steps.report),
        Err(source) => Err(Box::new(Failure { step: step.get(), source, report: steps.report })),
    }
}

/// The cycle, step by step.
fn play(options: &Options, steps: &mut Steps<'_>, say: &dyn Fn(&str)) -> Result<(), CycleError> {
    let artifacts = steps.run(Step::VerifyArtifacts, || verify(options))?;
    let bench = steps.run(Step::PrepareBench, || Bench::prepare(options, &artifacts, say))?;
    steps.report.accel = Some(bench.accel.clone());

    let booted = steps.run(Step::BootUefi, || bench.boot(Firmware::UefiSecureboot))?;
    let healthy = steps.run(Step::ValidateUefi, || booted.validate(Slot::A))?;
    let damaged = steps.run(Step::DeleteSlot, || healthy.delete_slot())?;
    let updated = steps.run(Step::AutoUpdate, || damaged.auto_update())?;
    let healthy = steps.run(Step::ValidateUpdate, || updated.validate(Slot::B))?;
    steps.run(Step::PowerOff, || healthy.power_off())?;

    let booted = steps.run(Step::BootBios, || bench.boot(Firmware::Bios))?;
    let healthy = steps.run(Step::ValidateBios, || booted.validate(Slot::B))?;
    steps.run(Step::PowerOffBios, || healthy.power_off())
}

/// Runs steps, times them, and tells about them.
struct Steps<'a> {
    events: &'a dyn Fn(Event<'_>),
    step: &'a Cell<Step>,
    report: Report,
}

impl Steps<'_> {
    fn run<T>(&mut self, step: Step, action: impl FnOnce() -> Outcome<T>) -> Result<T, CycleError> {
        self.step.set(step);
        (self.events)(Event::Started(step));
        let start = Instant::now();
        let (value, note) = action()?;
        let took = start.elapsed();
        self.report.steps.push(Done { step, took, note });
        (self.events)(Event::Finished(step, took));
        Ok(value)
    }
}

/// What a step returns: its value, and a note for the table.
type Outcome<T> = Result<(T, String), CycleError>;

fn verify(options: &Options) -> Outcome<Artifacts> {
    host::check()?;
    let artifacts = artifacts::verify(&options.artifacts, &options.target, &options.keys)?;
    let note = format!("{} {}", options.target, artifacts.release.version);
    Ok((artifacts, note))
}

/// Everything that outlives a single VM.
struct Bench<'a> {
    options: &'a Options,
    artifacts: &'a Artifacts,
    work: Work,
    disk: PathBuf,
    cdn: Cdn,
    accel: Choice,
    /// What the guest trusts for pushed Patterns: new for each run, and never written down.
    key: PrivateKey,
    say: &'a dyn Fn(&str),
}

impl<'a> Bench<'a> {
    fn prepare(
        options: &'a Options,
        artifacts: &'a Artifacts,
        say: &'a dyn Fn(&str),
    ) -> Outcome<Self> {
        std::fs::create_dir_all(&options.logs)
            .map_err(|source| CycleError::Logs { path: options.logs.clone(), source })?;
        let work = Work::new(&options.work)?;
        let disk = work.path().join("disk.raw");
        disk::copy_sparse(&artifacts.disk, &disk)?;
        let cdn = Cdn::start(&artifacts.served).map_err(CycleError::Cdn)?;
        let accel = accel::choose(options.accel, Some(&artifacts.kernel), work.path());
        let note = format!("by {}", accel.accel);
        let key = PrivateKey::generate();
        Ok((Self { options, artifacts, work, disk, cdn, accel, key, say }, note))
    }

    fn boot(&'a self, firmware: Firmware) -> Outcome<Booted<'a>> {
        let name = if firmware == Firmware::Bios { "bios" } else { "uefi" };
        let tpm = firmware != Firmware::Bios;
        let machine = Machine {
            name: name.into(),
            boot: Boot::Disk(self.disk.clone()),
            firmware,
            accel: self.accel.accel,
            memory: self.options.memory,
            cpus: self.options.cpus.unwrap_or(self.accel.accel.cpus()),
            tpm,
            config: Some(push::guest_config(&self.key, self.cdn.address().port())),
            forward: Some(push::PORT),
        };
        let (dir, logs, key) = (self.work.path().join(name), &self.options.logs, self.key.clone());
        let (guest, boot) = Guest::boot(&machine, &dir, logs, key, &self.options.cancel, self.say)?;
        let note = format!("{firmware}{}", if tpm { ", TPM 2.0" } else { "" });
        Ok((Booted { bench: self, guest, boot, firmware, tpm }, note))
    }
}

/// A guest that answers.
struct Booted<'a> {
    bench: &'a Bench<'a>,
    guest: Guest<'a>,
    boot: String,
    firmware: Firmware,
    tpm: bool,
}

/// A guest that passed every check.
struct Healthy<'a>(Booted<'a>);

/// A guest whose slot `a` would not boot again.
struct Damaged<'a>(Booted<'a>);

impl<'a> Booted<'a> {
    fn validate(mut self, slot: Slot) -> Outcome<Healthy<'a>> {
        let checks = checks::checks(&Expected {
            release: &self.bench.artifacts.release,
            slot,
            firmware: self.firmware,
            tpm: self.tpm,
            updater_version: &self.bench.options.updater_version,
        });
        self.guest.push("validating the guest", checks::pattern(&checks), Mode::Check)?;
        Ok((Healthy(self), format!("{} checks", checks.len())))
    }
}

impl<'a> Healthy<'a> {
    fn delete_slot(mut self) -> Outcome<Damaged<'a>> {
        let waiting = "deleting kernel and initrd";
        self.0.guest.push(waiting, actions::damage(), Mode::Change)?;
        Ok((Damaged(self.0), String::new()))
    }

    fn power_off(self) -> Outcome<()> {
        let how = self.0.guest.power_off()?;
        Ok(((), how.to_owned()))
    }
}

impl<'a> Damaged<'a> {
    fn auto_update(self) -> Outcome<Booted<'a>> {
        let Self(mut host) = self;
        host.guest.push_last("starting the update", actions::update())?;
        host.boot = host.guest.wait_for_reboot(&host.boot)?;
        let fetched = host.bench.fetched()?;
        Ok((host, fetched))
    }
}

impl Bench<'_> {
    /// Whether kernel and initrd were fetched from our CDN; says how many bytes.
    fn fetched(&self) -> Result<String, CycleError> {
        let accesses = self.cdn.accesses();
        let mut bytes = 0;
        for role in Role::BOOT {
            let path = format!("/{}", self.artifacts.place(role));
            let mut gets = accesses
                .iter()
                .filter(|a| a.method == "GET" && a.path == path && matches!(a.status, 200 | 206));
            let Some(first) = gets.next() else {
                let asked =
                    accesses.iter().map(|a| format!("{} {} {}", a.method, a.path, a.status));
                let asked = asked.collect::<Vec<_>>().join(", ");
                return Err(CycleError::NotFetched { missing: path, asked });
            };
            bytes += first.length.unwrap_or_default();
        }
        Ok(format!("{} MiB from the CDN", bytes >> 20))
    }
}
