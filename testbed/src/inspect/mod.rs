//! Reads a disk from outside and predicts what it boots, without running it.
//!
//! [`disk`] gives access to sectors, [`fat`] reads the EFI system partition, [`grub`] reads GRUB's
//! environment block, and [`judge`] decides whether the disk boots a complete and verified release.
//! Except for the verification of manifests and [`protocol::boot_order`], this code is independent of
//! the code that wrote the disk, so that a shared mistake cannot stay undetected.

pub(crate) mod disk;
pub(crate) mod fat;
pub(crate) mod files;
pub(crate) mod gpt;
pub(crate) mod grub;
pub(crate) mod judge;
