//! The expanded source: the contents of the extents of a source, one after the other.

use std::io::{Read, Seek, SeekFrom};

use zstd::bulk::Decompressor;

use super::error::DeltaError;
use super::header::Header;
use super::limits::CACHE;
use super::stream::Stream;

/// The maximum number of extents in the cache, which is searched from its beginning to its end.
const CACHE_EXTENTS: usize = 64;
/// For each byte of source and target, the number of bytes that may be read, decompressed and compressed. The
/// delta of an image takes 1, and that of a kernel 5, which is compressed to a fifth.
const WORK_FACTOR: u64 = 8;
/// Work that a delta for small files may do as well.
const WORK_BASE: u64 = 64 << 20;
/// What each segment and each read of an extent counts besides its bytes, because it takes system calls or a
/// call of zstd. Without it, millions of single bytes would cost minutes.
const STEP: u64 = 4096;

/// A part of the source.
#[derive(Debug, Clone, Copy)]
struct SourceExtent {
    offset: u64,
    /// The length in the source.
    stored: u32,
    /// The length of the content.
    content: u32,
    /// Whether the extent is a zstd frame.
    is_frame: bool,
    /// The end of the content in the expanded source.
    end: u64,
}

/// The limit of what is read, decompressed and compressed.
pub(super) struct Work {
    left: u64,
    limit: u64,
}

impl Work {
    pub(super) fn new(header: &Header) -> Self {
        let sizes = header.source.saturating_add(header.target);
        let limit = sizes.saturating_mul(WORK_FACTOR).saturating_add(WORK_BASE);
        Self { left: limit, limit }
    }

    /// Counts a step and its bytes. Fails if the limit is exceeded.
    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), DeltaError> {
        let cost = bytes.saturating_add(STEP);
        self.left = self.left.checked_sub(cost).ok_or(DeltaError::Work(self.limit))?;
        Ok(())
    }
}

/// The expanded source.
pub(super) struct Source<S> {
    file: S,
    size: u64,
    extents: Vec<SourceExtent>,
    /// The contents of some extents, with their indexes, the ones used last at the end.
    cache: Vec<(usize, Vec<u8>)>,
    decompressor: Decompressor<'static>,
}

impl<S: Read + Seek> Source<S> {
    /// Reads the list of extents.
    pub(super) fn new(
        file: S,
        header: &Header,
        stream: &mut Stream<'_>,
    ) -> Result<Self, DeltaError> {
        let mut extents = Vec::with_capacity(header.extents as usize);
        let (mut offset, mut end) = (0_u64, 0_u64);
        while let Some(gap) = stream.number_or_end()? {
            if extents.len() == header.extents as usize {
                return Err(DeltaError::Malformed("it has more extents than it says"));
            }
            let kind = stream.number()?;
            let stored = kind >> 1;
            let is_frame = kind & 1 == 1;
            let content = if is_frame { stream.number()? } else { stored };
            let is_small = |length| (1..=u64::from(header.frame_max)).contains(&length);
            if !is_small(content) || !is_small(stored) {
                return Err(DeltaError::Malformed("an extent has an invalid length"));
            }
            let start = offset.saturating_add(gap);
            offset = start.saturating_add(stored);
            if offset > header.source || offset == u64::MAX {
                return Err(DeltaError::Malformed("an extent is outside of the source"));
            }
            end += content;
            let (stored, content) = (stored as u32, content as u32);
            extents.push(SourceExtent { offset: start, stored, content, is_frame, end });
        }
        let decompressor = Decompressor::new().map_err(DeltaError::Zstd)?;
        Ok(Self { file, size: header.source, extents, cache: Vec::new(), decompressor })
    }

    /// Reads bytes of the expanded source.
    pub(super) fn read(
        &mut self,
        mut position: u64,
        mut to: &mut [u8],
        work: &mut Work,
    ) -> Result<(), DeltaError> {
        while !to.is_empty() {
            let index = self.extents.partition_point(|extent| extent.end <= position);
            let extent = self.extents.get(index);
            let extent =
                *extent.ok_or(DeltaError::Malformed("it reads beyond the end of the source"))?;
            let content = self.content(index, work)?;
            let from = &content[(position + u64::from(extent.content) - extent.end) as usize..];
            let length = from.len().min(to.len());
            let (piece, rest) = to.split_at_mut(length);
            piece.copy_from_slice(&from[..length]);
            position += length as u64;
            to = rest;
        }
        Ok(())
    }

    /// Reads bytes of the source as they are.
    pub(super) fn read_stored(&mut self, offset: u64, to: &mut [u8]) -> Result<(), DeltaError> {
        if offset.checked_add(to.len() as u64).is_none_or(|end| end > self.size) {
            return Err(DeltaError::Malformed("it copies from beyond the end of the source"));
        }
        self.file.seek(SeekFrom::Start(offset)).map_err(DeltaError::Source)?;
        self.file.read_exact(to).map_err(DeltaError::Source)
    }

    /// Returns the content of an extent.
    fn content(&mut self, index: usize, work: &mut Work) -> Result<&[u8], DeltaError> {
        if let Some(at) = self.cache.iter().rposition(|(cached, _)| *cached == index) {
            let last = self.cache.len() - 1;
            if at != last {
                let entry = self.cache.remove(at);
                self.cache.push(entry);
            }
        } else {
            let extent = self.extents[index];
            self.make_room(u64::from(extent.content));
            let content = self.load(extent, work)?;
            self.cache.push((index, content));
        }
        Ok(self.cache.last().map_or(&[], |(_, content)| content))
    }

    /// Removes contents from the cache until it has room for one of this length.
    fn make_room(&mut self, length: u64) {
        let mut size =
            length + self.cache.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
        while !self.cache.is_empty() && (size > CACHE || self.cache.len() >= CACHE_EXTENTS) {
            size -= self.cache.remove(0).1.len() as u64;
        }
    }

    /// Reads and decompresses an extent.
    fn load(&mut self, extent: SourceExtent, work: &mut Work) -> Result<Vec<u8>, DeltaError> {
        let SourceExtent { offset, stored, content, is_frame, .. } = extent;
        work.spend(u64::from(stored) + u64::from(content))?;
        let mut bytes = buffer(stored)?;
        bytes.resize(stored as usize, 0);
        self.read_stored(offset, &mut bytes)?;
        if !is_frame {
            return Ok(bytes);
        }
        let mut plain = buffer(content)?;
        match self.decompressor.decompress_to_buffer(&bytes, &mut plain) {
            Ok(length) if length == content as usize => Ok(plain),
            _ => Err(DeltaError::SourceFrame { offset, length: u64::from(stored) }),
        }
    }
}

/// Returns an empty buffer with room for `length` bytes. A host without memory gets an error.
fn buffer(length: u32) -> Result<Vec<u8>, DeltaError> {
    let mut buffer = Vec::new();
    let reserved = buffer.try_reserve_exact(length as usize);
    reserved.map_err(|error| DeltaError::NoMemory(error.into()))?;
    Ok(buffer)
}
