//! A connection that looks for a `#` in its request line.
//!
//! The HTTP library removes a `#` and what follows it from the target of a request (RFC 9112 section 3.2 allows
//! none there). Someone who pushes to `…#?check` expects less than all Commands to run.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Whether the line of the request has a `#`. It is known once the head of the request was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Fragment(Arc<AtomicBool>);

impl Fragment {
    pub(super) fn is_present(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream of one request.
pub(super) struct RequestLine<S> {
    stream: S,
    fragment: Fragment,
    line: Line,
}

/// How much of the line was read.
#[derive(Debug, Clone, Copy)]
enum Line {
    Expected,
    Begun,
    Ended,
}

impl<S> RequestLine<S> {
    pub(super) fn new(stream: S, fragment: Fragment) -> Self {
        Self { stream, fragment, line: Line::Expected }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Examines the next bytes of the request. Empty lines may precede its line (RFC 9112 section 2.2).
    fn examine(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.line {
                Line::Expected if b"\r\n".contains(byte) => {}
                Line::Expected | Line::Begun if *byte == b'#' => {
                    self.fragment.0.store(true, Ordering::Relaxed);
                    self.line = Line::Ended;
                }
                Line::Begun if *byte == b'\n' => self.line = Line::Ended,
                Line::Expected | Line::Begun => self.line = Line::Begun,
                Line::Ended => return,
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.examine(&buffer.filled()[before..]);
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RequestLine<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
