//! Reads a disk from outside and predicts what it would boot, without running it.
//!
//! [`disk`] gives access to sectors, [`fat`] reads the EFI system partition, [`grub`] predicts what
//! GRUB does, and [`judge`] decides whether the disk boots a complete and verified release. Apart
//! from the verification of manifests, none of this code is shared with the code that wrote the
//! disk, so that one mistake cannot hide another.

pub(crate) mod disk;
pub(crate) mod fat;
pub(crate) mod grub;
pub(crate) mod judge;
