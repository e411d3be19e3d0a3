//! A deadline for receiving useful data.
//!
//! ureq's own timeout applies to each read of a socket. ureq repeats such reads internally while it
//! parses trailers, a chunk size, a TLS record or the head of a proxy's response. Without a deadline, a
//! server that keeps sending such data would block a read forever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// The deadline of all connections of a client, which reads from one connection at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadline(Arc<Mutex<Option<(Instant, Timeout)>>>);

impl Deadline {
    /// Sets the deadline to `time` from now. Later reads fail with the timeout `reason`.
    pub(super) fn set(&self, time: Duration, reason: Timeout) {
        let until = Instant::now().checked_add(time);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until.map(|until| (until, reason));
    }

    /// Returns `timeout`, or the time that is left until the deadline if that is shorter.
    fn limit(&self, timeout: NextTimeout) -> NextTimeout {
        let Some((until, reason)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else {
            return timeout;
        };
        let left = until.saturating_duration_since(Instant::now());
        match left < *timeout.after {
            true => NextTimeout { after: left.into(), reason, ..timeout },
            false => timeout,
        }
    }
}

impl<In: Transport> Connector<In> for Deadline {
    type Out = Limited<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Limited { inner, deadline: self.clone() }))
    }
}

/// A connection whose reads have the deadline. It is below TLS, so that it also covers the handshake
/// with a proxy.
#[derive(Debug)]
pub(super) struct Limited<In> {
    inner: In,
    deadline: Deadline,
}

impl<In: Transport> Transport for Limited<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(self.deadline.limit(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
