//! Interactive shells through the listener; [`protocol::shell`] describes the protocol.
//!
//! A shell is a process of root, so it is off unless the configuration allows it to a source. A request is accepted
//! only with TLS 1.3 and a token that is bound to its connection. The end of the connection ends the shell with
//! all of its processes.

mod authorize;
pub(crate) mod child;
mod pipe;
mod process;
mod session;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::Request;
use hyper::body::Incoming;
use protocol::KeyRing;
use protocol::shell::Binding;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::authorize::ShellError;
use self::process::Launcher;
use self::session::{Limits, Session};
use crate::host::Host;
use crate::open_shells::OpenShell;

/// The number of shells that may be open at the same time.
const SHELLS_MAX: usize = 4;

/// Admits clients, and serves their shells.
pub(crate) struct Shells {
    /// The sources that may have one.
    allowed: BTreeSet<String>,
    free: Arc<Semaphore>,
    count: AtomicU64,
    host: Host,
}

/// A client that may have a shell.
pub(crate) struct Admitted {
    id: String,
    source: String,
    key: String,
    _permit: OwnedSemaphorePermit,
    _open: OpenShell,
}

impl Shells {
    /// Creates an instance for the sources that may have a shell.
    pub(crate) fn new(allowed: BTreeSet<String>, host: &Host) -> Self {
        let free = Arc::new(Semaphore::new(SHELLS_MAX));
        Self { allowed, free, count: AtomicU64::new(0), host: host.clone() }
    }

    /// Decides about a request for a shell of `source`, whose keys are `keys`, on a connection with `binding`.
    ///
    /// # Errors
    /// Fails if the source may have none, if the token does not verify or is not for this connection, or if too
    /// many shells are open.
    pub(crate) fn admit(
        &self,
        source: &str,
        keys: &KeyRing,
        request: &Request<Incoming>,
        binding: Option<Binding>,
        now: u64,
    ) -> Result<Admitted, ShellError> {
        if !self.allowed.contains(source) {
            return Err(ShellError::Off(source.to_owned()));
        }
        let token = authorize::token(request, binding.is_some())?;
        let binding = binding.ok_or(ShellError::NoTls)?;
        let key = authorize::verify(token, keys, binding, now)?;
        let permit = self.free.clone().try_acquire_owned().map_err(|_| ShellError::TooMany)?;
        let id = format!("{}-{}", std::process::id(), self.count.fetch_add(1, Ordering::Relaxed));
        let text = format!("root through a shell of {source}, signed with {key},");
        let open = OpenShell::record(&self.host, &id, &text).map_err(ShellError::Record)?;
        Ok(Admitted { id, source: source.to_owned(), key, _permit: permit, _open: open })
    }

    /// Serves a shell until it or the connection ends. `early` is what was received after the request.
    pub(crate) async fn serve<S>(
        &self,
        admitted: Admitted,
        stream: S,
        early: &[u8],
        peer: SocketAddr,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Admitted { id, source, key, .. } = &admitted;
        let start = Instant::now();
        log::info!(source = source.as_str(), key = key.as_str(); "the shell {id} of {source} starts: signed with {key}, from {peer}");
        let launcher = Launcher::new(&self.host, id);
        let session = Session { launcher: &launcher, limits: Limits::DEFAULT };
        let end = session.run(stream, early).await;
        let seconds = start.elapsed().as_secs();
        log::info!(source = source.as_str(), key = key.as_str(); "the shell {id} of {source} ended after {seconds} s: {end}");
    }
}
