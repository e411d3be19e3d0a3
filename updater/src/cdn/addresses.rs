//! The order in which the addresses of a host are tried, and what connections and look-ups showed about them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The number of addresses that are remembered. A run needs a few; name servers could send any number.
const REMEMBERED_MAX: usize = 256;

/// How long a look-up may take before each family is looked up by itself, and how much later than the other one
/// an answer for one family may be. Local name servers answer within some milliseconds, others in a tenth of a
/// second.
const LOOK_UP_DELAY: Duration = Duration::from_millis(300);
/// The same, once an answer was missing (RFC 8305 section 8).
const LATE_DELAY: Duration = Duration::from_millis(50);

/// What is known about the addresses that a client connected to. All connections of a client share it, so
/// an address that does not answer costs time once per run.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    known: HashMap<SocketAddr, Rank>,
    /// The address of the last connection.
    last: Option<SocketAddr>,
    /// Whether IPv6 (`true`) or IPv4 is tried first, because an address of the other did not answer.
    first_family: Option<bool>,
    names: Names,
}

/// What is known about the name server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Names {
    #[default]
    Unknown,
    /// It did not answer for one of the families in time.
    AreLate,
    /// The addresses that it sent in time did not work.
    AreIncomplete,
}

/// How long the parts of a look-up are waited for. `None` stands for the timeout of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// The time until each family is looked up by itself.
    pub(super) first: Option<Duration>,
    /// The time that the answer for one family may be later than the other.
    pub(super) other: Option<Duration>,
}

/// How well an address works. Addresses with a lower rank are tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    Unknown,
    Bad,
}

impl Addresses {
    /// Returns the addresses of a host in the order in which they are tried: those that worked before, then
    /// the families in turn as RFC 8305 section 4 says, and last those that did not work.
    pub(super) fn ordered(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let memory = self.memory();
        let mut ordered = interleaved(addresses, memory.first_family);
        ordered.sort_by_key(|address| memory.rank(address));
        ordered
    }

    /// Remembers that a connection was made to `good`, while `slow` did not answer before.
    pub(super) fn connected(&self, good: SocketAddr, slow: &[SocketAddr]) {
        let mut memory = self.memory();
        for address in slow {
            memory.set(*address, Rank::Bad);
        }
        if slow.iter().any(|address| address.is_ipv6() != good.is_ipv6()) {
            memory.first_family = Some(good.is_ipv6());
        }
        memory.set(good, Rank::Good);
        memory.last = Some(good);
        if memory.names == Names::AreIncomplete {
            memory.names = Names::Unknown;
        }
    }

    /// Remembers that none of these addresses answered.
    pub(super) fn unanswered(&self, addresses: &[SocketAddr]) {
        let mut memory = self.memory();
        for address in addresses {
            memory.set(*address, Rank::Bad);
        }
    }

    /// Begins a request. [`distrust_last`](Self::distrust_last) then concerns only its own connections.
    pub(super) fn begin(&self) {
        self.memory().last = None;
    }

    /// Remembers that the last connection did not serve its purpose, so that another address of the host is
    /// tried before it.
    pub(super) fn distrust_last(&self) {
        let mut memory = self.memory();
        if memory.names == Names::AreLate {
            memory.names = Names::AreIncomplete;
        }
        if let Some(last) = memory.last.take() {
            memory.set(last, Rank::Bad);
        }
    }

    /// Remembers that a name server did not answer for one of the families in time.
    pub(super) fn names_are_late(&self) {
        self.memory().names = Names::AreLate;
    }

    /// Returns how long the next look-up waits.
    pub(super) fn patience(&self) -> Patience {
        let (first, other) = match self.memory().names {
            Names::Unknown => (Some(LOOK_UP_DELAY), Some(LOOK_UP_DELAY)),
            Names::AreLate => (Some(LATE_DELAY), Some(LATE_DELAY)),
            // Perhaps only the addresses of the late answer work.
            Names::AreIncomplete => (None, None),
        };
        Patience { first, other }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic in another thread cannot leave the memory in an invalid state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn rank(&self, address: &SocketAddr) -> Rank {
        self.known.get(address).copied().unwrap_or(Rank::Unknown)
    }

    fn set(&mut self, address: SocketAddr, rank: Rank) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.clear();
        }
        self.known.insert(address, rank);
    }
}

