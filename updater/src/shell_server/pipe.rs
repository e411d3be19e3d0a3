//! The ends of pipes and of a terminal, without blocking.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An end of a pipe, or the side of a terminal that is not the shell's.
#[derive(Debug)]
pub(super) struct Pipe(AsyncFd<OwnedFd>);

impl Pipe {
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// Reads bytes. Returns 0 at the end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.async_io(Interest::READABLE, |fd| Ok(read(fd, &mut *buffer)?)).await;
        match read {
            // Linux reports the end of a terminal whose other side nobody has open in this way.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(0),
            read => read,
        }
    }

    /// Writes all bytes.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(write(fd, bytes)?);
            let written = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

impl AsRef<OwnedFd> for Pipe {
    fn as_ref(&self) -> &OwnedFd {
        self.0.get_ref()
    }
}
