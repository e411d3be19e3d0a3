//! Connects to the first address of a host that answers (Happy Eyeballs, RFC 8305 section 5).
//!
//! ureq's own connector tries one address after the other, and waits for each up to the whole timeout. In a
//! network whose IPv6 does not work, every request would take as long.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, socket,
};
use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector, Either, Transport};

use super::addresses::Addresses;
use super::tcp::Tcp;

/// The time after which the next address is tried as well (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens TCP connections, unless an earlier connector of the chain did.
#[derive(Debug)]
pub(super) struct Race(pub(super) Addresses);

impl<In: Transport> Connector<In> for Race {
    type Out = Either<In, Tcp>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let timeout = details.timeout;
        let limit = (!timeout.after.is_not_happening()).then(|| *timeout.after);
        let stream = match first_to_answer(&self.0.ordered(&details.addrs), limit) {
            Ok(winner) => {
                self.0.connected(winner.address, &winner.unanswered);
                winner.stream
            }
            Err(RaceError::TimedOut) => {
                // If the host has more addresses than ureq takes at once, the next attempt uses the others.
                self.0.unanswered(&details.addrs);
                return Err(Error::Timeout(timeout.reason));
            }
            Err(RaceError::Failed(error)) => return Err(Error::Io(error)),
        };
        stream.set_nodelay(details.config.no_delay())?;
        Ok(Some(Either::B(Tcp::new(stream, details.config))))
    }
}

/// The first connection.
struct Winner {
    address: SocketAddr,
    stream: TcpStream,
    /// The addresses that were tried before this one and have not answered.
    unanswered: Vec<SocketAddr>,
}

enum RaceError {
    TimedOut,
    /// Every address failed. This is the last error, if possible one that the network reported.
    Failed(io::Error),
}

/// A connection that is being opened.
struct Attempt {
    address: SocketAddr,
    stream: TcpStream,
}

/// Connects to each of the addresses, [`ATTEMPT_DELAY`] after the one before or as soon as that has failed.
/// Returns the first connection, and closes the others.
fn first_to_answer(addresses: &[SocketAddr], limit: Option<Duration>) -> Result<Winner, RaceError> {
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut reason = io::Error::from(Errno::EADDRNOTAVAIL);
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut waiting = addresses.iter();
    loop {
        let next = waiting.next();
        match next.map(|address| start(*address)) {
            Some(Ok(attempt)) => attempts.push(attempt),
            Some(Err(error)) => {
                reason = better_reason(reason, error);
                continue;
            }
            None if attempts.is_empty() => return Err(RaceError::Failed(reason)),
            None => {}
        }
        let until = match waiting.len() {
            0 => end,
            _ => Some(end.map_or(Instant::now() + ATTEMPT_DELAY, |end| {
                end.min(Instant::now() + ATTEMPT_DELAY)
            })),
        };
        match wait(&mut attempts, until) {
            Ok(Some(winner)) => return Ok(winner),
            Ok(None) => {}
            Err(error) => reason = better_reason(reason, error),
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            return Err(RaceError::TimedOut);
        }
    }
}

/// Returns the reason to report. That a server refuses connections says more than that this host has no
/// route for the other family.
fn better_reason(earlier: io::Error, later: io::Error) -> io::Error {
    let is_local = |error: &io::Error| {
        let code = error.raw_os_error().map(Errno::from_raw);
        matches!(
            code,
            Some(Errno::ENETUNREACH | Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT | Errno::EINVAL)
        )
    };
    if is_local(&later) && !is_local(&earlier) { earlier } else { later }
}

/// Begins to connect.
fn start(address: SocketAddr) -> io::Result<Attempt> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    let connected = match address {
        SocketAddr::V4(address) => connect(fd.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => connect(fd.as_raw_fd(), &SockaddrIn6::from(address)),
    };
    match connected {
        // After a signal, the connection is still being opened (connect(2)).
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Attempt { address, stream: TcpStream::from(fd) })
}

/// Waits for an attempt to end, at most until `until`. Removes the attempts that have ended, and returns the
/// one that succeeded. Fails if one failed and none succeeded.
fn wait(attempts: &mut Vec<Attempt>, until: Option<Instant>) -> io::Result<Option<Winner>> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        // At least a millisecond, because poll(2) counts no shorter time.
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut polled: Vec<PollFd<'_>> = attempts
            .iter()
            .map(|attempt| PollFd::new(attempt.stream.as_fd(), PollFlags::POLLOUT))
            .collect();
        match poll(&mut polled, timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ended: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(polled);
        return finish(attempts, &ended);
    }
}

