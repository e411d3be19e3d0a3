//! Writes deltas.

use std::io;

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::apply::digest_of;
use super::codec::Recompress;
use super::header::{Header, STREAMS};
use super::stream::{StreamLength, WINDOW_LOG, push_number, push_position};

/// The level at which streams are compressed.
const LEVEL: i32 = 19;

/// A part of the source whose content the delta refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// The offset in the source.
    pub offset: u64,
    /// The length in the source.
    pub stored: u32,
    /// The length of the decompressed content, or `None` if the extent is not a zstd frame.
    pub frame: Option<u32>,
}

impl Extent {
    /// Returns the length of the content.
    pub fn content(&self) -> u32 {
        self.frame.unwrap_or(self.stored)
    }
}

/// A part of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Bytes of the source as they are.
    Copy {
        /// The offset in the source.
        offset: u64,
        /// The number of bytes.
        length: u64,
    },
    /// The next bytes of the new content.
    Plain {
        /// The number of bytes.
        length: u64,
    },
    /// The next bytes of the new content, compressed.
    Frame {
        /// The number of bytes of content.
        content: u32,
        /// The number of bytes of the frame.
        stored: u32,
        /// The beginning of the SHA-256 of the frame.
        digest: [u8; 8],
    },
}

impl Segment {
    /// Returns the segment of a frame with this number of bytes of content.
    pub fn frame(content: u32, frame: &[u8]) -> Self {
        Self::Frame { content, stored: frame.len() as u32, digest: digest_of(frame) }
    }
}

/// A part of the new content: bytes of the expanded source with the differences added, and then literal
/// bytes. At least one of the two lengths is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The position in the expanded source.
    pub position: u64,
    /// The number of bytes of the expanded source.
    pub add: u64,
    /// The number of literal bytes.
    pub literal: u64,
}

/// The content of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The size of the source.
    pub source: u64,
    /// The size of the target.
    pub target: u64,
    /// How the frames of the target are compressed.
    pub recompress: Recompress,
    /// The extents in the order of the source, which do not overlap.
    pub extents: Vec<Extent>,
    /// The segments of the target.
    pub segments: Vec<Segment>,
    /// The operations that give the new content.
    pub operations: Vec<Operation>,
    /// The bytes that differ from the expanded source: the number of equal bytes before each one, over all
    /// operations, and what is added to the byte of the source.
    pub differences: Vec<(u64, u8)>,
    /// The literal bytes of all operations.
    pub literals: Vec<u8>,
}

impl Delta {
    /// Returns the delta as bytes.
    ///
    /// # Errors
    /// Fails if zstd fails, or if a stream has 4 GiB or more.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let plain = [
            self.extent_stream(),
            self.segment_stream(),
            self.operation_stream(),
            self.gap_stream(),
            self.differences.iter().map(|(_, byte)| *byte).collect(),
            self.literals.clone(),
        ];
        let mut bodies = Vec::new();
        let mut streams = [StreamLength { stored: 0, plain: 0 }; STREAMS];
        for (plain, length) in plain.into_iter().zip(&mut streams) {
            length.plain = u32::try_from(plain.len()).map_err(io::Error::other)?;
            let body = compress(plain)?;
            length.stored = body.len() as u32;
            bodies.push(body);
        }
        let header = Header {
            source: self.source,
            target: self.target,
            frame_max: self.frame_max(),
            extents: u32::try_from(self.extents.len()).map_err(io::Error::other)?,
            recompress: self.recompress,
            streams,
        };
        let mut bytes = header.to_bytes();
        bytes.extend(bodies.concat());
        Ok(bytes)
    }

    fn frame_max(&self) -> u32 {
        let extents = self.extents.iter().map(|extent| extent.content().max(extent.stored));
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Frame { content, stored, .. } => *content.max(stored),
            Segment::Copy { .. } | Segment::Plain { .. } => 0,
        });
        extents.chain(segments).max().unwrap_or(0)
    }

    fn extent_stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut end = 0;
        for Extent { offset, stored, frame } in &self.extents {
            push_number(&mut stream, offset.saturating_sub(end));
            push_number(&mut stream, (u64::from(*stored) << 1) | u64::from(frame.is_some()));
            if let Some(content) = frame {
                push_number(&mut stream, u64::from(*content));
            }
            end = offset.saturating_add(u64::from(*stored));
        }
        stream
    }

    fn segment_stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut copied = 0;
        for segment in &self.segments {
            match segment {
                Segment::Copy { offset, length } => {
                    push_number(&mut stream, length << 2);
                    push_position(&mut stream, copied, *offset);
                    copied = offset + length;
                }
                Segment::Plain { length } => push_number(&mut stream, (length << 2) | 1),
                Segment::Frame { content, stored, digest } => {
                    push_number(&mut stream, (u64::from(*content) << 2) | 2);
                    push_number(&mut stream, u64::from(*stored));
                    stream.extend(digest);
                }
            }
        }
        stream
    }

    fn operation_stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut previous = 0;
        for Operation { position, add, literal } in &self.operations {
            push_position(&mut stream, previous, *position);
            push_number(&mut stream, *add);
            push_number(&mut stream, *literal);
            previous = position + add;
        }
        stream
    }

    fn gap_stream(&self) -> Vec<u8> {
        let mut stream = Vec::new();
        for (gap, _) in &self.differences {
            push_number(&mut stream, *gap);
        }
        stream
    }
}

/// Compresses a stream, or returns it as it is if that does not make it shorter.
fn compress(plain: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    let compressed = compressor.compress(&plain)?;
    Ok(if compressed.len() < plain.len() { compressed } else { plain })
}
