//! What the tests of the network have in common.

use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::{Artifact, KeyRing, Role};
use updater::candidate::{Candidate, CandidateError, Wanted, fetch};
use updater::cdn::{Cdn, Partial, Retries, Sink, Times};
use updater::config::Network;

use crate::world::{now, sha256, target};

/// Little time between two attempts, and enough of everything else for a slow machine.
pub fn times() -> Times {
    let retries = Retries {
        attempts: 5,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
        patience: Duration::from_secs(60),
    };
    let long = Duration::from_secs(30);
    Times {
        connect: long,
        stall: long,
        manifest: long,
        manifest_retries: retries,
        download_retries: retries,
    }
}

/// A client that is patient for milliseconds, and knows no environment.
pub fn client(network: &Network) -> Cdn {
    Cdn::with_environment(network, &[], times(), &|_| None).unwrap()
}

pub fn plain() -> Cdn {
    client(&Network::default())
}

/// A client to which a silence of this length is a stall.
pub fn hasty(stall: Duration) -> Cdn {
    let times = Times { stall, ..times() };
    Cdn::with_environment(&Network::default(), &[], times, &|_| None).unwrap()
}

/// Bytes that are the same nowhere else in the file.
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(length)
        .collect()
}

pub fn artifact(content: &[u8]) -> Artifact {
    Artifact {
        role: Role::Initrd,
        name: "x".into(),
        size: content.len() as u64,
        sha256: sha256(content),
        url: "x".into(),
    }
}

/// What came.
#[derive(Default)]
pub struct Memory {
    pub bytes: Vec<u8>,
    pub restarts: usize,
    pub is_full: bool,
}

impl Memory {
    pub fn with(bytes: &[u8]) -> Self {
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

impl Partial for Memory {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digest(&self) -> String {
        sha256(&self.bytes)
    }
}

/// Asks for a manifest as the updater does.
pub struct Asking<'a> {
    pub keys: KeyRing,
    pub newest: Option<u64>,
    pub cache: Option<&'a Path>,
}

impl Asking<'_> {
    pub fn ask(&self, cdn: &Cdn, bases: &[String]) -> Result<Candidate, CandidateError> {
        let Self { keys, newest, cache } = self;
        let (newest, cache, target) = (*newest, *cache, target());
        fetch(cdn, &Wanted { bases, target: &target, keys, now: now(), newest, cache })
    }
}
