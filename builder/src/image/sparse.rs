//! Copies that leave holes where there is nothing: most of a disk image is empty.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// Copies `from` to `to`, which must hold zeros from here on, and leaves out blocks of zeros.
/// Returns the number of bytes. The caller sets the length: a hole at the end is not written.
pub fn copy(from: &mut File, to: &mut File) -> io::Result<u64> {
    let mut block = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = from.read(&mut block)?;
        if count == 0 {
            return Ok(size);
        }
        if block[..count].iter().all(|byte| *byte == 0) {
            to.seek_relative(count as i64)?;
        } else {
            to.write_all(&block[..count])?;
        }
        size += count as u64;
    }
}
