//! Whether a disk would boot a complete and verified release.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use protocol::esp::{GRUB_CFG, GRUBENV, MANIFEST, Slot, slot_file};
use protocol::token::{self, TOKEN_MAX};
use protocol::{Artifact, KeyRing, Manifest, Release, Role, Verified};
use sha2::{Digest, Sha256};

use super::disk::{SECTOR, Sectors};
use super::fat::{Fat, FatError, Node};
use super::grub::{Environment, Why};

/// The largest grubenv that is looked at: GRUB's has 1024 bytes.
const GRUBENV_MAX: u64 = 64 << 10;
/// Where firmware finds the boot loader.
const LOADERS: &str = "EFI";

/// What is in a slot.
#[derive(Debug, Clone)]
pub enum Held {
    /// Nothing at all.
    Nothing,
    /// A release whose manifest verifies and whose files are as it says.
    Complete(Rc<Release>),
    /// Something else, and why it is none.
    Broken(String),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("empty"),
            Self::Complete(release) => write!(f, "complete, build {}", release.build),
            Self::Broken(why) => write!(f, "incomplete: {why}"),
        }
    }
}

/// What a disk would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It boots this slot, which is complete and verified, and so is the one to fall back to.
    Boots(Slot, Why),
    /// It boots nothing, or something that nobody has verified.
    Bad(String),
}

/// Judges disks. What it has hashed once it knows by the numbers of its sectors.
pub struct Judge {
    keys: KeyRing,
    esp: u64,
    /// The files that boot the slots, as they have to stay.
    loader: Vec<(String, u128)>,
    digests: HashMap<u128, String>,
    manifests: HashMap<u128, Result<Rc<Release>, String>>,
}

impl Judge {
    /// A judge of disks whose EFI system partition begins at this sector. Manifests must be signed
    /// by one of `keys`.
    pub fn new(keys: KeyRing, esp: u64) -> Self {
        Self { keys, esp, loader: Vec::new(), digests: HashMap::new(), manifests: HashMap::new() }
    }

    /// From now on, the boot loader's files have to be as they are on this disk.
    pub fn remember_loader(&mut self, disk: &impl Sectors) -> Result<(), FatError> {
        let fat = Fat::open(disk, self.esp)?;
        let mut files = fat.files(LOADERS)?;
        files.extend(fat.find(GRUB_CFG)?.map(|node| (GRUB_CFG.to_owned(), node)));
        self.loader = Vec::new();
        for (path, file) in files {
            let print = print(disk, &fat.sectors(&file)?, file.size);
            self.loader.extend(print.map(|print| (path, print)));
        }
        Ok(())
    }

    /// What this disk would boot.
    pub fn judge(&mut self, disk: &impl Sectors) -> Verdict {
        match self.boots(disk) {
            Ok((slot, why)) => Verdict::Boots(slot, why),
            Err(problem) => Verdict::Bad(problem),
        }
    }

    fn boots(&mut self, disk: &impl Sectors) -> Result<(Slot, Why), String> {
        let fat = Fat::open(disk, self.esp).map_err(|error| error.to_string())?;
        self.check_loader(disk, &fat)?;
        let environment = read_environment(&fat).completed(|slot, name| has(&fat, slot, name));
        for (slot, why) in environment.order() {
            if !grub_sees(&fat, slot) {
                continue;
            }
            let held = self.held_in(disk, &fat, slot);
            if !matches!(held, Held::Complete(_)) {
                return Err(format!(
                    "{environment}: it boots slot {slot} ({why}), which is {held}"
                ));
            }
            let good = environment.good();
            if why == Why::Trial && good != slot {
                let held = self.held_in(disk, &fat, good);
                if !matches!(held, Held::Complete(_)) {
                    let why = format!("slot {good}, the way back from the trial, is {held}");
                    return Err(format!("{environment}: {why}"));
                }
            }
            return Ok((slot, why));
        }
        Err(format!("{environment}: no slot has a kernel and an initrd"))
    }

    fn check_loader<S: Sectors>(&self, disk: &S, fat: &Fat<'_, S>) -> Result<(), String> {
        for (path, expected) in &self.loader {
            let broken = |error: FatError| format!("the boot loader's {path}: {error}");
            let node = fat.find(path).map_err(broken)?;
            let node = node.ok_or_else(|| format!("the boot loader's {path} is missing"))?;
            let sectors = fat.sectors(&node).map_err(broken)?;
            if print(disk, &sectors, node.size) != Some(*expected) {
                return Err(format!("the boot loader's {path} has changed"));
            }
        }
        Ok(())
    }

    /// What grubenv says, and what is in both slots.
    pub fn inspect(&mut self, disk: &impl Sectors) -> Result<Inspection, FatError> {
        let fat = Fat::open(disk, self.esp)?;
        let [a, b] = Slot::ALL.map(|slot| self.held_in(disk, &fat, slot));
        Ok(Inspection { environment: read_environment(&fat), a, b })
    }

    fn held_in<S: Sectors>(&mut self, disk: &S, fat: &Fat<'_, S>, slot: Slot) -> Held {
        match self.release_in(disk, fat, slot) {
            Ok(Some(release)) => Held::Complete(release),
            Ok(None) => Held::Nothing,
            Err(why) => Held::Broken(why),
        }
    }

