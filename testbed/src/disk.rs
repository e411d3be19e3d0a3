//! Sparse copies of disk images.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The size of a block. A block of zeros becomes a hole.
const BLOCK: usize = 1 << 20;

/// A failed copy of a disk image.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy the disk image {} to {}: {source}", from.display(), to.display())]
pub struct CopyError {
    from: PathBuf,
    to: PathBuf,
    source: io::Error,
}

/// Copies a disk image, with holes for zeros, and returns its size in bytes.
///
/// `to` must not exist. The copy is not synced, because it only lasts as long as a test.
///
/// # Errors
/// Fails if `from` is empty or changes its size during the copy.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<u64, CopyError> {
    copy(from, to).map_err(|source| CopyError { from: from.into(), to: to.into(), source })
}

fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let length = source.metadata()?.len();
    if length == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    let mut target = File::create_new(to)?;
    let copied = copy_blocks(&mut source, &mut target)?;
    if copied != length {
        let problem = format!(
            "expected {length} bytes, read {copied}; check that nothing else is writing the image"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    target.set_len(length)?;
    Ok(length)
}

/// Copies `from` to `to`, without blocks of zeros, and returns the number of bytes. `to` must contain zeros
/// from its position on. The caller must set its length, because a hole at the end does not extend it.
fn copy_blocks(from: &mut File, to: &mut File) -> io::Result<u64> {
    let (mut block, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut copied = 0;
    loop {
        let count = fill(from, &mut block)?;
        if count == 0 {
            return Ok(copied);
        }
        if block[..count] == zeros[..count] {
            to.seek(SeekFrom::Current(count as i64))?;
        } else {
            to.write_all(&block[..count])?;
        }
        copied += count as u64;
    }
}

/// Reads until the block is full or the file ends.
fn fill(source: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match source.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn copies_content_sparsely() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let mut content = vec![0; 8 * BLOCK + 7];
        content[3 * BLOCK + 5] = 1;
        std::fs::write(&from, &content).unwrap();
        assert_eq!(copy_sparse(&from, &to).unwrap(), content.len() as u64);
        assert!(std::fs::read(&to).unwrap() == content);
        let used = std::fs::metadata(&to).unwrap().blocks() * 512;
        assert!(used <= 2 * BLOCK as u64, "{used} bytes are used");
    }

    #[test]
    fn rejects_existing_target_and_empty_source() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let error = copy_sparse(&from, &to).unwrap_err().to_string();
        assert!(error.contains("/from to ") && error.contains("No such file"), "{error}");
        std::fs::write(&from, "x").unwrap();
        std::fs::write(&to, "y").unwrap();
        assert!(copy_sparse(&from, &to).is_err());
        assert_eq!(std::fs::read(&to).unwrap(), b"y");
        std::fs::write(&from, "").unwrap();
        assert!(copy_sparse(&from, &dir.path().join("new")).is_err());
    }
}
