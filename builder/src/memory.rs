//! The memory of this machine.

use std::fs;

use anyhow::{Context, Result};

/// Returns the memory that new processes can use without swapping, in bytes.
pub(crate) fn available() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    parse(&text).with_context(|| format!("{path} has no valid line \"MemAvailable\""))
}

/// Parses `MemAvailable` of proc_meminfo(5), which is in KiB.
fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_available_memory() {
        let text = "MemTotal:       24683944 kB\nMemAvailable:   22691840 kB\n";
        assert_eq!(parse(text), Some(22_691_840 * 1024));
        for invalid in ["", "MemAvailable: kB", "MemAvailable: 1 MB", "MemAvailable: -1 kB"] {
            assert_eq!(parse(invalid), None, "{invalid:?}");
        }
        assert_eq!(parse(&format!("MemAvailable: {} kB", u64::MAX)), None);
        assert!(available().unwrap() > 1 << 20);
    }
}
