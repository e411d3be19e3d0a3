//! The formats of a release, written in user space: no loop device, no driver of the build host.

pub mod bios;
pub mod digest;
pub mod disk;
pub mod initrd;
