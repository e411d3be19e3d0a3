//! Writers of the formats of a release. They run in user space and need no loop device and no kernel
//! driver of the build host.

pub(crate) mod bios;
pub(crate) mod digest;
pub(crate) mod disk;
pub(crate) mod initrd;
