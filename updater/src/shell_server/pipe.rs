//! The ends of pipes and of a terminal, without blocking.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

/// The end to which the input of a shell is written.
#[derive(Debug)]
pub(super) struct Input(pipe::Sender);

/// The end from which the output of a shell is read.
#[derive(Debug)]
pub(super) struct Output(pipe::Receiver);

impl Input {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        // Unchecked, because a terminal is no pipe. It is written to in the same way.
        pipe::Sender::from_file_unchecked(nonblocking(fd)?).map(Self)
    }

    /// Writes all bytes.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}

impl Output {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        pipe::Receiver::from_file_unchecked(nonblocking(fd)?).map(Self)
    }

    /// Reads bytes. Returns 0 at the end.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer).await {
            // Linux reports in this way that no process has the other side of the terminal open.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            read => read,
        }
    }
}

fn nonblocking(fd: OwnedFd) -> io::Result<File> {
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(File::from(fd))
}
