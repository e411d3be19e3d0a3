//! The time of a boot by phase, and the memory that the system uses after it.
//!
//! Firmware and boot loader are measured from outside, kernel and userspace by systemd in the guest.
//! The uptime of the guest connects both: the kernel started that long before the answer arrived.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::seconds;

/// The figures of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootFigures {
    /// The name of the boot in the file names of logs, such as `uefi`.
    pub boot: String,
    /// Time from power-on until the firmware starts the boot loader.
    #[serde(with = "seconds::optional", rename = "firmwareSeconds")]
    pub firmware: Option<Duration>,
    /// Time from there until the clock of the kernel starts. The kernel has been decompressed by then.
    #[serde(with = "seconds::optional", rename = "bootLoaderSeconds")]
    pub boot_loader: Option<Duration>,
    /// Time from there until systemd starts. The early init has mounted `/usr` by then.
    #[serde(with = "seconds", rename = "kernelSeconds")]
    pub kernel: Duration,
    /// Time from there until systemd has started all units.
    #[serde(with = "seconds", rename = "userspaceSeconds")]
    pub userspace: Duration,
    /// Memory that is not available to programs after the boot, in MiB. It includes the root file system
    /// and the initrd's `/usr`, which are in memory.
    #[serde(rename = "memoryUsedMiB")]
    pub memory_used: u64,
    /// Memory that the kernel manages, in MiB.
    #[serde(rename = "memoryMiB")]
    pub memory: u64,
}

/// What a running guest reports about its boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The time since the kernel started.
    pub uptime: Duration,
    /// The start of systemd, since the start of the kernel.
    userspace: Duration,
    /// The end of the boot, since the start of the kernel.
    finished: Duration,
    memory: u64,
    memory_available: u64,
}

impl Answer {
    /// Parses the output of [`actions::measure`](crate::actions::measure): lines of the form
    /// `NAME=NUMBER`. Returns `None` if the boot has not finished.
    ///
    /// # Errors
    /// Fails with the name of a value that is missing or not a valid number.
    pub(crate) fn parse(output: &str) -> Result<Option<Self>, &'static str> {
        let find = |name: &'static str| {
            let mut lines = output.lines().filter_map(|line| line.split_once('='));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim()).ok_or(name)
        };
        let number = |name| find(name)?.parse::<u64>().map_err(|_| name);
        let uptime = find("Uptime")?.parse().map(Duration::try_from_secs_f64);
        let answer = Self {
            uptime: uptime.map_err(|_| "Uptime")?.map_err(|_| "Uptime")?,
            userspace: Duration::from_micros(number("UserspaceTimestampMonotonic")?),
            finished: Duration::from_micros(number("FinishTimestampMonotonic")?),
            memory: number("MemTotal")?,
            memory_available: number("MemAvailable")?,
        };
        Ok((!answer.finished.is_zero()).then_some(answer))
    }

    /// Returns the figures of a boot in which the firmware took `firmware`, if that is known, and the
    /// kernel started `kernel_start` after power-on.
    pub(crate) fn figures(
        self,
        boot: &str,
        firmware: Option<Duration>,
        kernel_start: Duration,
    ) -> BootFigures {
        let mebibytes = |kibibytes: u64| kibibytes >> 10;
        BootFigures {
            boot: boot.to_owned(),
            firmware,
            boot_loader: firmware.map(|firmware| kernel_start.saturating_sub(firmware)),
            kernel: self.userspace,
            userspace: self.finished.saturating_sub(self.userspace),
            memory_used: mebibytes(self.memory.saturating_sub(self.memory_available)),
            memory: mebibytes(self.memory),
        }
    }
}

impl BootFigures {
    /// The heading of a table of figures.
    pub const HEADING: &str =
        "boot         firmware  boot loader    kernel  userspace  memory used";
}

