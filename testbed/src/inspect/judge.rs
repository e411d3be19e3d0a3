//! Decides whether a disk boots a complete and verified release.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use protocol::boot_order::{Attempt, Environment, Reason, Save, SlotFiles};
use protocol::digest::Hasher;
use protocol::esp::{GRUB_CFG, GRUBENV, MANIFEST, Slot, slot_file};
use protocol::token::{self, TOKEN_MAX};
use protocol::{Artifact, KeyRing, Manifest, Release, Verified};

use super::disk::{SECTOR, Sectors};
use super::fat::{Fat, FatError, Node};
use super::grub;

/// The size limit for grubenv. The one that GRUB creates has 1024 bytes.
const GRUBENV_MAX: u64 = 64 << 10;
/// The directory in which firmware finds the boot loader.
const LOADERS: &str = "EFI";

/// The content of a slot.
#[derive(Debug, Clone)]
pub(crate) enum SlotContent {
    /// No files.
    Empty,
    /// A release whose manifest verifies and whose files match it.
    Complete(Rc<Release>),
    /// An incomplete or damaged release, and its problem.
    Incomplete(String),
}

impl fmt::Display for SlotContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Complete(release) => write!(f, "complete, build {}", release.build),
            Self::Incomplete(problem) => write!(f, "incomplete: {problem}"),
        }
    }
}

/// The result of judging a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The disk boots this slot. Its release is complete and verified, and so is the one that GRUB falls
    /// back to after a trial.
    Boots(Slot, Reason),
    /// The disk boots nothing, or a release that is incomplete or not verified.
    Bad(String),
}

/// Judges disks. It caches digests by the content numbers of the sectors, so that each file is hashed once.
pub(crate) struct Judge {
    keys: KeyRing,
    esp: u64,
    /// The paths and fingerprints of the boot loader's files, which must not change.
    loader: Vec<(String, u128)>,
    digests: HashMap<u128, String>,
    manifests: HashMap<u128, Result<Rc<Release>, String>>,
}

impl Judge {
    /// Creates a judge of disks whose EFI system partition begins at sector `esp`. Manifests must be
    /// signed by one of `keys`.
    pub(crate) fn new(keys: KeyRing, esp: u64) -> Self {
        Self { keys, esp, loader: Vec::new(), digests: HashMap::new(), manifests: HashMap::new() }
    }

    /// Remembers the boot loader's files on this disk. Disks judged later must have the same.
    pub(crate) fn remember_loader(&mut self, disk: &impl Sectors) -> Result<(), FatError> {
        let fat = Fat::open(disk, self.esp)?;
        let mut files = fat.files(LOADERS)?;
        files.extend(fat.find(GRUB_CFG)?.map(|node| (GRUB_CFG.to_owned(), node)));
        self.loader = Vec::new();
        for (path, file) in files {
            let fingerprint = fingerprint(disk, &fat.sectors(&file)?, file.size);
            self.loader.extend(fingerprint.map(|fingerprint| (path, fingerprint)));
        }
        Ok(())
    }

    /// Judges what this disk boots.
    pub(crate) fn judge(&mut self, disk: &impl Sectors) -> Verdict {
        match self.booted_slot(disk) {
            Ok((slot, reason)) => Verdict::Boots(slot, reason),
            Err(problem) => Verdict::Bad(problem),
        }
    }

    fn booted_slot(&mut self, disk: &impl Sectors) -> Result<(Slot, Reason), String> {
        let fat = Fat::open(disk, self.esp).map_err(|error| error.to_string())?;
        self.check_loader(disk, &fat)?;
        let environment = read_environment(&fat);
        let files = |slot| slot_files(&fat, slot);
        let decision = environment.decide(files, Save::Stored);
        for Attempt { slot, reason, .. } in decision.attempts {
            if !files(slot).kernel || !files(slot).initrd {
                continue;
            }
            let content = self.slot_content(disk, &fat, slot);
            if !matches!(content, SlotContent::Complete(_)) {
                return Err(format!(
                    "{environment}: GRUB boots slot {slot} ({reason}), which is {content}"
                ));
            }
            let good = decision.good;
            if reason == Reason::Trial && good != slot {
                let content = self.slot_content(disk, &fat, good);
                if !matches!(content, SlotContent::Complete(_)) {
                    return Err(format!(
                        "{environment}: slot {good}, the fallback of the trial, is {content}"
                    ));
                }
            }
            return Ok((slot, reason));
        }
        Err(format!("{environment}: no slot has a kernel and an initrd"))
    }

    /// Checks that the boot loader's files have not changed.
    fn check_loader<S: Sectors>(&self, disk: &S, fat: &Fat<'_, S>) -> Result<(), String> {
        for (path, expected) in &self.loader {
            let unreadable = |error: FatError| format!("the boot loader's {path}: {error}");
            let node = fat.find(path).map_err(unreadable)?;
            let node = node.ok_or_else(|| format!("the boot loader's {path} is missing"))?;
            let sectors = fat.sectors(&node).map_err(unreadable)?;
            if fingerprint(disk, &sectors, node.size) != Some(*expected) {
                return Err(format!("the boot loader's {path} has changed"));
            }
        }
        Ok(())
    }

