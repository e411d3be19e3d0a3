//! Writers of the formats of a release. They run in user space and need no loop device and no kernel
//! driver of the build host.

pub mod bios;
pub mod digest;
pub mod disk;
pub mod initrd;