    fn release_in<S: Sectors>(
        &mut self,
        disk: &S,
        fat: &Fat<'_, S>,
        slot: Slot,
    ) -> Result<Option<Rc<Release>>, String> {
        let directory = slot.directory();
        let Some(node) = find(fat, &directory)? else { return Ok(None) };
        if fat.list(&node).map_err(|error| format!("{directory}: {error}"))?.is_empty() {
            return Ok(None);
        }
        let path = format!("{directory}/{MANIFEST}");
        let manifest = find(fat, &path)?.ok_or_else(|| format!("{MANIFEST} is missing"))?;
        let release = self.manifest(disk, fat, &manifest)?;
        for artifact in release.boot_artifacts() {
            self.check(disk, fat, slot, artifact)?;
        }
        Ok(Some(release))
    }

    fn manifest<S: Sectors>(
        &mut self,
        disk: &S,
        fat: &Fat<'_, S>,
        file: &Node,
    ) -> Result<Rc<Release>, String> {
        let sectors = fat.sectors(file).map_err(|error| format!("{MANIFEST}: {error}"))?;
        let print = print(disk, &sectors, file.size);
        if let Some(known) = print.and_then(|print| self.manifests.get(&print)) {
            return known.clone();
        }
        let release = verify(fat, file, &self.keys).map_err(|why| format!("{MANIFEST}: {why}"));
        if let Some(print) = print {
            self.manifests.insert(print, release.clone());
        }
        release
    }

    fn check<S: Sectors>(
        &mut self,
        disk: &S,
        fat: &Fat<'_, S>,
        slot: Slot,
        artifact: &Artifact,
    ) -> Result<(), String> {
        let name = slot_file(artifact.role).unwrap_or_default();
        let path = format!("{}/{name}", slot.directory());
        let file = find(fat, &path)?.ok_or_else(|| format!("{name} is missing"))?;
        if file.is_directory || file.size != artifact.size {
            return Err(format!("{name} has {} bytes, expected {}", file.size, artifact.size));
        }
        let sectors = fat.sectors(&file).map_err(|error| format!("{name}: {error}"))?;
        let print = print(disk, &sectors, file.size);
        let known = print.and_then(|print| self.digests.get(&print));
        let digest = match known {
            Some(digest) => digest.clone(),
            None => {
                digest(disk, &sectors, file.size).map_err(|error| format!("{name}: {error}"))?
            }
        };
        let is_whole = digest == artifact.sha256;
        if let Some(print) = print {
            self.digests.insert(print, digest);
        }
        if is_whole { Ok(()) } else { Err(format!("{name} is not the one of the manifest")) }
    }
}

/// grubenv and both slots.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// What GRUB reads.
    pub environment: Environment,
    /// `etchaos/a`
    pub a: Held,
    /// `etchaos/b`
    pub b: Held,
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; a {}; b {}", self.environment, self.a, self.b)
    }
}

/// What GRUB reads on the disk whose EFI system partition begins at sector `esp`.
pub fn environment(disk: &impl Sectors, esp: u64) -> Result<Environment, FatError> {
    Ok(read_environment(&Fat::open(disk, esp)?))
}

/// What GRUB reads; a grubenv that is not there or cannot be read has no variables.
fn read_environment<S: Sectors>(fat: &Fat<'_, S>) -> Environment {
    let file = fat.find(GRUBENV).ok().flatten();
    let bytes = file.and_then(|file| fat.content(&file, GRUBENV_MAX).ok());
    bytes.map_or_else(Environment::default, |bytes| Environment::read(&bytes))
}

/// Whether grub.cfg's test for a file of a slot succeeds.
fn has<S: Sectors>(fat: &Fat<'_, S>, slot: Slot, name: &str) -> bool {
    let node = fat.find(&format!("{}/{name}", slot.directory())).ok().flatten();
    node.is_some_and(|node| !node.is_directory)
}

/// Whether grub.cfg's test for both files succeeds.
fn grub_sees<S: Sectors>(fat: &Fat<'_, S>, slot: Slot) -> bool {
    Role::BOOT.into_iter().filter_map(slot_file).all(|name| has(fat, slot, name))
}

fn find<S: Sectors>(fat: &Fat<'_, S>, path: &str) -> Result<Option<Node>, String> {
    fat.find(path).map_err(|error| format!("{path}: {error}"))
}

/// Whether it may run does not depend on the time: what is installed does not go bad.
fn verify<S: Sectors>(
    fat: &Fat<'_, S>,
    file: &Node,
    keys: &KeyRing,
) -> Result<Rc<Release>, String> {
    let bytes = fat.content(file, TOKEN_MAX as u64).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())?;
    let claims = token::verify(&text, keys).map_err(|error| error.to_string())?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|error: protocol::claims::ManifestError| error.to_string())?;
    Ok(Rc::new(manifest.into_inner().release))
}

/// A number for the content of a file: equal for equal contents, slack of the last sector included.
fn print(disk: &impl Sectors, sectors: &[u64], size: u64) -> Option<u128> {
    const FACTOR: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut print = u128::from(size) ^ 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for sector in sectors {
        // FNV-1a, a number at a time.
        print = (print ^ u128::from(disk.id(*sector)?)).wrapping_mul(FACTOR);
    }
    Some(print)
}

fn digest(disk: &impl Sectors, sectors: &[u64], size: u64) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut left = size as usize;
    for sector in sectors {
        let bytes = disk.read(*sector)?;
        hasher.update(&bytes[..left.min(SECTOR)]);
        left = left.saturating_sub(SECTOR);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
