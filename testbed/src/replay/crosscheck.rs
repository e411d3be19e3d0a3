//! Whether our reader of FAT sees what another one sees: mtools gets some of the states as images.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::esp::{FOLDER, GRUB_CFG, GRUBENV, MANIFEST, Slot};
use sha2::{Digest, Sha256};

use super::ReplayError;
use super::disk::{Model, SECTOR, Sectors};
use super::fat::{Fat, FatError};
use crate::host::is_there;

/// The program of mtools that prints a file.
const READER: &str = "mtype";
/// A file that is larger than all of these is no file of ours.
const CONTENT_MAX: u64 = 4 << 30;

/// Two readers that do not see the same.
#[derive(Debug, thiserror::Error)]
pub enum CrosscheckError {
    /// No mtools.
    #[error(
        "{READER} is not there, so no state can be read by another reader: install the package mtools"
    )]
    NoReader,
    /// A file.
    #[error("cannot give a state to {READER}: {0}")]
    Io(#[from] io::Error),
    /// The file system.
    #[error("cannot read a state: {0}")]
    Fat(#[from] FatError),
    /// They differ.
    #[error("{path}: our reader sees {ours}, mtools sees {theirs}")]
    Differ {
        /// Which file.
        path: String,
        /// What we see.
        ours: String,
        /// What mtools sees.
        theirs: String,
    },
}

/// Has one state in so many read by mtools, too.
pub struct Crosscheck {
    esp: Range<u64>,
    every: usize,
    visited: usize,
    done: usize,
}

impl Crosscheck {
    /// `count` of `states` states of a disk with an EFI system partition at these sectors. Without
    /// mtools there are none, and that is said; with `CI=true` it is an error.
    pub fn new(count: usize, states: usize, esp: Range<u64>) -> Result<Self, CrosscheckError> {
        let is_possible = is_there(READER);
        if count > 0 && !is_possible {
            if std::env::var("CI").as_deref() == Ok("true") {
                return Err(CrosscheckError::NoReader);
            }
            log::warn!("{}", CrosscheckError::NoReader);
        }
        let every = if is_possible { states.checked_div(count).unwrap_or(0) } else { 0 };
        Ok(Self { esp, every, visited: 0, done: 0 })
    }

    /// How many states were read by both.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Reads a state if it is the turn of this one.
    pub fn visit(&mut self, model: &Model) -> Result<(), ReplayError> {
        self.visited += 1;
        if self.every > 0 && self.visited.is_multiple_of(self.every) {
            compare(model, self.esp.clone())?;
            self.done += 1;
        }
        Ok(())
    }
}

/// Whether mtools and our reader see the same in the files that matter.
pub fn compare(model: &Model, esp: Range<u64>) -> Result<(), CrosscheckError> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("esp.img");
    model.save(esp.clone(), &image)?;
    let fat = Fat::open(model, esp.start)?;
    let mut paths = vec![GRUBENV.to_owned(), GRUB_CFG.to_owned()];
    for slot in Slot::ALL {
        paths.extend(["vmlinuz", "initrd", MANIFEST].map(|name| format!("{FOLDER}/{slot}/{name}")));
    }
    for path in paths {
        let (ours, theirs) = (ours(model, &fat, &path), theirs(&image, &path)?);
        if ours != theirs {
            return Err(CrosscheckError::Differ { path, ours, theirs });
        }
    }
    Ok(())
}

/// Size and digest, or that there is nothing to be read.
fn ours<S: Sectors>(disk: &S, fat: &Fat<'_, S>, path: &str) -> String {
    let read = || -> Result<Option<String>, FatError> {
        let Some(file) = fat.find(path)?.filter(|file| !file.is_folder) else { return Ok(None) };
        let mut hasher = Sha256::new();
        let mut left = file.size.min(CONTENT_MAX) as usize;
        for sector in fat.sectors(&file)? {
            hasher.update(&disk.read(sector)?[..left.min(SECTOR)]);
            left = left.saturating_sub(SECTOR);
        }
        Ok(Some(shown(file.size, hasher)))
    };
    read().ok().flatten().unwrap_or_else(nothing)
}

fn theirs(image: &Path, path: &str) -> io::Result<String> {
    let mut reader = Command::new(READER);
    reader.arg("-i").arg(image).arg(format!("::/{path}"));
    reader.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = reader.spawn()?;
    let mut hasher = Sha256::new();
    let size = match reader.stdout.take() {
        Some(mut content) => io::copy(&mut content, &mut Hash(&mut hasher)),
        None => Ok(0),
    };
    let status = reader.wait()?;
    let size = size?;
    Ok(if status.success() { shown(size, hasher) } else { nothing() })
}

struct Hash<'a>(&'a mut Sha256);

impl io::Write for Hash<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn shown(size: u64, hasher: Sha256) -> String {
    let digest = hasher.finalize();
    format!(
        "{size} bytes, SHA-256 {}",
        digest.iter().map(|b| format!("{b:02x}")).collect::<String>()
    )
}

fn nothing() -> String {
    "no readable file".to_owned()
}
