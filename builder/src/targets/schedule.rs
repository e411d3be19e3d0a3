//! Decides which targets run at the same time.

use std::collections::BTreeMap;

/// What the targets that run at the same time may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The number of targets; at least one.
    pub jobs: usize,
    /// The memory, in bytes.
    pub memory: u64,
}

/// The targets that wait and those that run, by their positions in the list of targets.
#[derive(Debug)]
pub(super) struct Schedule {
    limits: Limits,
    /// The memory that each target needs, in bytes.
    waiting: BTreeMap<usize, u64>,
    running: BTreeMap<usize, u64>,
}

impl Schedule {
    /// Returns a schedule of targets that wait. `needs` is the memory of each, in bytes.
    pub(super) fn new(limits: Limits, needs: &[u64]) -> Self {
        let waiting = needs.iter().copied().enumerate().collect();
        Self { limits, waiting, running: BTreeMap::new() }
    }

    /// Returns the next target to start, which counts as running from now on, or `None` if none may start until
    /// another one ends.
    ///
    /// It is the first one that the limits allow. If no target runs, the first one starts even if it needs more
    /// memory than there is: it may succeed, and waiting would not help.
    pub(super) fn start(&mut self) -> Option<usize> {
        let used: u64 = self.running.values().sum();
        let fits = |need: u64| {
            self.running.is_empty()
                || (self.running.len() < self.limits.jobs
                    && used.saturating_add(need) <= self.limits.memory)
        };
        let (index, need) =
            self.waiting.iter().map(|(i, need)| (*i, *need)).find(|(_, n)| fits(*n))?;
        self.waiting.remove(&index);
        self.running.insert(index, need);
        Some(index)
    }

    /// Records that a target ended.
    pub(super) fn end(&mut self, index: usize) {
        self.running.remove(&index);
    }

    /// Returns whether a target runs.
    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn limits(jobs: usize, gibibytes: u64) -> Limits {
        Limits { jobs, memory: gibibytes * GIB }
    }

    fn start_all(schedule: &mut Schedule) -> Vec<usize> {
        std::iter::from_fn(|| schedule.start()).collect()
    }

    #[test]
    fn starts_as_many_as_jobs_and_memory_allow() {
        let needs = [3 * GIB; 4];
        for (limits, expected) in [
            (limits(8, 100), &[0, 1, 2, 3][..]),
            (limits(2, 100), &[0, 1]),
            (limits(8, 9), &[0, 1, 2]),
            (limits(8, 8), &[0, 1]),
            (limits(8, 2), &[0]),
        ] {
            let mut schedule = Schedule::new(limits, &needs);
            assert_eq!(start_all(&mut schedule), expected, "{limits:?}");
        }
    }

    #[test]
    fn a_small_target_does_not_wait_for_a_large_one() {
        let mut schedule = Schedule::new(limits(3, 5), &[3 * GIB, 4 * GIB, 2 * GIB]);
        assert_eq!(start_all(&mut schedule), [0, 2]);
        schedule.end(2);
        assert_eq!(schedule.start(), None);
        schedule.end(0);
        assert_eq!(start_all(&mut schedule), [1]);
        schedule.end(1);
        assert!(!schedule.is_running() && schedule.start().is_none());
    }

    proptest! {
        #[test]
        fn never_exceeds_limits_and_ends(
            jobs in 1_usize..6,
            memory in 0_u64..20,
            needs in prop::collection::vec(0_u64..12, 0..12),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 12),
        ) {
            let mut schedule = Schedule::new(Limits { jobs, memory }, &needs);
            let (mut running, mut started) = (Vec::<usize>::new(), Vec::new());
            for end in ends {
                while let Some(index) = schedule.start() {
                    running.push(index);
                    started.push(index);
                    let used: u64 = running.iter().map(|index| needs[*index]).sum();
                    prop_assert!(running.len() <= jobs);
                    prop_assert!(used <= memory || running.len() == 1, "{used} of {memory}");
                }
                prop_assert_eq!(schedule.is_running(), !running.is_empty());
                if running.is_empty() {
                    break;
                }
                schedule.end(running.swap_remove(end.index(running.len())));
            }
            started.sort_unstable();
            prop_assert_eq!(started, (0..needs.len()).collect::<Vec<_>>());
        }
    }
}
