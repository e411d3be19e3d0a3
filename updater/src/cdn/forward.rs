//! Plain http through a proxy. ureq asks every proxy for a tunnel; many allow tunnels to port 443
//! alone, and want plain requests in the absolute form (RFC 9112 section 3.2.2).

use std::fmt;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use super::deadline::Deadline;

/// An agent that sends every request to the proxy. `config` must not name a proxy.
pub(super) fn agent(config: Config, proxy: &ureq::Proxy, deadline: Deadline) -> Agent {
    let resolver = ToProxy { proxy: proxy.uri().clone(), resolver: DefaultResolver::default() };
    let connector = DefaultConnector::default().chain(AbsoluteForm).chain(deadline);
    Agent::with_parts(config, connector, resolver)
}

/// Every host is at the proxy's address.
struct ToProxy {
    proxy: Uri,
    resolver: DefaultResolver,
}

impl Resolver for ToProxy {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.resolver.resolve(&self.proxy, config, timeout)
    }
}

/// Not derived: the URI may hold credentials.
impl fmt::Debug for ToProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ToProxy")
    }
}

/// Makes transports that write whole URLs into request lines.
#[derive(Debug)]
struct AbsoluteForm;

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
struct Absolute<In> {
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

/// `GET /x` becomes `GET http://host/x`, in place, if the output is the beginning of a request. Says
/// how long the output is then.
fn insert_origin(output: &mut [u8], amount: usize, origin: &str) -> Result<usize, Error> {
    let sent = &output[..amount];
    let Some(method) = [&b"GET /"[..], b"HEAD /"].into_iter().find(|m| sent.starts_with(m)) else {
        return Ok(amount);
    };
    let at = method.len() - 1;
    let end = amount + origin.len();
    if end > output.len() {
        return Err(Error::ConnectProxyFailed("the request is too long".to_owned()));
    }
    output.copy_within(at..amount, at + origin.len());
    output[at..at + origin.len()].copy_from_slice(origin.as_bytes());
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
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
