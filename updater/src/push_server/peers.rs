//! Counts the connections of each peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of connections of each network, so that one peer cannot use all of them.
#[derive(Default)]
pub(super) struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// A connection of a peer, which counts until it is dropped.
pub(super) struct ConnectionSlot {
    peers: Arc<Peers>,
    network: IpAddr,
}

impl Peers {
    /// Counts one more connection of `peer`. Returns `None` if it has `max` already.
    pub(super) fn acquire(self: &Arc<Self>, peer: IpAddr, max: usize) -> Option<ConnectionSlot> {
        let network = network(peer);
        let mut counts = self.counts();
        let count = counts.entry(network).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { peers: self.clone(), network })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        match counts.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.network),
        }
    }
}

/// Returns the address itself for IPv4. For IPv6 it is the /64 network, all of which one peer may have.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_connections_of_each_network() {
        let peers = Arc::new(Peers::default());
        let acquire = |peer: &str| peers.acquire(peer.parse().unwrap(), 2);
        let (one, two) = (acquire("192.0.2.1"), acquire("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some() && acquire("192.0.2.1").is_none());
        assert!(acquire("192.0.2.2").is_some());
        drop(two);
        assert!(acquire("192.0.2.1").is_some());
        drop(one);
        assert!(peers.counts().is_empty());
        let v6 = (acquire("2001:db8::1"), acquire("2001:db8::ffff:2"));
        assert!(v6.0.is_some() && v6.1.is_some());
        assert!(acquire("2001:db8::3").is_none() && acquire("2001:db8:0:1::1").is_some());
    }
}
