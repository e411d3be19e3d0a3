//! The progress of a scenario as events, and its result as a report.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::accel::Selection;
use crate::figures::BootFigures;
use crate::seconds;

/// A step of a scenario.
///
/// A scenario defines its own steps; the ones that several scenarios share are constants here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The name in JSON, in kebab case.
    name: &'static str,
    /// The name in tables and messages.
    title: &'static str,
}

impl Step {
    /// Checks the manifest's signature and the artifacts' digests.
    pub(crate) const VERIFY_ARTIFACTS: Self =
        Self::new("verify-artifacts", "verify manifest and artifacts");
    /// Derives the newer releases that the scenario offers.
    pub(crate) const DERIVE_RELEASES: Self = Self::new("derive-releases", "make newer releases");
    /// Copies the disk, starts the CDN and selects the accelerator.
    pub(crate) const PREPARE_ENVIRONMENT: Self =
        Self::new("prepare-environment", "prepare disk copy, CDN, accelerator");
    /// Boots the disk, from power-on to the first answer.
    pub(crate) const BOOT: Self = Self::new("boot", "boot");
    /// Updates the host, from the start of the update to the confirmation of the new release.
    pub(crate) const UPDATE: Self = Self::new("update", "update, reboot and confirm");
    /// Powers the guest off, until QEMU ends.
    pub(crate) const POWER_OFF: Self = Self::new("power-off", "power off");

    /// Defines a step with a name for JSON and a title for tables.
    pub(crate) const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title)
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// An event of a running scenario.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A step begins.
    Started(Step),
    /// Progress within a step, such as the last line of the console.
    Progress(Step, &'a str),
    /// A step has succeeded.
    Finished(Step, Duration),
}

/// A step that has succeeded.
#[derive(Debug, Clone, Serialize)]
pub struct CompletedStep {
    /// The step.
    pub step: Step,
    /// Its duration.
    #[serde(serialize_with = "seconds::serialize", rename = "seconds")]
    pub took: Duration,
    /// A note for the table.
    pub note: String,
}

/// The result of a scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The accelerator, once it is selected.
    pub accel: Option<Selection>,
    /// The steps that have succeeded, in order.
    pub steps: Vec<CompletedStep>,
    /// The parts that were skipped, each with the reason.
    pub skipped: Vec<String>,
    /// The figures of the boots that were measured.
    pub boots: Vec<BootFigures>,
    /// The directory with the logs of the VMs.
    pub logs: PathBuf,
}

impl Report {
    /// Returns the duration of all steps.
    pub fn total(&self) -> Duration {
        self.steps.iter().map(|step| step.took).sum()
    }
}

/// Formats the report as a table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CompletedStep { step, took, note } in &self.steps {
            writeln!(f, "{step:<36} {:>7.1} s  {note}", took.as_secs_f32())?;
        }
        writeln!(f, "{:<36} {:>7.1} s", "total", self.total().as_secs_f32())?;
        for reason in &self.skipped {
            writeln!(f, "skipped      {reason}")?;
        }
        if !self.boots.is_empty() {
            writeln!(f, "{}", BootFigures::HEADING)?;
        }
        for figures in &self.boots {
            writeln!(f, "{figures}")?;
        }
        if let Some(accel) = &self.accel {
            writeln!(f, "accelerator  {accel}")?;
        }
        write!(f, "logs         {}", self.logs.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_the_table_and_serializes_seconds() {
        let took = Duration::from_millis(61_250);
        let completed = |step| CompletedStep { step, took, note: "15 checks".into() };
        let report = Report {
            accel: None,
            steps: vec![completed(Step::BOOT), completed(Step::POWER_OFF)],
            skipped: vec!["boot by BIOS: arm64 has no BIOS".into()],
            boots: Vec::new(),
            logs: "logs".into(),
        };
        let table = report.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].find(" s  15"), lines[1].find(" s  15"), "{table}");
        assert!(lines[2].contains("122.5 s"), "{table}");
        assert_eq!(lines[3], "skipped      boot by BIOS: arm64 has no BIOS");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["steps"][0]["step"], "boot");
        assert_eq!(json["steps"][0]["seconds"], 61.3);
    }
}
