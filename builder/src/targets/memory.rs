//! The memory that a target needs.

use crate::publish::deltas::DELTA_MEMORY;

/// What a command does for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Stages 1 to 4.
    Build,
    /// Stage 5.
    Test,
    /// Stage 6.
    Publish,
    /// All stages.
    Run,
}

const MIB: u64 = 1 << 20;

/// The memory of a build, in bytes, and what each processor adds: the compilers of the updater and mksquashfs run a
/// thread or a process for each. Measured on two processors: 700 MiB.
const BUILD: u64 = 512 * MIB;
const BUILD_PROCESSOR: u64 = 384 * MIB;
/// The memory of a virtual machine beyond that of its guest, in bytes. QEMU keeps at most 1 GiB of translated code.
const MACHINE: u64 = 1024 * MIB;

impl Work {
    /// Returns the memory that a target needs at most, in bytes, on a machine with this number of processors.
    pub(super) fn memory(self, processors: usize) -> u64 {
        let processors = u64::try_from(processors).unwrap_or(u64::MAX);
        let build = BUILD.saturating_add(BUILD_PROCESSOR.saturating_mul(processors));
        // A second delta is made at the same time only if there is memory for it.
        let deltas = DELTA_MEMORY;
        let test = u64::from(testbed::Options::MEMORY) * MIB + MACHINE;
        match self {
            Self::Build => build.max(deltas),
            Self::Test => test,
            Self::Publish => deltas,
            // One stage after the other.
            Self::Run => build.max(test).max(deltas),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_needs_as_much_as_its_largest_stage() {
        for processors in [1, 2, 64, usize::MAX] {
            let stages = [Work::Build, Work::Test, Work::Publish];
            let largest = stages.map(|work| work.memory(processors)).into_iter().max();
            assert_eq!(Some(Work::Run.memory(processors)), largest);
        }
        assert!(Work::Test.memory(2) > u64::from(testbed::Options::MEMORY) * MIB);
        assert!(Work::Build.memory(2) > 700 * MIB && Work::Build.memory(64) > 16 << 30);
    }
}
