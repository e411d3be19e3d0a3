//! Compares the figures of two releases.

use std::time::Duration;

use serde::Serialize;
use testbed::BootFigures;

use crate::figures::{Figures, Machine, StageTime};

/// The figures that both releases have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FigureChanges {
    /// The machine of the old figures.
    pub old: Machine,
    /// The machine of the new figures.
    pub new: Machine,
    /// The figures.
    pub values: Vec<Figure>,
}

/// A figure of both releases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// The name, such as `uefi: kernel`.
    pub name: String,
    /// The unit of both values.
    pub unit: Unit,
    /// The old value.
    pub from: f64,
    /// The new value.
    pub to: f64,
    /// The new value divided by the old one; absent if the old one is 0, or if only one of the two times
    /// includes work that came from the cache.
    pub ratio: Option<f64>,
}

/// A unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Unit {
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Mebibytes.
    MiB,
}

/// Returns the figures that both releases have.
pub(super) fn compare(old: &Figures, new: &Figures) -> FigureChanges {
    let stages = old.stages.iter().filter_map(|old| {
        let new = new.stages.iter().find(|new| new.name == old.name)?;
        Some(stage(old, new))
    });
    let boots = old.boots.iter().filter_map(|old| {
        let new = new.boots.iter().find(|new| new.boot == old.boot)?;
        Some(boot(old, new))
    });
    FigureChanges {
        old: old.machine.clone(),
        new: new.machine.clone(),
        values: stages.chain(boots.flatten()).collect(),
    }
}

fn stage(old: &StageTime, new: &StageTime) -> Figure {
    let figure = seconds(format!("stage {}", old.name), old.took, new.took);
    Figure { ratio: figure.ratio.filter(|_| old.cached == new.cached), ..figure }
}

fn boot(old: &BootFigures, new: &BootFigures) -> Vec<Figure> {
    let phases = [
        ("firmware", old.firmware, new.firmware),
        ("boot loader", old.boot_loader, new.boot_loader),
        ("kernel", Some(old.kernel), Some(new.kernel)),
        ("userspace", Some(old.userspace), Some(new.userspace)),
    ];
    let name = |part: &str| format!("boot {}: {part}", old.boot);
    let times =
        phases.into_iter().filter_map(|(phase, from, to)| Some(seconds(name(phase), from?, to?)));
    // A sum of two such values would not be exact in f64 either, and no host has so much memory.
    let mebibytes = |value: u64| value as f64;
    let (from, to) = (mebibytes(old.memory_used), mebibytes(new.memory_used));
    let memory = Figure::new(name("memory used"), Unit::MiB, from, to);
    times.chain([memory]).collect()
}

fn seconds(name: String, from: Duration, to: Duration) -> Figure {
    // A manifest has one decimal.
    let rounded = |time: Duration| (time.as_secs_f64() * 10.0).round() / 10.0;
    Figure::new(name, Unit::Seconds, rounded(from), rounded(to))
}

impl Figure {
    fn new(name: String, unit: Unit, from: f64, to: f64) -> Self {
        let ratio = (from > 0.0).then(|| (to / from * 100.0).round() / 100.0);
        Self { name, unit, from, to, ratio }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::example;
    use serde_json::{Value, json};

    fn compared(old: &Value, new: &Value) -> Value {
        let figures = |claim| Figures::from_json(claim).unwrap().unwrap();
        serde_json::to_value(compare(&figures(old), &figures(new))).unwrap()
    }

    #[test]
    fn compares_what_both_releases_have() {
        let (old, mut new) = (example(5.0), example(5.5));
        new["stages"][0]["name"] = "bootstrap".into();
        new["machine"]["cpus"] = 4.into();
        let found = compared(&old, &new);
        assert_eq!((&found["old"]["cpus"], &found["new"]["cpus"]), (&json!(2), &json!(4)));
        let value = |name: &str, unit: &str, from: f64, to: f64, ratio: f64| json!({"name": name, "unit": unit, "from": from, "to": to, "ratio": ratio});
        let expected = json!([
            value("stage test", "s", 300.0, 300.0, 1.0),
            value("boot uefi: firmware", "s", 4.1, 4.1, 1.0),
            value("boot uefi: kernel", "s", 5.0, 5.5, 1.1),
            value("boot uefi: userspace", "s", 26.3, 26.3, 1.0),
            value("boot uefi: memory used", "MiB", 591.0, 591.0, 1.0),
        ]);
        assert_eq!(found["values"], expected);
    }

    #[test]
    fn the_documented_example_is_what_is_printed() {
        let page = include_str!("../../../docs/json.md");
        let (_, documented) = page.split_once("```json figureChanges\n").unwrap();
        let (documented, _) = documented.split_once("```").unwrap();
        let mut found = compared(&example(5.3), &example(6.6));
        found["values"]
            .as_array_mut()
            .unwrap()
            .retain(|value| value["name"] == "boot uefi: kernel");
        assert_eq!(serde_json::from_str::<Value>(documented).unwrap(), found);
    }

    #[test]
    fn a_cached_time_has_no_ratio_to_a_computed_one() {
        let (old, mut new) = (example(0.0), example(5.5));
        new["stages"][0]["cached"] = true.into();
        let found = compared(&old, &new);
        assert_eq!(found["values"][0]["name"], "stage init");
        assert!(found["values"][0]["ratio"].is_null());
        assert_eq!(found["values"][1]["ratio"], 1.0);
        assert_eq!(found["values"][3]["name"], "boot uefi: kernel");
        assert!(found["values"][3]["ratio"].is_null(), "no ratio to 0");
    }
}
