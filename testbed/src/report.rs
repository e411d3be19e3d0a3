//! What a scenario did, as events while it goes on and as a report at its end.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::accel::Choice;

/// The steps of the scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The manifest's signature, the artifacts' digests.
    VerifyArtifacts,
    /// Host tools, accelerator, a copy of the disk, the CDN.
    PrepareBench,
    /// From power on to the first answer.
    BootUefi,
    /// The checks, in slot `a`.
    ValidateUefi,
    /// Kernel and initrd of slot `a` are deleted.
    DeleteSlot,
    /// The updater fetches the release and reboots.
    AutoUpdate,
    /// The checks, in slot `b`.
    ValidateUpdate,
    /// From the order to the end of the VM.
    PowerOff,
    /// The same disk, by BIOS.
    BootBios,
    /// The checks, in slot `b`.
    ValidateBios,
    /// From the order to the end of the VM.
    PowerOffBios,
    /// Releases that the scenario updates to.
    DeriveReleases,
    /// From power on to the first answer.
    Boot,
    /// From the order to update to the confirmation of the new release.
    Update,
    /// From the order to go back to the confirmation of the release before.
    RollBack,
    /// An update, until the machine is reset in the middle of it.
    CrashUpdate,
    /// An update after that, until it is confirmed.
    UpdateAfterCrash,
    /// The machine is killed in the middle of an update, again and again.
    Kill,
    /// A release is offered whose kernel panics.
    Panic,
    /// A release is offered whose initrd is cut short.
    Truncated,
    /// A release is offered that boots with a failed unit.
    Unhealthy,
    /// A release is offered in which systemd stops in the middle of the boot.
    Hang,
    /// What a power cut could have left of the recorded writes is judged.
    Replay,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::VerifyArtifacts => "verify manifest and artifacts",
            Self::PrepareBench => "prepare disk copy, CDN, accelerator",
            Self::BootUefi => "boot by UEFI Secure Boot",
            Self::ValidateUefi => "validate slot a",
            Self::DeleteSlot => "delete kernel and initrd of slot a",
            Self::AutoUpdate => "auto-update and reboot",
            Self::ValidateUpdate => "validate slot b",
            Self::PowerOff => "power off",
            Self::BootBios => "boot by BIOS",
            Self::ValidateBios => "validate slot b under BIOS",
            Self::PowerOffBios => "power off again",
            Self::DeriveReleases => "make newer releases",
            Self::Boot => "boot",
            Self::Update => "update, reboot and confirm",
            Self::RollBack => "roll back, reboot and confirm",
            Self::CrashUpdate => "update, crash in the middle",
            Self::UpdateAfterCrash => "update again, reboot and confirm",
            Self::Kill => "update and be killed",
            Self::Panic => "survive a kernel that panics",
            Self::Truncated => "survive an initrd that is cut short",
            Self::Unhealthy => "survive a unit that fails",
            Self::Hang => "survive a systemd that hangs",
            Self::Replay => "judge crash states",
        })
    }
}

/// What happens in a scenario, as it happens.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A step begins.
    Started(Step),
    /// A sign of life within a step: the console's last line, say.
    Progress(Step, &'a str),
    /// A step has succeeded.
    Finished(Step, Duration),
}

/// A step that has succeeded.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// Which one.
    pub step: Step,
    /// How long it took.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub took: Duration,
    /// What is worth knowing about it.
    pub note: String,
}

/// What a scenario did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The accelerator, once it is chosen.
    pub accel: Option<Choice>,
    /// The steps that have succeeded, in order.
    pub steps: Vec<Done>,
    /// Where the logs of the VMs are.
    pub logs: PathBuf,
}

impl Report {
    /// The time of all steps.
    pub fn total(&self) -> Duration {
        self.steps.iter().map(|done| done.took).sum()
    }
}

/// A table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Done { step, took, note } in &self.steps {
            writeln!(f, "{step:<36} {:>7.1} s  {note}", took.as_secs_f32())?;
        }
        writeln!(f, "{:<36} {:>7.1} s", "total", self.total().as_secs_f32())?;
        if let Some(accel) = &self.accel {
            writeln!(f, "accelerator  {accel}")?;
        }
        write!(f, "logs         {}", self.logs.display())
    }
}

/// A time as seconds, with one decimal, for serde.
pub(crate) fn seconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((took.as_secs_f64() * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_the_json_has_seconds() {
        let took = Duration::from_millis(61_250);
        let done = |step| Done { step, took, note: "15 checks".into() };
        let report = Report {
            accel: None,
            steps: vec![done(Step::BootUefi), done(Step::ValidateUefi)],
            logs: "logs".into(),
        };
        let table = report.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0].find(" s  15"), lines[1].find(" s  15"), "{table}");
        assert!(lines[2].contains("122.5 s"), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["steps"][0]["step"], "boot-uefi");
        assert_eq!(json["steps"][0]["seconds"], 61.3);
    }
}
