//! The command "delta": a delta between two files, to see how large it is.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use protocol::delta::{Header, Limits, apply};

use crate::delta::{Frames, MadeDelta, NewFile};

/// Options of "delta".
#[derive(Debug, Args)]
pub(crate) struct DeltaArgs {
    /// The file of the earlier release; with --check, the file to check
    old: PathBuf,
    /// The file of the new release; with --apply, the delta
    #[arg(required_unless_present = "check")]
    new: Option<PathBuf>,
    /// The delta to write; with --apply, the file of the new release
    #[arg(required_unless_present = "check")]
    to: Option<PathBuf>,
    /// Apply a delta instead of making one
    #[arg(long)]
    apply: bool,
    /// Check that hosts can compress each block of one file to the same bytes, which keeps deltas small
    #[arg(long, conflicts_with_all = ["apply", "new"])]
    check: bool,
}

impl DeltaArgs {
    /// Makes or applies a delta, or checks a file.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        let Self { old, new, to, apply, .. } = self;
        // Without --check, the other paths are required.
        let (Some(new), Some(to)) = (new, to) else { return check(&old, out) };
        if apply { apply_delta(&old, &new, &to) } else { make(&old, &new, &to, out) }
    }
}

fn check(path: &Path, out: &mut impl Write) -> Result<()> {
    let bytes = read(path)?;
    let file = NewFile::of(&bytes)?;
    file.compress_all()?;
    let Frames { compressed, other } = file.frames();
    ensure!(
        other == 0,
        "zstd gives other bytes for {other} of {compressed} blocks of {}; a delta contains these as they are, unless \
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
