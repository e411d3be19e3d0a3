//! GRUB's environment block: 1024 bytes that record which slot is good, which slot is on trial, and
//! what the updater must remember across reboots.
//!
//! The format is defined by GRUB (manual, "Environment block"): a fixed first line, `name=value`
//! lines, and `#` up to the end. GRUB overwrites the block in place. The updater does the same,
//! because a rename on FAT is not atomic. The block stays consistent after a power cut only if all
//! variables lie within the first 512 bytes, which a disk writes as one sector; [`Block::to_bytes`]
//! rejects a longer text.

mod block;
mod state;

pub use block::{Block, GrubenvError, SIZE};
pub use state::{
    BOOTS, BootId, BootState, DISK, DiskTag, GOOD, Newest, TRIAL, TRIES, TRIES_LEFT, Trial,
};
