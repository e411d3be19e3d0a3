//! Sparse copies of disk images.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The size of a block. A block of zeros becomes a hole.
const BLOCK: usize = 1 << 20;

/// The maximum size of a disk image. A compressed image could otherwise fill the disk.
const SIZE_MAX: u64 = 8 << 30;

/// A failed copy of a disk image.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy the image {} to {}: {source}", from.display(), to.display())]
pub struct CopyError {
    from: PathBuf,
    to: PathBuf,
    source: io::Error,
}

/// Copies a disk image, with holes for zeros, and returns its size in bytes. An image whose name ends
/// with `.zst` is decompressed.
///
/// `to` must not exist. The copy is not synced, because it only lasts as long as a test.
///
/// # Errors
/// Fails if `from` is empty, changes its size during the copy, or has more than 8 GiB.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<u64, CopyError> {
    copy(from, to).map_err(|source| CopyError { from: from.into(), to: to.into(), source })
}

fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let length = source.metadata()?.len();
    let invalid = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    if length == 0 {
        return invalid("it is empty".to_owned());
    }
    let mut target = File::create_new(to)?;
    if from.extension().is_some_and(|extension| extension == "zst") {
        let mut decoder = zstd::Decoder::new(source)?.take(SIZE_MAX + 1);
        let copied = copy_blocks(&mut decoder, &mut target)?;
        if copied > SIZE_MAX {
            return invalid(format!("it has more than {SIZE_MAX} bytes"));
        }
        target.set_len(copied)?;
        return Ok(copied);
    }
    let copied = copy_blocks(&mut source, &mut target)?;
    if copied != length {
        return invalid(format!(
            "expected {length} bytes, read {copied}; check that nothing else is writing the image"
        ));
    }
    target.set_len(length)?;
    Ok(length)
}

/// Copies `from` to `to`, without blocks of zeros, and returns the number of bytes. `to` must contain zeros
/// from its position on. The caller must set its length, because a hole at the end does not extend it.
fn copy_blocks(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
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
fn fill(source: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
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
    fn decompresses_images() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from.raw.zst"), dir.path().join("to"));
        let mut content = vec![0; 8 * BLOCK + 7];
        content[3 * BLOCK + 5] = 1;
        std::fs::write(&from, zstd::encode_all(&content[..], 1).unwrap()).unwrap();
        assert_eq!(copy_sparse(&from, &to).unwrap(), content.len() as u64);
        assert!(std::fs::read(&to).unwrap() == content);
        std::fs::write(&from, "not zstd").unwrap();
        assert!(copy_sparse(&from, &dir.path().join("new")).is_err());
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
