//! The command "delta": makes or applies a delta between two files, or checks a file.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use protocol::delta::{Header, Limits, apply};

use crate::delta::{BlockCounts, MadeDelta, NewFile};

/// The command "delta".
#[derive(Debug, Subcommand)]
pub(crate) enum Delta {
    /// Make a delta and print its size
    Make {
        /// The file of the earlier release
        old: PathBuf,
        /// The file of the new release
        new: PathBuf,
        /// The delta to write
        delta: PathBuf,
    },
    /// Apply a delta, as a host does, without a limit on memory
    Apply {
        /// The file of the earlier release
        old: PathBuf,
        /// The delta
        delta: PathBuf,
        /// The file of the new release to write
        new: PathBuf,
    },
    /// Check that hosts can compress each block of a file to the same bytes
    ///
    /// If they can, a delta has to contain only what has changed in the content of a block. Otherwise it contains
    /// the whole compressed block. Fails if there are such blocks.
    Check {
        /// An initrd, a kernel or a SquashFS image
        file: PathBuf,
    },
}

impl Delta {
    /// Makes or applies a delta, or checks a file.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        match self {
            Self::Make { old, new, delta } => make(&old, &new, &delta, out),
            Self::Apply { old, delta, new } => apply_delta(&old, &delta, &new),
            Self::Check { file } => check(&file, out),
        }
    }
}

fn check(path: &Path, out: &mut impl Write) -> Result<()> {
    let bytes = read(path)?;
    let file = NewFile::of(&bytes)?;
    file.compress_all()?;
    let BlockCounts { compressed, not_reproduced } = file.block_counts();
    ensure!(
        not_reproduced == 0,
        "zstd gives other bytes for {not_reproduced} of {compressed} blocks of {}; a delta contains these as they are, unless \
         the earlier release has them too",
        path.display()
    );
    writeln!(out, "zstd gives the same bytes for all {compressed} blocks")?;
    Ok(())
}

fn make(old: &Path, new: &Path, to: &Path, out: &mut impl Write) -> Result<()> {
    let (old, new) = (read(old)?, read(new)?);
    let made = MadeDelta::between(&old, &NewFile::of(&new)?)?;
    made.check(&old, &new)?;
    fs::write(to, &made.bytes).with_context(|| format!("writing {}", to.display()))?;
    let (size, percent) = (made.bytes.len(), made.bytes.len() as f64 * 100.0 / new.len() as f64);
    writeln!(
        out,
        "{size} bytes, {percent:.2}% of the file; takes {} bytes of memory",
        made.memory
    )?;
    Ok(())
}

fn apply_delta(old: &Path, delta: &Path, to: &Path) -> Result<()> {
    let bytes = read(delta)?;
    let header = Header::read(&bytes)?;
    let source = File::open(old).with_context(|| format!("opening {}", old.display()))?;
    let limits = Limits {
        source: source.metadata()?.len(),
        target: header.target,
        memory: header.memory(bytes.len() as u64),
    };
    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut file = BufWriter::new(file);
    apply(&bytes, source, &limits, &mut |piece| file.write_all(piece))?;
    file.flush().with_context(|| format!("writing {}", to.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
