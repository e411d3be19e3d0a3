//! `http://` requests through a proxy. ureq opens a tunnel (CONNECT) for every request through a proxy.
//! Many proxies allow tunnels to port 443 only, and expect `http://` requests in the absolute form
//! (RFC 9112 section 3.2.2).

use std::fmt;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::resolver::BothFamilies;

/// A resolver that returns the proxy's addresses for every host.
pub(super) struct ProxyResolver {
    proxy: Uri,
    resolver: BothFamilies,
}

impl ProxyResolver {
    pub(super) fn new(proxy: &ureq::Proxy, resolver: BothFamilies) -> Self {
        Self { proxy: proxy.uri().clone(), resolver }
    }
}

impl Resolver for ProxyResolver {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.resolver.resolve(&self.proxy, config, timeout)
    }
}

/// Not derived, because the URI may contain credentials.
impl fmt::Debug for ProxyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyResolver")
    }
}

/// A connector whose transports write request targets in the absolute form.
#[derive(Debug)]
pub(super) struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = Absolute<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let authority = details.uri.authority().map(|a| a.as_str()).unwrap_or_default();
        let origin = format!("http://{authority}");
        Ok(chained.map(|inner| Absolute { inner, origin }))
    }
}

#[derive(Debug)]
pub(super) struct Absolute<In> {
    inner: In,
    origin: String,
}

impl<In: Transport> Transport for Absolute<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.inner.buffers().output();
        let amount = insert_origin(output, amount, &self.origin)?;
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Changes `GET /x` to `GET http://host/x` in place if the output is the beginning of a request. Returns
/// the new length of the output. Fails if the buffer is too small.
fn insert_origin(output: &mut [u8], amount: usize, origin: &str) -> Result<usize, Error> {
    let sent = &output[..amount];
    let Some(method) = [&b"GET /"[..], b"HEAD /"].into_iter().find(|m| sent.starts_with(m)) else {
        return Ok(amount);
    };
    let at = method.len() - 1;
    let end = amount + origin.len();
    if end > output.len() {
        return Err(Error::ConnectProxyFailed(
            "the request does not fit into the output buffer".to_owned(),
        ));
    }
    output.copy_within(at..amount, at + origin.len());
    output[at..at + origin.len()].copy_from_slice(origin.as_bytes());
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_request_targets_in_absolute_form() {
        let send = |text: &str, room: usize| {
            let mut output = text.as_bytes().to_vec();
            output.resize(text.len() + room, 0);
            let length = insert_origin(&mut output, text.len(), "http://x:1")?;
            output.truncate(length);
            Ok::<_, Error>(String::from_utf8(output).unwrap())
        };
        let head = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(send(head, 10).unwrap(), "GET http://x:1/a?b HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(send("HEAD / HTTP/1.1", 10).unwrap(), "HEAD http://x:1/ HTTP/1.1");
        assert_eq!(send("Range: bytes=5-\r\n", 0).unwrap(), "Range: bytes=5-\r\n");
        assert!(send(head, 9).is_err());
    }
}