    /// Reads grubenv and both slots.
    pub(crate) fn inspect(&mut self, disk: &impl Sectors) -> Result<Inspection, FatError> {
        let fat = Fat::open(disk, self.esp)?;
        let [a, b] = Slot::ALL.map(|slot| self.slot_content(disk, &fat, slot));
        Ok(Inspection { environment: read_environment(&fat), a, b })
    }

    fn slot_content<S: Sectors>(&mut self, disk: &S, fat: &Fat<'_, S>, slot: Slot) -> SlotContent {
        match self.release_in(disk, fat, slot) {
            Ok(Some(release)) => SlotContent::Complete(release),
            Ok(None) => SlotContent::Empty,
            Err(problem) => SlotContent::Incomplete(problem),
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
            self.check_artifact(disk, fat, slot, artifact)?;
        }
        Ok(Some(release))
    }

    /// Verifies the manifest in `file`, or returns the cached result.
    fn manifest<S: Sectors>(
        &mut self,
        disk: &S,
        fat: &Fat<'_, S>,
        file: &Node,
    ) -> Result<Rc<Release>, String> {
        let sectors = fat.sectors(file).map_err(|error| format!("{MANIFEST}: {error}"))?;
        let fingerprint = fingerprint(disk, &sectors, file.size);
        if let Some(known) = fingerprint.and_then(|key| self.manifests.get(&key)) {
            return known.clone();
        }
        let release =
            verify(fat, file, &self.keys).map_err(|problem| format!("{MANIFEST}: {problem}"));
        if let Some(key) = fingerprint {
            self.manifests.insert(key, release.clone());
        }
        release
    }

    /// Checks the size and the digest of an artifact in a slot.
    fn check_artifact<S: Sectors>(
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
        let fingerprint = fingerprint(disk, &sectors, file.size);
        let known = fingerprint.and_then(|key| self.digests.get(&key));
        let digest = match known {
            Some(digest) => digest.clone(),
            None => {
                digest(disk, &sectors, file.size).map_err(|error| format!("{name}: {error}"))?
            }
        };
        let matches = digest == artifact.sha256;
        if let Some(key) = fingerprint {
            self.digests.insert(key, digest);
        }
        if matches {
            Ok(())
        } else {
            Err(format!("{name} does not have the SHA-256 of the manifest"))
        }
    }
}

/// The content of grubenv and of both slots.
#[derive(Debug, Clone)]
pub(crate) struct Inspection {
    /// The variables as GRUB reads them.
    pub environment: Environment,
    /// The content of `etchaos/a`.
    pub a: SlotContent,
    /// The content of `etchaos/b`.
    pub b: SlotContent,
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; a {}; b {}", self.environment, self.a, self.b)
    }
}

/// Reads grubenv on the disk whose EFI system partition begins at sector `esp`.
pub(crate) fn environment(disk: &impl Sectors, esp: u64) -> Result<Environment, FatError> {
    Ok(read_environment(&Fat::open(disk, esp)?))
}

/// Reads grubenv as GRUB does. A grubenv that is missing or cannot be read has no variables.
fn read_environment<S: Sectors>(fat: &Fat<'_, S>) -> Environment {
    let file = fat.find(GRUBENV).ok().flatten();
    let bytes = file.and_then(|file| fat.content(&file, GRUBENV_MAX).ok());
    bytes.map_or_else(Environment::default, |bytes| grub::read_environment(&bytes))
}

/// Returns which files GRUB finds in a slot.
fn slot_files<S: Sectors>(fat: &Fat<'_, S>, slot: Slot) -> SlotFiles {
    SlotFiles::find(slot, |path| {
        let node = fat.find(path).ok().flatten();
        node.is_some_and(|node| !node.is_directory)
    })
}

fn find<S: Sectors>(fat: &Fat<'_, S>, path: &str) -> Result<Option<Node>, String> {
    fat.find(path).map_err(|error| format!("{path}: {error}"))
}

/// Verifies the manifest in `file`. Ignores its expiry, which limits only downloads: an installed release
/// does not expire.
fn verify<S: Sectors>(
    fat: &Fat<'_, S>,
    file: &Node,
    keys: &KeyRing,
) -> Result<Rc<Release>, String> {
    let bytes = fat.content(file, TOKEN_MAX as u64).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let claims = token::verify(&text, keys).map_err(|error| error.to_string())?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|error: protocol::manifest::ManifestError| error.to_string())?;
    Ok(Rc::new(manifest.into_inner().release))
}

/// Returns a number that is equal for files of equal content. The unused end of the last sector counts as
/// content. Returns `None` if the contents of the disk have no numbers.
fn fingerprint(disk: &impl Sectors, sectors: &[u64], size: u64) -> Option<u128> {
    const FACTOR: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash = u128::from(size) ^ 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for sector in sectors {
        // FNV-1a over content numbers instead of bytes.
        hash = (hash ^ u128::from(disk.id(*sector)?)).wrapping_mul(FACTOR);
    }
    Some(hash)
}

fn digest(disk: &impl Sectors, sectors: &[u64], size: u64) -> std::io::Result<String> {
    let mut hasher = Hasher::default();
    let mut left = size as usize;
    for sector in sectors {
        let bytes = disk.read(*sector)?;
        hasher.update(&bytes[..left.min(SECTOR)]);
        left = left.saturating_sub(SECTOR);
    }
    Ok(hasher.finish())
}
