//! How many connections each peer has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by network, so that one peer cannot take all there are.
#[derive(Default)]
pub struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a peer; gives its place back when dropped.
pub struct Place {
    peers: Arc<Peers>,
    network: IpAddr,
}

impl Peers {
    /// A place for one more connection of `peer`, unless it has `max`.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, max: usize) -> Option<Place> {
        let network = network(peer);
        let mut counts = self.counts();
        let count = counts.entry(network).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), network })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        match counts.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.network),
        }
    }
}

/// Who has one address of IPv6 has the whole /64.
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
    fn a_network_has_so_many_places_and_gives_them_back() {
        let peers = Arc::new(Peers::default());
        let admit = |peer: &str| peers.admit(peer.parse().unwrap(), 2);
        let (one, two) = (admit("192.0.2.1"), admit("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some() && admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        drop(two);
        assert!(admit("192.0.2.1").is_some());
        drop(one);
        assert!(peers.counts().is_empty());
        let v6 = (admit("2001:db8::1"), admit("2001:db8::ffff:2"));
        assert!(v6.0.is_some() && v6.1.is_some());
        assert!(admit("2001:db8::3").is_none() && admit("2001:db8:0:1::1").is_some());
    }
}
