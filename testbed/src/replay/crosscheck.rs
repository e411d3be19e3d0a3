//! Compares the FAT reader with mtools: mtools reads some of the states, too.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::digest::Hasher;
use protocol::esp::{DIRECTORY, GRUB_CFG, GRUBENV, MANIFEST, Slot};

use crate::host::is_installed;
use crate::inspect::disk::{Model, SECTOR, Sectors};
use crate::inspect::fat::{Fat, FatError};

/// The program of mtools that prints a file.
const READER: &str = "mtype";

/// A failed comparison.
#[derive(Debug, thiserror::Error)]
pub enum CrosscheckError {
    /// mtools is not installed.
    #[error(
        "cannot compare the FAT reader with {READER}, which is missing: install the package mtools"
    )]
    NoReader,
    /// mtools cannot run, or its input cannot be written.
    #[error("cannot read a state with {READER}: {0}")]
    Io(#[from] io::Error),
    /// The FAT reader cannot open the file system.
    #[error("cannot read a state: {0}")]
    Fat(#[from] FatError),
    /// The readers disagree.
    #[error("the FAT reader found {ours} at {path}, mtools found {theirs}")]
    Differ {
        /// The file.
        path: String,
        /// The result of the FAT reader.
        ours: String,
        /// The result of mtools.
        theirs: String,
    },
}

/// Selects the states to compare, evenly distributed, and compares them.
pub(crate) struct Crosscheck {
    esp: Range<u64>,
    /// The number of states to compare.
    count: usize,
    /// The distance between two of them; 0 if none are compared.
    interval: usize,
    visited: usize,
    done: usize,
}

impl Crosscheck {
    /// Creates a comparison of `count` out of `states` states. `esp` are the sectors of the EFI system
    /// partition. If mtools is missing, logs a warning and compares no states, or fails if `CI=true`.
    pub(crate) fn new(
        count: usize,
        states: usize,
        esp: Range<u64>,
    ) -> Result<Self, CrosscheckError> {
        let is_possible = is_installed(READER);
        if count > 0 && !is_possible {
            if std::env::var("CI").as_deref() == Ok("true") {
                return Err(CrosscheckError::NoReader);
            }
            log::warn!("{}", CrosscheckError::NoReader);
        }
        let interval = if is_possible { states.checked_div(count).unwrap_or(0) } else { 0 };
        Ok(Self { esp, count, interval, visited: 0, done: 0 })
    }

    /// Returns the number of compared states.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Counts a state, and compares it if it is selected.
    pub(crate) fn visit(&mut self, model: &Model) -> Result<(), CrosscheckError> {
        self.visited += 1;
        let is_selected = self.interval > 0 && self.visited.is_multiple_of(self.interval);
        if is_selected && self.done < self.count {
            compare(model, self.esp.clone())?;
            self.done += 1;
        }
        Ok(())
    }
}

/// Reads grub.cfg, grubenv and the files of both slots with the FAT reader and with mtools.
///
/// # Errors
/// Fails if the results differ.
pub(crate) fn compare(model: &Model, esp: Range<u64>) -> Result<(), CrosscheckError> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("esp.img");
    model.save(esp.clone(), &image)?;
    let fat = Fat::open(model, esp.start)?;
    let mut paths = vec![GRUBENV.to_owned(), GRUB_CFG.to_owned()];
    for slot in Slot::ALL {
        paths.extend(
            ["vmlinuz", "initrd", MANIFEST].map(|name| format!("{DIRECTORY}/{slot}/{name}")),
        );
    }
    for path in paths {
        let (ours, theirs) = (ours(model, &fat, &path), theirs(&image, &path)?);
        let agree = match (&ours, &theirs) {
            // mtools prints the content before the break and reports success.
            (ReadResult::Broken(size), ReadResult::Complete(found, _)) => found < size,
            (ReadResult::Broken(_), _) => true,
            (ours, theirs) => ours == theirs,
        };
        if !agree {
            let (ours, theirs) = (ours.to_string(), theirs.to_string());
            return Err(CrosscheckError::Differ { path, ours, theirs });
        }
    }
    Ok(())
}

/// The result of reading a file.
#[derive(Debug, PartialEq, Eq)]
enum ReadResult {
    NotFound,
    /// A file of this size, with a broken chain of clusters.
    Broken(u64),
    /// The size and the SHA-256.
    Complete(u64, String),
}

impl fmt::Display for ReadResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no file"),
            Self::Broken(size) => write!(f, "a broken file of {size} bytes"),
            Self::Complete(size, digest) => write!(f, "{size} bytes, SHA-256 {digest}"),
        }
    }
}

fn ours<S: Sectors>(disk: &S, fat: &Fat<'_, S>, path: &str) -> ReadResult {
    let file = fat.find(path).ok().flatten().filter(|file| !file.is_directory);
    let Some(file) = file else { return ReadResult::NotFound };
    let read = || -> Result<ReadResult, FatError> {
        let mut hasher = Hasher::default();
        let mut left = file.size as usize;
        for sector in fat.sectors(&file)? {
            hasher.update(&disk.read(sector)?[..left.min(SECTOR)]);
            left = left.saturating_sub(SECTOR);
        }
        Ok(ReadResult::Complete(file.size, hasher.finish()))
    };
    read().unwrap_or(ReadResult::Broken(file.size))
}

fn theirs(image: &Path, path: &str) -> io::Result<ReadResult> {
    let mut reader = Command::new(READER);
    reader.arg("-i").arg(image).arg(format!("::/{path}"));
    reader.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = reader.spawn()?;
    let mut hasher = Hasher::default();
    let size = match reader.stdout.take() {
        Some(mut content) => io::copy(&mut content, &mut hasher),
        None => Ok(0),
    };
    let status = reader.wait()?;
    let size = size?;
    Ok(if status.success() {
        ReadResult::Complete(size, hasher.finish())
    } else {
        ReadResult::NotFound
    })
}
