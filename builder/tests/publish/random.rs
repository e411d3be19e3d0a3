//! Random numbers from a seed, so that a failure can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator: SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    /// Returns a generator with the seed in the variable `ETCHAOS_TEST_SEED`, or with a new one. Prints
    /// the seed.
    pub(crate) fn new() -> Self {
        let given = std::env::var("ETCHAOS_TEST_SEED").ok();
        let new = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed = given.map_or_else(new, |seed| seed.parse().unwrap());
        println!("ETCHAOS_TEST_SEED={seed}");
        Self(seed)
    }

    /// Returns another generator.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns a number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
