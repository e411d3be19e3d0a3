//! Name resolution that keeps addresses of both families, and does not wait long for one of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use dns_lookup::{AddrFamily, AddrInfoHints, SockType, getaddrinfo};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

use super::addresses::{Addresses, Patience};

/// The number of addresses that ureq accepts.
const ADDRESSES_MAX: usize = 16;

/// A resolver that returns the addresses in the order of [`Addresses`]. ureq's own one cuts a long list, which
/// usually begins with IPv6, and may so lose every IPv4 address.
#[derive(Debug, Clone)]
pub(super) struct BothFamilies(pub(super) Addresses);

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
        let limit = (!timeout.after.is_not_happening()).then(|| *timeout.after);
        let answer = look_up(&name, limit, self.0.patience()).map_err(|error| match error {
            LookUpError::Failed(error) => Error::Io(error),
            // ureq counts the look-up of a proxy as a part of the connection.
            LookUpError::TimedOut if timeout.reason == Timeout::Connect => {
                Error::Timeout(Timeout::Resolve)
            }
            LookUpError::TimedOut => Error::Timeout(timeout.reason),
        })?;
        if answer.is_late {
            self.0.names_are_late();
        }
        let mut found = self.empty();
        for address in self.0.ordered(&answer.addresses).into_iter().take(ADDRESSES_MAX) {
            found.push(address);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

/// The addresses of a name.
struct Answer {
    addresses: Vec<SocketAddr>,
    /// Whether the common look-up did not end in time, so that one family may be missing.
    is_late: bool,
}

enum LookUpError {
    TimedOut,
    Failed(io::Error),
}

/// The result of one query.
enum Found {
    Both(io::Result<Vec<SocketAddr>>),
    Family(io::Result<Vec<SocketAddr>>),
}

/// Looks up `host:port`.
///
/// The C library waits for the answers for both families, 15 s if one is missing, as behind some home routers.
/// Therefore, if it takes long, each family is also looked up by itself, and an answer is used soon after the
/// other one was expected (RFC 8305 section 3). The common look-up comes first, because for it alone a name in
/// `/etc/hosts` hides that name in the DNS.
///
/// The queries run in threads, because the functions of the system have no timeout.
fn look_up(name: &str, limit: Option<Duration>, patience: Patience) -> Result<Answer, LookUpError> {
    let since = Instant::now();
    let (send, receive) = channel();
    spawn(&send, name, |name| Found::Both(name.to_socket_addrs().map(Iterator::collect)));
    let mut addresses = Vec::new();
    let mut families = 0;
    let mut next = patience.first;
    loop {
        let end = [next, limit].into_iter().flatten().min();
        let received = match end {
            Some(end) => receive.recv_timeout(end.saturating_sub(since.elapsed())),
            None => receive.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(Found::Both(Ok(addresses))) => return Ok(Answer { addresses, is_late: false }),
            Ok(Found::Both(Err(error))) if addresses.is_empty() => {
                return Err(LookUpError::Failed(error));
            }
            Ok(Found::Both(Err(_))) => return Ok(Answer { addresses, is_late: true }),
            Ok(Found::Family(found)) => {
                families += 1;
                addresses.extend(found.unwrap_or_default());
                if families == 2 && !addresses.is_empty() {
                    return Ok(Answer { addresses, is_late: true });
                }
                if !addresses.is_empty() {
                    next = patience.other.map(|other| since.elapsed() + other);
                }
            }
            Err(_) if !addresses.is_empty() => return Ok(Answer { addresses, is_late: true }),
            Err(_) if limit.is_some_and(|limit| since.elapsed() >= limit) => {
                return Err(LookUpError::TimedOut);
            }
            Err(_) => {
                next = None;
                spawn(&send, name, |name| Found::Family(of_family(name, AddrFamily::Inet)));
                spawn(&send, name, |name| Found::Family(of_family(name, AddrFamily::Inet6)));
            }
        }
    }
}

fn spawn(send: &Sender<Found>, name: &str, query: impl FnOnce(&str) -> Found + Send + 'static) {
    let (send, name) = (send.clone(), name.to_owned());
    std::thread::spawn(move || {
        // Nobody waits for the result after the timeout.
        let _ = send.send(query(&name));
    });
}

/// Looks up the addresses of a family for `host:port`. Omits those that this host cannot use: it should wait for
/// the others.
fn of_family(name: &str, family: AddrFamily) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
    let hints = AddrInfoHints {
        address: family.into(),
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found = getaddrinfo(Some(host), Some(port), Some(hints))?;
    let found = found.map(|found| found.map(|found| found.sockaddr));
    found.filter(|found| found.as_ref().map_or(true, has_route)).collect()
}

/// Returns whether this host has a route to an address. A UDP socket is connected without a packet. The flag of
/// the system's function for this needs netlink sockets, which the unit of the updater does not allow.
fn has_route(address: &SocketAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address)).is_ok()
}
