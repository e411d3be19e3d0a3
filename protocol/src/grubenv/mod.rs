//! GRUB's environment block: 1024 bytes that say which slot is good and which is on trial, and what
//! must not be forgotten.
//!
//! The format is GRUB's (manual, "Environment block"): a fixed first line, `name=value` lines, and
//! `#` up to the end. GRUB overwrites the block in place and so do we, because a rename on FAT is
//! not atomic. What is read back after a power cut is whole only because every variable lies within
//! the first 512 bytes, which a disk writes as one sector; [`Block::to_bytes`] refuses more.

mod block;
mod state;

pub use block::{Block, GrubenvError, SIZE};
pub use state::{BootId, BootState, GOOD, Newest, TRIAL, TRIES, TRIES_LEFT, Trial};
