//! Sparse files. The holes are not read, because the kernel fills memory with zeros for each block of a hole
//! that a program reads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// The size of the blocks that are copied. A block of zeros becomes a hole.
const BLOCK: usize = 1 << 20;

/// Returns the parts of a file that are not holes, in order (`SEEK_DATA` in lseek(2)). On a file system that
/// does not report holes, this is the whole file.
fn data(file: &File) -> io::Result<VecDeque<Range<u64>>> {
    let mut parts = VecDeque::new();
    let mut end = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(end)) {
            // There is no data from here on.
            Err(Errno::NXIO) => return Ok(parts),
            start => start?,
        };
        end = seek(file, SeekFrom::Hole(start))?;
        parts.push_back(start..end);
    }
}

/// Reads a sparse file from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    position: u64,
    size: u64,
    /// The parts that are not holes and not read yet.
    data: VecDeque<Range<u64>>,
}

impl Reader {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        Ok(Self { position: 0, size: file.metadata()?.len(), data: data(&file)?, file })
    }

    /// Returns the size of the file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.data.front().is_some_and(|part| part.end <= self.position) {
            self.data.pop_front();
        }
        let next = self.data.front().cloned().unwrap_or(self.size..self.size);
        let is_data = next.contains(&self.position);
        let end = if is_data { next.end } else { next.start };
        let rest = usize::try_from(end - self.position).unwrap_or(usize::MAX);
        let count = rest.min(buffer.len());
        let buffer = &mut buffer[..count];
        let read = if is_data { self.file.read_at(buffer, self.position)? } else { count };
        if !is_data {
            buffer.fill(0);
        } else if read == 0 && count > 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.position += read as u64;
        Ok(read)
    }
}

/// Copies a file to an offset of another one, which has to be a hole there.
pub(crate) fn copy(from: &File, to: &File, offset: u64) -> io::Result<()> {
    let (mut block, zeros) = (vec![0; BLOCK], vec![0; BLOCK]);
    for part in data(from)? {
        for start in part.clone().step_by(BLOCK) {
            let length = usize::try_from(part.end - start).unwrap_or(BLOCK).min(BLOCK);
            let block = &mut block[..length];
            from.read_exact_at(block, start)?;
            if *block != zeros[..length] {
                to.write_all_at(block, offset + start)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    /// Returns a file with these bytes at these offsets and holes between them.
    fn file(size: u64, parts: &[(u64, Vec<u8>)]) -> File {
        let file = tempfile::tempfile().unwrap();
        for (offset, bytes) in parts {
            file.write_all_at(bytes, *offset).unwrap();
        }
        file.set_len(size.max(file.metadata().unwrap().len())).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn parts() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
        let bytes = proptest::collection::vec(any::<u8>(), 1..10_000);
        proptest::collection::vec((0..4_000_000_u64, bytes), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn reader_and_copy_keep_the_content(size in 0..5_000_000_u64, parts in parts()) {
            let from = file(size, &parts);
            let expected = content(&from);
            let mut read = Vec::new();
            Reader::new(from.try_clone().unwrap()).unwrap().read_to_end(&mut read).unwrap();
            prop_assert!(read == expected);

            let to = file(7 + from.metadata().unwrap().len(), &[]);
            copy(&from, &to, 7).unwrap();
            prop_assert!(content(&to)[7..] == expected);
        }
    }

    #[test]
    fn holes_are_neither_read_nor_written() {
        let from = file(1 << 40, &[(1 << 39, b"data".to_vec())]);
        let parts = data(&from).unwrap();
        assert_eq!(parts.len(), 1, "{parts:?}");
        assert!(parts[0].contains(&(1 << 39)) && parts[0].end - parts[0].start <= 1 << 20);

        let to = file(1 << 40, &[]);
        copy(&from, &to, 0).unwrap();
        assert!(to.metadata().unwrap().blocks() * 512 <= 1 << 20);
    }

    #[test]
    fn blocks_of_zeros_become_holes() {
        let from = file(0, &[(0, vec![0; 8 << 20])]);
        let to = file(8 << 20, &[]);
        copy(&from, &to, 0).unwrap();
        assert_eq!(to.metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn reader_reports_file_that_became_shorter() {
        let from = file(0, &[(0, vec![1; 8192])]);
        let mut reader = Reader::new(from.try_clone().unwrap()).unwrap();
        from.set_len(0).unwrap();
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }
}
