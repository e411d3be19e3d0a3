//! The streams of a delta.

use std::io::{self, BufRead, BufReader, Read};

use zstd::stream::read::Decoder;

use super::error::DeltaError;

/// The base-2 logarithm of the maximum window of a compressed stream, which limits the memory.
pub(super) const WINDOW_LOG: u32 = 22;
pub(super) const WINDOW_MAX: u64 = 1 << WINDOW_LOG;
/// The memory for buffers and tables of all streams, besides their windows.
pub(super) const STREAM_BUFFERS: u64 = 4 << 20;
const BUFFER: usize = 16 * 1024;

/// The lengths of a stream in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamLength {
    /// The length in the delta. It is the same as `plain` if the stream is not compressed.
    pub stored: u32,
    /// The length of the content.
    pub plain: u32,
}

/// A stream that is being read.
pub(super) struct Stream<'a> {
    reader: BufReader<io::Take<Box<dyn Read + 'a>>>,
}

impl<'a> Stream<'a> {
    /// Opens a stream that begins at `delta`, and moves `delta` to its end.
    pub(super) fn open(delta: &mut &'a [u8], length: StreamLength) -> Result<Self, DeltaError> {
        let too_short = DeltaError::Malformed("a stream is too short");
        let stored = delta.split_off(..length.stored as usize).ok_or(too_short)?;
        let reader: Box<dyn Read + 'a> = match length.stored == length.plain {
            true => Box::new(stored),
            false => {
                let mut decoder = Decoder::with_buffer(stored).map_err(DeltaError::Zstd)?;
                decoder.window_log_max(WINDOW_LOG).map_err(DeltaError::Zstd)?;
                Box::new(decoder.single_frame())
            }
        };
        Ok(Self { reader: BufReader::with_capacity(BUFFER, reader.take(u64::from(length.plain))) })
    }

    /// Returns the next byte, or `None` at the end.
    fn byte(&mut self) -> Result<Option<u8>, DeltaError> {
        let buffer = self.reader.fill_buf().map_err(stream_error)?;
        let Some(byte) = buffer.first().copied() else { return Ok(None) };
        self.reader.consume(1);
        Ok(Some(byte))
    }

    /// Fills a buffer.
    pub(super) fn read(&mut self, to: &mut [u8]) -> Result<(), DeltaError> {
        self.reader.read_exact(to).map_err(stream_error)
    }

    /// Returns the next number, or `None` at the end. A number has seven bits in each byte, the lowest ones
    /// first; the high bit says that more follow.
    pub(super) fn number_or_end(&mut self) -> Result<Option<u64>, DeltaError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.byte()? else {
                return if shift == 0 {
                    Ok(None)
                } else {
                    Err(DeltaError::Malformed("a number is cut off"))
                };
            };
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(number));
            }
        }
        Err(DeltaError::Malformed("a number has more than 64 bits"))
    }

    /// Returns the next number.
    pub(super) fn number(&mut self) -> Result<u64, DeltaError> {
        self.number_or_end()?.ok_or(DeltaError::Malformed("a stream ends early"))
    }

    /// Returns the next position: the difference from the previous one, with the sign in the lowest bit.
    pub(super) fn position(&mut self, previous: u64) -> Result<u64, DeltaError> {
        let number = self.number()?;
        let distance = number >> 1;
        let position = match number & 1 {
            0 => previous.checked_add(distance),
            _ => previous.checked_sub(distance),
        };
        position.ok_or(DeltaError::Malformed("a position is out of range"))
    }
}

fn stream_error(error: io::Error) -> DeltaError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DeltaError::Malformed("a stream ends early"),
        _ => DeltaError::Zstd(error),
    }
}

/// Appends a number as [`Stream::number`] reads it.
pub(super) fn push_number(to: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Appends a position as [`Stream::position`] reads it.
pub(super) fn push_position(to: &mut Vec<u8>, previous: u64, position: u64) {
    let sign = u64::from(position < previous);
    push_number(to, (position.abs_diff(previous) << 1) | sign);
}
