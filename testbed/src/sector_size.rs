//! The sizes of the sectors of a disk.

use std::fmt;

use clap::ValueEnum;

/// The size of the logical sectors of a disk, which are also its physical ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SectorSize {
    /// 512 bytes.
    #[default]
    #[value(name = "512", help = None)]
    B512,
    /// 4096 bytes. No BIOS boots from such a disk.
    #[value(name = "4096", help = None)]
    B4096,
}

impl SectorSize {
    /// Returns what follows the options of a disk in QEMU's command line. 512 bytes are the default.
    pub(crate) fn device_options(self) -> &'static str {
        match self {
            Self::B512 => "",
            Self::B4096 => ",logical_block_size=4096,physical_block_size=4096",
        }
    }
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::B512 => "512",
            Self::B4096 => "4096",
        })
    }
}
