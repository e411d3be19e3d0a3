//! Applies a delta.

use std::io::{self, Read, Seek};

use super::codec::FrameCompressor;
use super::error::DeltaError;
use super::header::{Header, LENGTH};
use super::limits::Limits;
use super::source::{Source, Work};
use super::stream::Stream;
use crate::digest;

/// The size of a write.
const PIECE: usize = 256 * 1024;
/// The length of the digest of a frame.
pub(super) const DIGEST: usize = 8;

/// Writes the target of a delta to `write`, in order and in pieces of any size. While a large frame is compressed,
/// `write` is called with empty pieces, so that the caller can stop.
///
/// # Errors
/// Fails if the delta is malformed, is not for these files, exceeds the limits, or does not give the bytes
/// of the target's frames here. What was written until then may be wrong.
pub fn apply(
    delta: &[u8],
    source: impl Read + Seek,
    limits: &Limits,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), DeltaError> {
    let header = Header::read(delta)?;
    header.check(delta, limits)?;
    let mut rest = &delta[LENGTH..];
    let [mut extents, segments, operations, gaps, differences, literals] =
        open_streams(&header, &mut rest)?;
    let source = Source::new(source, &header, &mut extents)?;
    let work = Work::new(&header);
    let content = Content {
        source,
        work,
        operations,
        gaps: Gaps { stream: gaps, left: None },
        differences,
        literals,
        position: 0,
        add: 0,
        literal: 0,
    };
    let compressor = header.recompress.compressor().map_err(DeltaError::Zstd)?;
    let output = Output { write, length: 0, size: header.target };
    Target { header, content, compressor, output, copied: 0 }.write(segments)
}

fn open_streams<'a>(header: &Header, delta: &mut &'a [u8]) -> Result<[Stream<'a>; 6], DeltaError> {
    let [a, b, c, d, e, f] = header.streams;
    let mut open = |length| Stream::open(delta, length);
    Ok([open(a)?, open(b)?, open(c)?, open(d)?, open(e)?, open(f)?])
}

/// Receives the target.
struct Output<'a> {
    write: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    length: u64,
    size: u64,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeltaError> {
        (self.write)(bytes).map_err(DeltaError::Sink)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Fails if the target would become too long.
    fn check(&self, length: u64) -> Result<(), DeltaError> {
        match length > 0 && length <= self.size - self.length {
            true => Ok(()),
            false => Err(DeltaError::Malformed("a segment has an invalid length")),
        }
    }
}

/// The target, which consists of segments.
struct Target<'a, S> {
    header: Header,
    content: Content<'a, S>,
    compressor: FrameCompressor,
    output: Output<'a>,
    /// The end of the part of the source that was copied last.
    copied: u64,
}

impl<S: Read + Seek> Target<'_, S> {
    fn write(&mut self, mut segments: Stream<'_>) -> Result<(), DeltaError> {
        let mut buffer = Vec::new();
        let mut frame = Vec::new();
        while self.output.length < self.output.size {
            let number = segments.number()?;
            let length = number >> 2;
            match number & 3 {
                0 => {
                    self.output.check(length)?;
                    let offset = segments.position(self.copied)?;
                    self.copy(offset, length, &mut buffer)?;
                }
                1 => {
                    self.output.check(length)?;
                    self.plain(length, &mut buffer)?;
                }
                2 => {
                    let stored = segments.number()?;
                    self.output.check(stored)?;
                    let mut expected = [0; DIGEST];
                    segments.read(&mut expected)?;
                    self.frame(length, stored, &expected, &mut buffer, &mut frame)?;
                }
                _ => return Err(DeltaError::Malformed("a segment has an unknown kind")),
            }
        }
        Ok(())
    }

    /// Copies bytes of the source as they are.
    fn copy(&mut self, offset: u64, length: u64, buffer: &mut Vec<u8>) -> Result<(), DeltaError> {
        self.content.work.spend(0)?;
        let end = offset.checked_add(length);
        let end = end.ok_or(DeltaError::Malformed("a position is out of range"))?;
        let mut at = offset;
        while at < end {
            resize(buffer, (end - at).min(PIECE as u64))?;
            self.content.source.read_stored(at, buffer)?;
            self.output.write(buffer)?;
            at += buffer.len() as u64;
        }
        self.copied = end;
        Ok(())
    }

    /// Writes content that the target does not compress.
    fn plain(&mut self, length: u64, buffer: &mut Vec<u8>) -> Result<(), DeltaError> {
        self.content.work.spend(0)?;
        let mut left = length;
        while left > 0 {
            resize(buffer, left.min(PIECE as u64))?;
            self.content.read(buffer)?;
            self.output.write(buffer)?;
            left -= buffer.len() as u64;
        }
        Ok(())
    }

    /// Writes content that the target compresses.
    fn frame(
        &mut self,
        length: u64,
        stored: u64,
        expected: &[u8; DIGEST],
        content: &mut Vec<u8>,
        frame: &mut Vec<u8>,
    ) -> Result<(), DeltaError> {
        let max = u64::from(self.header.frame_max);
        if !(1..=max).contains(&length) || stored > max {
            return Err(DeltaError::Malformed("a frame has an invalid length"));
        }
        let work = self.header.recompress.work(length);
        self.content.work.spend(work.ok_or(DeltaError::Malformed("a block is too large"))?)?;
        resize(content, length)?;
        self.content.read(content)?;
        let at = self.output.length;
        let mut stopped = None;
        let mut check = || {
            let problem = (self.output.write)(&[]).err();
            problem.map_or(Ok(()), |error| Err(stopped.insert(error).kind().into()))
        };
        let compressed = self.compressor.compress(content, frame, &mut check);
        if let Some(error) = stopped {
            return Err(DeltaError::Sink(error));
        }
        compressed.map_err(DeltaError::Zstd)?;
        if frame.len() as u64 != stored || digest_of(frame) != *expected {
            return Err(DeltaError::Frame(at));
        }
        self.output.write(frame)
    }
}

