//! What the parsers of files find.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context, Result, ensure};
use protocol::delta::{FRAME_MAX, Recompress};

/// What a parser finds: the compressed blocks by their offset, and where the content of each unit is.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The length of each compressed block, and whether it is a zstd frame, by its offset.
    pub blocks: BTreeMap<usize, (usize, bool)>,
    /// The units.
    pub units: Vec<(String, Vec<FoundPiece>)>,
    /// How the frames were compressed.
    pub recompress: Option<Recompress>,
}

/// A part of the content of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundPiece {
    /// The offset of the block in the file.
    pub block: usize,
    /// The offset in its content.
    pub from: usize,
    /// The number of bytes, or `None` for all that follow.
    pub length: Option<usize>,
}

impl FoundPiece {
    /// Returns the content of a block.
    pub(super) fn all_of(block: usize) -> Self {
        Self { block, from: 0, length: None }
    }
}

/// Returns the content of a zstd frame.
pub(super) fn decompress(frame: &[u8]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame)?;
    decoder.window_log_max(FRAME_MAX.ilog2())?;
    let mut limited = decoder.single_frame().take(u64::from(FRAME_MAX) + 1);
    limited.read_to_end(&mut content).context("decompressing a block")?;
    ensure!(content.len() <= FRAME_MAX as usize, "a block is larger than {FRAME_MAX} bytes");
    Ok(content)
}
