//! The interface of a scenario to the command line.

use std::fmt::{self, Display};

use serde::Serialize;

use crate::args::ScenarioArgs;
use crate::artifacts::Artifacts;
use crate::cancel::Cancel;
use crate::firmware::Firmware;
use crate::scenario::{Options, ScenarioError, Steps};

/// A scenario, which is at the same time the options of its subcommand.
pub(crate) trait Scenario: clap::Args {
    /// What the scenario finds, besides the report of its steps.
    type Findings: Display + Serialize;

    /// Returns the options that every scenario has.
    fn common(&self) -> &ScenarioArgs;

    /// Returns the options of a run.
    fn options(&self, cancel: Cancel) -> Result<Options, String> {
        self.common().options(cancel)
    }

    /// Returns the firmware of all boots, if the scenario uses only one. The scenario is skipped if the
    /// target has no such firmware.
    fn firmware(&self) -> Option<Firmware> {
        None
    }

    /// Runs the steps of the scenario, after the one that verifies the artifacts.
    fn play(
        &self,
        artifacts: &Artifacts,
        steps: &mut Steps<'_>,
    ) -> Result<Self::Findings, ScenarioError>;

    /// Decides whether the findings are a success. They are printed in either case.
    fn judge(_findings: &Self::Findings) -> Result<(), String> {
        Ok(())
    }
}

/// The findings of a scenario whose only result is that all steps succeeded.
#[derive(Serialize)]
pub(crate) struct Passed;

impl Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("passed\n")
    }
}
