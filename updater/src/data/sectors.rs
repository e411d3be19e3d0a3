//! The sectors of a disk, or of a file that stands in for one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::table::{Geometry, Medium};

/// A file that consists of sectors, open for reading and writing.
#[derive(Debug)]
pub(super) struct Sectors {
    pub(super) file: File,
    pub(super) geometry: Geometry,
}

impl Medium for Sectors {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, first: u64, count: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (count * self.geometry.sector) as usize];
        self.file.read_exact_at(&mut bytes, first * self.geometry.sector)?;
        Ok(bytes)
    }

    fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, first * self.geometry.sector)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
