//! Writers of the formats of a release. They run in user space and need no loop device and no kernel
//! driver of the build host.

pub(crate) mod bios;
pub(crate) mod bmap;
pub(crate) mod compress;
pub(crate) mod digest;
pub(crate) mod disk;
mod fat;
pub(crate) mod initrd;
pub(crate) mod netboot;
mod sparse;
