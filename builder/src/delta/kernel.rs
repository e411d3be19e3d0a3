//! The payload of a Linux kernel for x86 (kernel document `arch/x86/boot`).

use anyhow::{Context, Result};
use protocol::delta::{Codec, Recompress};
use zstd::zstd_safe;

use super::found::{Found, FoundPiece};

/// The offsets of fields of the setup header.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The first bytes of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The level at which the build of Linux compresses with zstd (`scripts/Makefile.lib`).
const LEVEL: u8 = 22;

/// Returns the payload of a kernel, or `None` if the file has none that is compressed with zstd.
pub(super) fn read(bytes: &[u8]) -> Result<Option<Found>> {
    let word =
        |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    if bytes.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Ok(None);
    }
    // A value of 0 stands for 4.
    let sectors = match bytes[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = word(PAYLOAD_OFFSET).unwrap_or_default() + (sectors + 1) * 512;
    let end = start + word(PAYLOAD_LENGTH).unwrap_or_default();
    let payload =
        bytes.get(start..end).context("the payload extends beyond the end of the file")?;
    if !payload.starts_with(&ZSTD) {
        return Ok(None);
    }
    // The payload ends with its decompressed size, which is not part of the frame.
    let length = zstd_safe::find_frame_compressed_size(payload)
        .map_err(|code| anyhow::anyhow!("{}", zstd_safe::get_error_name(code)))?;
    Ok(Some(Found {
        blocks: [(start, (length, true))].into(),
        units: vec![("payload".into(), vec![FoundPiece::all_of(start)])],
        recompress: Some(Recompress::here(Codec::Stream, LEVEL)),
    }))
}