/// Removes the attempts that have ended. Returns the first that succeeded: if several did meanwhile, it is the
/// one that is preferred.
fn finish(attempts: &mut Vec<Attempt>, ended: &[bool]) -> io::Result<Option<Winner>> {
    let mut error = None;
    let mut waiting = Vec::new();
    for (index, Attempt { address, stream }) in std::mem::take(attempts).into_iter().enumerate() {
        if ended.get(index) != Some(&true) {
            waiting.push(Attempt { address, stream });
            continue;
        }
        let result = match stream.take_error() {
            Ok(None) => stream.set_nonblocking(false),
            Ok(Some(error)) | Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                let unanswered = waiting.iter().map(|attempt| attempt.address).collect();
                return Ok(Some(Winner { address, stream, unanswered }));
            }
            Err(failed) => error = Some(failed),
        }
    }
    *attempts = waiting;
    error.map_or(Ok(None), Err)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(60));

    /// Returns an address of loopback on which nothing listens.
    fn closed(host: &str) -> SocketAddr {
        TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn connects_to_the_address_that_answers() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else {
                assert!(
                    host == "::1" && std::env::var("CI").is_err(),
                    "no loopback address {host}"
                );
                eprintln!("SKIPPED: this machine has no IPv6");
                continue;
            };
            let open = listener.local_addr().unwrap();
            for addresses in [
                vec![open],
                vec![closed("127.0.0.1"), open],
                vec![closed("127.0.0.1"), closed(host), closed("127.0.0.2"), open, closed(host)],
            ] {
                let since = Instant::now();
                let winner = first_to_answer(&addresses, LIMIT).ok().unwrap();
                assert_eq!((winner.address, winner.stream.peer_addr().unwrap()), (open, open));
                assert!(winner.unanswered.is_empty());
                assert!(since.elapsed() < Duration::from_secs(10));
            }
        }
    }

    #[test]
    fn fails_with_the_reason() {
        let addresses = [closed("127.0.0.1"), closed("127.0.0.2")];
        let Err(RaceError::Failed(error)) = first_to_answer(&addresses, LIMIT) else {
            panic!("connected to a closed port")
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(matches!(first_to_answer(&[], None), Err(RaceError::Failed(_))));
        // An address that this host cannot use hides nothing, wherever it is. Port 1 is closed.
        let unusable = "[fe80::1]:1".parse().unwrap();
        for addresses in [[addresses[0], unusable], [unusable, addresses[0]]] {
            let Err(RaceError::Failed(error)) = first_to_answer(&addresses, LIMIT) else {
                panic!("connected to a closed port")
            };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    /// Several addresses may answer before the process runs again.
    #[test]
    fn prefers_the_first_of_those_that_answered() {
        let listeners = ["127.0.0.1:0"; 3].map(|address| TcpListener::bind(address).unwrap());
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let mut attempts: Vec<Attempt> =
            addresses.iter().map(|address| start(*address).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(50));
        let winner = finish(&mut attempts, &[false, true, true]).unwrap().unwrap();
        assert_eq!((winner.address, winner.unanswered), (addresses[1], vec![addresses[0]]));
        let mut attempts = vec![start(addresses[0]).unwrap(), start(addresses[1]).unwrap()];
        std::thread::sleep(Duration::from_millis(50));
        let winner = wait(&mut attempts, None).unwrap().unwrap();
        // An address that was tried later is not slower.
        assert_eq!((winner.address, winner.unanswered), (addresses[0], vec![]));
    }

    /// A listener whose queue is full drops further connections, like an address that does not answer.
    #[test]
    fn does_not_wait_for_an_address_that_does_not_answer() {
        use nix::sys::socket::{Backlog, bind, getsockname, listen};
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        listen(&fd, Backlog::new(0).unwrap()).unwrap();
        let bound: SockaddrIn = getsockname(fd.as_raw_fd()).unwrap();
        let dead = SocketAddr::from(([127, 0, 0, 1], bound.port()));
        let queued: Vec<Attempt> = (0..4).map(|_| start(dead).unwrap()).collect();
        std::thread::sleep(Duration::from_millis(50));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let since = Instant::now();
        let winner = first_to_answer(&[dead, open], LIMIT).ok().unwrap();
        assert_eq!(winner.address, open);
        assert_eq!(winner.unanswered, [dead]);
        let took = since.elapsed();
        assert!(took >= ATTEMPT_DELAY && took < Duration::from_secs(10), "{took:?}");

        let since = Instant::now();
        let limit = Some(Duration::from_millis(300));
        assert!(matches!(first_to_answer(&[dead, dead], limit), Err(RaceError::TimedOut)));
        assert!(since.elapsed() < Duration::from_secs(10));
        drop(queued);
    }
}
