//! Clients, files and sinks for the network tests.

use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::{Artifact, KeyRing, Role};
use updater::candidate::{self, Candidate, CandidateError, CandidateRequest};
use updater::cdn::{Cdn, ResumableSink, Retries, Sink, Timeouts};
use updater::config::Network;

use crate::world::{now, sha256, target};

/// Short pauses between attempts, and timeouts that are long enough for a slow machine.
pub(crate) fn timeouts() -> Timeouts {
    let retries = Retries {
        attempts: 5,
        first_pause: Duration::from_millis(1),
        max_pause: Duration::from_millis(5),
        timeout: Duration::from_secs(60),
    };
    let long = Duration::from_secs(30);
    Timeouts {
        connect: long,
        stall: long,
        manifest: long,
        manifest_retries: retries,
        download_retries: retries,
    }
}

/// A client with short pauses that ignores the environment.
pub(crate) fn client(network: &Network) -> Cdn {
    Cdn::with_environment(network, &[], timeouts(), &|_| None).unwrap()
}

/// A client without a proxy, certificates or a rate limit.
pub(crate) fn plain() -> Cdn {
    client(&Network::default())
}

/// A client with this stall timeout.
pub(crate) fn with_stall_timeout(stall: Duration) -> Cdn {
    let timeouts = Timeouts { stall, ..timeouts() };
    Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap()
}

/// Returns bytes that do not repeat, so that misplaced parts of a file are noticed.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

pub(crate) fn artifact(content: &[u8]) -> Artifact {
    Artifact {
        role: Role::Initrd,
        name: "x".into(),
        size: content.len() as u64,
        sha256: sha256(content),
        url: "x".into(),
        deltas: Vec::new(),
    }
}

/// A sink in memory.
#[derive(Default)]
pub(crate) struct Memory {
    pub bytes: Vec<u8>,
    pub restarts: usize,
    pub is_full: bool,
}

impl Memory {
    pub(crate) fn with(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), ..Self::default() }
    }
}

impl Sink for Memory {
    fn restart(&mut self) -> io::Result<()> {
        self.bytes.clear();
        self.restarts += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend(bytes);
        Ok(())
    }
}

impl ResumableSink for Memory {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> String {
        sha256(&self.bytes)
    }
}

/// The parts of a candidate request that tests vary.
pub(crate) struct Query<'a> {
    pub keys: KeyRing,
    pub newest: Option<u64>,
    pub cache: Option<&'a Path>,
}

impl Query<'_> {
    pub(crate) fn fetch(&self, cdn: &Cdn, bases: &[String]) -> Result<Candidate, CandidateError> {
        let Self { keys, newest, cache } = self;
        let (newest, cache, target) = (*newest, *cache, target());
        candidate::fetch(
            cdn,
            &CandidateRequest { bases, target: &target, keys, now: now(), newest, cache },
        )
    }
}
