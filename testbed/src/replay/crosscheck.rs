//! Whether our reader of FAT sees what another one sees: mtools gets some of the states as images.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::digest::Hasher;
use protocol::esp::{DIRECTORY, GRUB_CFG, GRUBENV, MANIFEST, Slot};

use crate::host::is_there;
use crate::inspect::disk::{Model, SECTOR, Sectors};
use crate::inspect::fat::{Fat, FatError};

/// The program of mtools that prints a file.
const READER: &str = "mtype";

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
    count: usize,
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
        Ok(Self { esp, count, every, visited: 0, done: 0 })
    }

    /// How many states were read by both.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Reads a state if it is the turn of this one.
    pub fn visit(&mut self, model: &Model) -> Result<(), CrosscheckError> {
        self.visited += 1;
        let is_its_turn = self.every > 0 && self.visited.is_multiple_of(self.every);
        if is_its_turn && self.done < self.count {
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
        paths.extend(
            ["vmlinuz", "initrd", MANIFEST].map(|name| format!("{DIRECTORY}/{slot}/{name}")),
        );
    }
    for path in paths {
        let (ours, theirs) = (ours(model, &fat, &path), theirs(&image, &path)?);
        let agree = match (&ours, &theirs) {
            // mtools gives what comes before the break, and is content.
            (Seen::Broken(size), Seen::Whole(found, _)) => found < size,
            (Seen::Broken(_), _) => true,
            (ours, theirs) => ours == theirs,
        };
        if !agree {
            let (ours, theirs) = (ours.to_string(), theirs.to_string());
            return Err(CrosscheckError::Differ { path, ours, theirs });
        }
    }
    Ok(())
}

/// What a reader sees of a file.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// Its chain of clusters ends before this size.
    Broken(u64),
    /// Size and SHA-256.
    Whole(u64, String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no file"),
            Self::Broken(size) => write!(f, "a broken file of {size} bytes"),
            Self::Whole(size, digest) => write!(f, "{size} bytes, SHA-256 {digest}"),
        }
    }
}

fn ours<S: Sectors>(disk: &S, fat: &Fat<'_, S>, path: &str) -> Seen {
    let file = fat.find(path).ok().flatten().filter(|file| !file.is_directory);
    let Some(file) = file else { return Seen::Nothing };
    let read = || -> Result<Seen, FatError> {
        let mut hasher = Hasher::default();
        let mut left = file.size as usize;
        for sector in fat.sectors(&file)? {
            hasher.update(&disk.read(sector)?[..left.min(SECTOR)]);
            left = left.saturating_sub(SECTOR);
        }
        Ok(Seen::Whole(file.size, hasher.finish()))
    };
    read().unwrap_or(Seen::Broken(file.size))
}

fn theirs(image: &Path, path: &str) -> io::Result<Seen> {
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
    Ok(if status.success() { Seen::Whole(size, hasher.finish()) } else { Seen::Nothing })
}
