//! Until when something of use must have come.
//!
//! ureq's own limit is for each read of a socket, and it goes on reading what is nothing yet: trailers
//! behind a body, the size of a chunk, half a TLS record, the head of a proxy's answer. A server that
//! sends a byte of that now and then, or as fast as it can, would be read from for ever.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Timeout};

/// For the connections of one client, of which one is read from at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadline(Arc<Mutex<Option<(Instant, Timeout)>>>);

impl Deadline {
    /// From now on, whatever is read must have come in this time; else it is the timeout `reason`.
    pub(super) fn set(&self, time: Duration, reason: Timeout) {
        let until = Instant::now().checked_add(time);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until.map(|until| (until, reason));
    }

    /// The same timeout, or what is left until the deadline, if that is less.
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

/// A connection, and beneath TLS also the one to a proxy.
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
