//! The hidden command `apply-delta`: publishers test with it whether the updater in an earlier release can
//! apply a delta.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use anyhow::{Context as _, Result, ensure};
use protocol::delta::{DELTA_MAX, Header, Limits, apply};

use crate::cli::{ApplyDelta, Exit};
use crate::host::read_limited;

/// Applies a delta to a file. The caller compares the digest of the result.
pub(super) fn apply_delta(arguments: &ApplyDelta) -> Result<Exit> {
    let ApplyDelta { delta, source, target, memory } = arguments;
    let failed = || format!("cannot read {}", delta.display());
    let bytes = read_limited(delta, DELTA_MAX).with_context(failed)?;
    let bytes = bytes.with_context(failed)?;
    let header = Header::read(&bytes)?;
    let from = File::open(source).with_context(|| format!("cannot open {}", source.display()))?;
    let size = from.metadata()?.len();
    ensure!(from.metadata()?.is_file(), "{} is not a file", source.display());
    let to = File::create(target).with_context(|| format!("cannot create {}", target.display()))?;
    let mut to = BufWriter::new(to);
    let limits = Limits { source: size, target: header.target, memory: *memory };
    apply(&bytes, from, &limits, &mut |piece| to.write_all(piece))?;
    to.flush().with_context(|| format!("cannot write {}", target.display()))?;
    Ok(Exit::Ok)
}
