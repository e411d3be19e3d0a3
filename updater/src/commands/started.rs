//! The command `started`, which a unit runs as soon as the disk is there.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context as _, Result};
use protocol::esp::Slot;
use protocol::grubenv::DiskTag;
use serde_json::json;

use super::output::print_or_warn;
use crate::cli::{Exit, Global};
use crate::confirmation::{booted, can_mark_started, mark_started};
use crate::esp::{Access, Esp, record_tag};
use crate::grubenv_file::GrubenvFile;
use crate::host::{Booted, Host};
use crate::trial::mark_running;

/// How long to wait for another writer. An update does not run so early.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Records that the host has started: GRUB counts the boots that do not get this far. Also gives the disk a
/// tag if it has none or shares it with a copy, so that later boots know it by its tag, and marks the slot,
/// because GRUB gives up only on a release that has reset the boot counter before.
///
/// A grubenv that is missing or damaged is left to `confirm`.
pub(super) fn started(global: &Global) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let booted = booted(&host).context("cannot read the kernel command line")?;
    let open = |access| Esp::open(&host, global.esp.as_deref(), access);
    let Some(esp) = open(Access::Read)? else {
        return report(global, false, "this system was not booted from an EtchaOS disk");
    };
    if !Outdated::of(&esp, &GrubenvFile::of_host(&esp, booted), booted).is_any() {
        return report(global, false, "grubenv needs no change");
    }
    // A file system that this process has mounted read-only cannot be mounted for writing as well.
    drop(esp);
    let Some(esp) = open(Access::Write { wait: LOCK_TIMEOUT })? else { return Ok(Exit::Ok) };
    let mut grubenv = GrubenvFile::of_host(&esp, booted);
    let outdated = Outdated::of(&esp, &grubenv, booted);
    if outdated.grubenv {
        write_grubenv(&host, &esp, &mut grubenv)?;
    }
    if let Some(slot) = outdated.mark {
        mark_started(&esp, slot)?;
    }
    match outdated.is_any() {
        true => report(global, true, "recorded on the disk that this boot succeeded"),
        false => report(global, false, "grubenv needs no change"),
    }
}

/// What has to be written.
struct Outdated {
    grubenv: bool,
    /// The slot to mark.
    mark: Option<Slot>,
}

impl Outdated {
    fn of(esp: &Esp, grubenv: &GrubenvFile, booted: Booted) -> Self {
        if grubenv.problem.is_some() {
            return Self { grubenv: false, mark: None };
        }
        let is_counted = mark_running(&grubenv.state) != grubenv.state;
        let lacks_mark = |slot: &Slot| can_mark_started(esp, *slot);
        Self { grubenv: is_counted || esp.needs_tag(), mark: booted.slot.filter(lacks_mark) }
    }

    fn is_any(&self) -> bool {
        self.grubenv || self.mark.is_some()
    }
}

/// Resets the boot counter, and writes a new tag if the disk needs one.
fn write_grubenv(host: &Host, esp: &Esp, grubenv: &mut GrubenvFile) -> Result<()> {
    let tag = esp.needs_tag().then(random_tag).transpose()?;
    if let Some(tag) = tag {
        grubenv.set_tag(tag);
    }
    let state = grubenv.state.clone();
    grubenv.write(esp, state)?;
    if let Some(tag) = tag {
        record_tag(host, tag)?;
        log::info!("gave the disk the tag {tag}");
    }
    Ok(())
}

fn report(global: &Global, changed: bool, text: &str) -> Result<Exit> {
    log::info!("{text}");
    print_or_warn(global, &json!({"changed": changed}), || text.to_owned());
    Ok(Exit::Ok)
}

fn random_tag() -> Result<DiskTag> {
    let mut bytes = [0; 8];
    let path = "/dev/urandom";
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.with_context(|| format!("cannot read {path}"))?;
    Ok(DiskTag(u64::from_ne_bytes(bytes)))
}
