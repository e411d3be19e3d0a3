//! Name resolution that keeps addresses of both families.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::addresses::interleaved;

/// The number of addresses that ureq accepts.
const ADDRESSES_MAX: usize = 16;

/// A resolver that returns the families in turn. ureq's own one cuts a long list, which usually begins with
/// IPv6, and may so lose every IPv4 address.
#[derive(Debug)]
pub(super) struct BothFamilies;

impl Resolver for BothFamilies {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.scheme().zip(uri.authority());
        let name = name.and_then(|(scheme, host)| DefaultResolver::host_and_port(scheme, host));
        // The text of the URL is omitted, since that of a proxy contains its credentials.
        let name = name.ok_or_else(|| Error::BadUri("no host".to_owned()))?;
        let mut found = self.empty();
        for address in interleaved(&look_up(name, timeout)?, None).into_iter().take(ADDRESSES_MAX) {
            found.push(address);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

/// Looks up `host:port` in a thread, because the system's function has no timeout.
fn look_up(name: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        let found = name.to_socket_addrs().map(|found| found.collect::<Vec<_>>());
        // Nobody waits for the result after the timeout.
        let _ = send.send(found);
    });
    let result = match timeout.after.is_not_happening() {
        true => receive.recv().map_err(|_| RecvTimeoutError::Disconnected),
        false => receive.recv_timeout(*timeout.after),
    };
    match result {
        Ok(found) => found.map_err(Error::Io),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
    }
}
