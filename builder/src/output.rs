//! Standard output, which its reader may close early: `builder render deb | head -1`.

use std::io::{self, StdoutLock, Write};

/// The exit code after the reader of standard output closed it: 128 + SIGPIPE, as shells report it.
pub const BROKEN_PIPE_EXIT: u8 = 141;

/// The cause of an I/O error after the reader closed standard output.
///
/// This type distinguishes the error from a broken pipe of a socket or of a child process.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
struct Closed;

/// Standard output. Flushes each write, so that the write itself reports a failure.
#[derive(Debug)]
pub struct Output(StdoutLock<'static>);

impl Output {
    /// Locks standard output.
    pub fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes).map_err(mark_closed)?;
        self.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark_closed)
    }
}

fn mark_closed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, Closed),
        _ => error,
    }
}

/// Returns whether an error says that the reader of standard output closed it.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<Closed>())
    })
}