/// Formats the figures as a line of a table.
impl fmt::Display for BootFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: Option<Duration>| {
            time.map_or("?".to_owned(), |time| format!("{:.1} s", time.as_secs_f32()))
        };
        let Self { boot, memory_used, memory, .. } = self;
        let (firmware, boot_loader) = (time(self.firmware), time(self.boot_loader));
        let (kernel, userspace) = (time(Some(self.kernel)), time(Some(self.userspace)));
        write!(f, "{boot:<10} {firmware:>10} {boot_loader:>12} {kernel:>9} {userspace:>10}")?;
        write!(f, "  {memory_used} of {memory} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "UserspaceTimestampMonotonic=5250000\nFinishTimestampMonotonic=31500000\n\
        MemTotal=2014336\nMemAvailable=1409024\nUptime=40.5\n";

    #[test]
    fn splits_boot_into_phases() {
        let answer = Answer::parse(OUTPUT).unwrap().unwrap();
        assert_eq!(answer.uptime, Duration::from_millis(40_500));
        let firmware = Some(Duration::from_millis(4100));
        let figures = answer.figures("uefi", firmware, Duration::from_millis(16_400));
        let json = serde_json::to_value(&figures).unwrap();
        let expected = serde_json::json!({
            "boot": "uefi", "firmwareSeconds": 4.1, "bootLoaderSeconds": 12.3, "kernelSeconds": 5.3,
            "userspaceSeconds": 26.3, "memoryUsedMiB": 591, "memoryMiB": 1967,
        });
        assert_eq!(json, expected);
        let parsed: BootFigures = serde_json::from_value(json).unwrap();
        assert_eq!(serde_json::to_value(&parsed).unwrap(), expected);
        // Every value ends in the column of its heading.
        let line = figures.to_string();
        for (heading, value) in
            [("firmware", "4.1 s"), ("boot loader", "12.3 s"), ("kernel", "5.2 s")]
        {
            let end = |text: &str, part: &str| text.find(part).unwrap() + part.len();
            assert_eq!(end(BootFigures::HEADING, heading), end(&line, value), "{line}");
        }
        assert!(line.ends_with("591 of 1967 MiB"), "{line}");
    }

    #[test]
    fn leaves_out_phases_that_the_firmware_did_not_log() {
        let answer = Answer::parse(OUTPUT).unwrap().unwrap();
        let figures = answer.figures("bios", None, Duration::from_secs(16));
        let json = serde_json::to_value(&figures).unwrap();
        assert!(json["firmwareSeconds"].is_null() && json["bootLoaderSeconds"].is_null());
        assert!(figures.to_string().contains('?'), "{figures}");
        assert_eq!(serde_json::from_value::<BootFigures>(json).unwrap().firmware, None);
    }

    #[test]
    fn rejects_times_that_are_no_durations() {
        let answer = Answer::parse(OUTPUT).unwrap().unwrap();
        let figures = answer.figures("uefi", Some(Duration::ZERO), Duration::from_secs(16));
        for (name, value) in [("kernelSeconds", "-1"), ("firmwareSeconds", "1e300")] {
            let mut json = serde_json::to_value(&figures).unwrap();
            json[name] = serde_json::from_str(value).unwrap();
            assert!(serde_json::from_value::<BootFigures>(json).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn names_missing_and_invalid_values() {
        assert_eq!(Answer::parse(""), Err("Uptime"));
        let without = OUTPUT.replace("MemTotal", "Mem");
        assert_eq!(Answer::parse(&without), Err("MemTotal"));
        for uptime in ["-1", "inf", "NaN", "", "1e300"] {
            let changed = OUTPUT.replace("40.5", uptime);
            assert_eq!(Answer::parse(&changed), Err("Uptime"), "{uptime}");
        }
        let changed = OUTPUT.replace("5250000", "x");
        assert_eq!(Answer::parse(&changed), Err("UserspaceTimestampMonotonic"));
    }

    #[test]
    fn has_no_figures_before_the_boot_has_finished() {
        assert_eq!(Answer::parse(&OUTPUT.replace("31500000", "0")), Ok(None));
    }
}