/// Changes the length of a buffer. A host without memory gets an error.
fn resize(buffer: &mut Vec<u8>, length: u64) -> Result<(), DeltaError> {
    let more = (length as usize).saturating_sub(buffer.len());
    buffer.try_reserve(more).map_err(|error| DeltaError::NoMemory(error.into()))?;
    buffer.resize(length as usize, 0);
    Ok(())
}

/// Returns the digest of a frame: the beginning of its SHA-256.
pub(super) fn digest_of(frame: &[u8]) -> [u8; DIGEST] {
    let digest = digest::raw(frame);
    std::array::from_fn(|index| digest[index])
}

/// The distances between the bytes that differ from the source.
struct Gaps<'a> {
    stream: Stream<'a>,
    /// The number of equal bytes before the next difference; `None` before it was read.
    left: Option<u64>,
}

/// The new content: parts of the expanded source with differences, and literal bytes.
struct Content<'a, S> {
    source: Source<S>,
    work: Work,
    operations: Stream<'a>,
    gaps: Gaps<'a>,
    differences: Stream<'a>,
    literals: Stream<'a>,
    /// The position in the expanded source.
    position: u64,
    /// The rest of the operation: bytes of the source, and then literal bytes.
    add: u64,
    literal: u64,
}

impl<S: Read + Seek> Content<'_, S> {
    /// Fills a buffer with the next bytes.
    fn read(&mut self, mut to: &mut [u8]) -> Result<(), DeltaError> {
        while !to.is_empty() {
            if self.add == 0 && self.literal == 0 {
                self.next_operation()?;
            }
            let is_add = self.add > 0;
            let left = if is_add { &mut self.add } else { &mut self.literal };
            let length = usize::try_from(*left).unwrap_or(usize::MAX).min(to.len());
            *left -= length as u64;
            let (piece, rest) = to.split_at_mut(length);
            to = rest;
            if !is_add {
                self.literals.read(piece)?;
                continue;
            }
            self.source.read(self.position, piece, &mut self.work)?;
            self.position += length as u64;
            self.add_differences(piece)?;
        }
        Ok(())
    }

    fn next_operation(&mut self) -> Result<(), DeltaError> {
        self.position = self.operations.position(self.position)?;
        (self.add, self.literal) = (self.operations.number()?, self.operations.number()?);
        // Without this, a delta could have operations without end that write nothing.
        match self.add == 0 && self.literal == 0 {
            true => Err(DeltaError::Malformed("an operation is empty")),
            false => Ok(()),
        }
    }

    /// Adds the differences to bytes of the source.
    fn add_differences(&mut self, mut bytes: &mut [u8]) -> Result<(), DeltaError> {
        loop {
            let gap = match self.gaps.left {
                Some(gap) => gap,
                // After the last difference, everything is equal.
                None => self.gaps.stream.number_or_end()?.unwrap_or(u64::MAX),
            };
            if gap >= bytes.len() as u64 {
                self.gaps.left = Some(gap - bytes.len() as u64);
                return Ok(());
            }
            self.gaps.left = None;
            bytes = &mut bytes[gap as usize..];
            let mut difference = [0];
            self.differences.read(&mut difference)?;
            bytes[0] = bytes[0].wrapping_add(difference[0]);
            bytes = &mut bytes[1..];
        }
    }
}