/// Returns the addresses with IPv6 and IPv4 in turn, each in the given order. The first family is
/// `is_ipv6_first`, or that of the first address.
fn interleaved(addresses: &[SocketAddr], is_ipv6_first: Option<bool>) -> Vec<SocketAddr> {
    let first = addresses.first().map(SocketAddr::is_ipv6);
    let first = is_ipv6_first.or(first).unwrap_or_default();
    let of = |is_first: bool| {
        addresses.iter().copied().filter(move |a| (a.is_ipv6() == first) == is_first)
    };
    let (mut own, mut other) = (of(true), of(false));
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(own.next().into_iter().chain(other.next()));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v6(n: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 80))
    }

    fn v4(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 80))
    }

    #[test]
    fn tries_families_in_turn() {
        let found = [v6(1), v6(2), v6(3), v4(1), v4(2)];
        assert_eq!(interleaved(&found, None), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(interleaved(&found, Some(false)), [v4(1), v6(1), v4(2), v6(2), v6(3)]);
        assert_eq!(interleaved(&[v4(1), v6(1)], None), [v4(1), v6(1)]);
        assert_eq!(interleaved(&[v4(1)], Some(true)), [v4(1)]);
        assert!(interleaved(&[], None).is_empty());
    }

    #[test]
    fn remembers_what_worked() {
        let addresses = Addresses::default();
        let host = [v6(1), v6(2), v4(1), v4(2)];
        assert_eq!(addresses.ordered(&host), [v6(1), v4(1), v6(2), v4(2)]);
        addresses.connected(v4(1), &[v6(1)]);
        assert_eq!(addresses.ordered(&host), [v4(1), v4(2), v6(2), v6(1)]);
        // The other family is tried first for other hosts too.
        assert_eq!(addresses.ordered(&[v6(7), v4(7)]), [v4(7), v6(7)]);
        // A connection that turns out to be useless moves to the end.
        addresses.distrust_last();
        assert_eq!(addresses.ordered(&host).first(), Some(&v4(2)));
        addresses.distrust_last();
        addresses.connected(v4(2), &[]);
        assert_eq!(addresses.ordered(&host).first(), Some(&v4(2)));
        // A request that made no connection says nothing about the one before.
        addresses.begin();
        addresses.distrust_last();
        assert_eq!(addresses.ordered(&host).first(), Some(&v4(2)));
        // An address that worked is not kept once it no longer answers.
        addresses.unanswered(&[v4(2), v4(1), v6(1)]);
        assert_eq!(addresses.ordered(&host).first(), Some(&v6(2)));
    }

    #[test]
    fn waits_for_late_names_only_if_others_fail() {
        let addresses = Addresses::default();
        let waits = |addresses: &Addresses| addresses.patience().other;
        assert_eq!(waits(&addresses), Some(LOOK_UP_DELAY));
        addresses.names_are_late();
        assert_eq!(waits(&addresses), Some(LATE_DELAY));
        addresses.connected(v4(1), &[]);
        assert_eq!(waits(&addresses), Some(LATE_DELAY));
        addresses.distrust_last();
        assert_eq!(addresses.patience(), Patience { first: None, other: None });
        addresses.connected(v6(1), &[]);
        assert_eq!(waits(&addresses), Some(LOOK_UP_DELAY));
    }

    #[test]
    fn tries_other_addresses_of_a_long_list_after_a_failure() {
        let addresses = Addresses::default();
        let host: Vec<SocketAddr> = (0..100).map(v4).collect();
        let mut tried = Vec::new();
        for _ in 0..7 {
            let next: Vec<SocketAddr> = addresses.ordered(&host).into_iter().take(16).collect();
            addresses.unanswered(&next);
            tried.extend(next);
        }
        assert!(host.iter().all(|address| tried.contains(address)));
    }

    #[test]
    fn memory_is_bounded() {
        let addresses = Addresses::default();
        for n in 0..2000 {
            addresses.connected(v6(n), &[v6(n + 1)]);
        }
        assert!(addresses.memory().known.len() <= REMEMBERED_MAX);
    }

    proptest! {
        #[test]
        fn keeps_every_address(list in proptest::collection::vec((any::<bool>(), 0u8..9), 0..20), first in any::<Option<bool>>()) {
            let given: Vec<SocketAddr> =
                list.iter().map(|(is_v6, n)| if *is_v6 { v6((*n).into()) } else { v4(*n) }).collect();
            let mut ordered = interleaved(&given, first);
            let mut expected = given.clone();
            // With both families, the second address is of the other family.
            if given.iter().any(SocketAddr::is_ipv6) && given.iter().any(SocketAddr::is_ipv4) {
                prop_assert_ne!(ordered[0].is_ipv6(), ordered[1].is_ipv6());
            }
            ordered.sort();
            expected.sort();
            prop_assert_eq!(ordered, expected);
        }
    }
}
