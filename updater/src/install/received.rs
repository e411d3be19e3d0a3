//! Counts the bytes of a download.

use std::io;

use crate::cdn::{ResumableSink, Sink};

/// A sink whose bytes are counted, also those that are discarded later.
pub(super) struct Received<'a> {
    /// The sink.
    pub(super) sink: &'a mut dyn ResumableSink,
    /// The number of bytes.
    pub(super) bytes: &'a mut u64,
}

impl Sink for Received<'_> {
    fn restart(&mut self) -> io::Result<()> {
        self.sink.restart()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        *self.bytes += bytes.len() as u64;
        self.sink.write(bytes)
    }
}

impl ResumableSink for Received<'_> {
    fn length(&self) -> u64 {
        self.sink.length()
    }

    fn digest(&self) -> String {
        self.sink.digest()
    }
}
