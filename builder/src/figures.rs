//! The figures of a release: the time of each stage, and of each boot by phase. The manifest of the
//! publication has them in a claim of its own, because they differ from build to build: a release with
//! the same files is the same release.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::Claims;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use testbed::BootFigures;

use crate::packaged::Packaged;

/// The version of the form. A reader ignores figures of another one.
const SCHEMA: u32 = 1;
/// The maximum number of stages, and of boots.
const COUNT_MAX: usize = 64;
/// The file with the times of the build, beside the artifacts.
const BUILT: &str = "built.json";

/// The figures of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// The version of this form: [`SCHEMA`].
    schema: u32,
    /// The machine that tested the release.
    pub machine: Machine,
    /// The times of the stages, in their order. The stages of the build are missing if they ran on
    /// another machine.
    pub stages: Vec<StageTime>,
    /// The boots that were measured.
    pub boots: Vec<BootFigures>,
}

/// A machine. Figures of different machines do not compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    /// The architecture, as Rust names it.
    pub arch: String,
    /// The number of processors.
    pub cpus: usize,
    /// The name of the processor, if the kernel knows it.
    pub model: Option<String>,
    /// The accelerator of the virtual machines.
    pub accelerator: Option<String>,
}

/// The time of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StageTime {
    /// The name.
    pub name: String,
    /// The duration.
    #[serde(rename = "seconds", with = "testbed::seconds")]
    pub took: Duration,
    /// Whether a part of the result came from the cache.
    pub cached: bool,
}

/// The times of a build, which are kept for its test.
#[derive(Debug, Serialize, Deserialize)]
struct Built {
    /// The digest of the files that were built; see [`Packaged::content`].
    content: String,
    stages: Vec<StageTime>,
}

impl Figures {
    /// Returns the figures of a test on this machine.
    pub(crate) fn new(
        stages: Vec<StageTime>,
        boots: Vec<BootFigures>,
        accelerator: Option<String>,
    ) -> Self {
        Self { schema: SCHEMA, machine: Machine::this(accelerator), stages, boots }
    }

    /// Returns the figures in a manifest. Returns `None` if it has none, or only of another form.
    ///
    /// # Errors
    /// Fails if they are not valid.
    pub(crate) fn of(claims: &Claims) -> Result<Option<Self>> {
        claims.etchaos_figures.as_ref().map_or(Ok(None), Self::from_json)
    }

    /// Returns the figures that the claim of a manifest has.
    ///
    /// # Errors
    /// See [`of`](Self::of).
    pub(crate) fn from_json(claim: &Value) -> Result<Option<Self>> {
        let failed = "reading the figures in the manifest";
        if claim.get("schema").and_then(Value::as_u64) != Some(u64::from(SCHEMA)) {
            return Ok(None);
        }
        let figures = Self::deserialize(claim).context(failed)?;
        let (stages, boots) = (figures.stages.len(), figures.boots.len());
        ensure!(
            stages.max(boots) <= COUNT_MAX,
            "{failed}: it has {stages} stages and {boots} boots, expected at most {COUNT_MAX}"
        );
        Ok(Some(figures))
    }

    /// Returns the claim of a manifest.
    pub(crate) fn to_json(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }
}

/// Formats the boots as a table.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", BootFigures::HEADING)?;
        for boot in &self.boots {
            writeln!(f, "{boot}")?;
        }
        write!(f, "on {}", self.machine)
    }
}

impl Machine {
    fn this(accelerator: Option<String>) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            arch: std::env::consts::ARCH.to_owned(),
            cpus: thread::available_parallelism().map_or(1, Into::into),
            model: model(&processors),
            accelerator,
        }
    }
}

/// Returns the name of the first processor in `/proc/cpuinfo`. It has none on arm64.
fn model(processors: &str) -> Option<String> {
    let mut lines = processors.lines().filter_map(|line| line.split_once(':'));
    let (_, name) = lines.find(|(key, _)| key.trim() == "model name")?;
    Some(name.trim().to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arch, cpus, model, accelerator } = self;
        write!(f, "{arch}, {cpus} CPUs")?;
        for part in [model, accelerator].into_iter().flatten() {
            write!(f, ", {part}")?;
        }
        Ok(())
    }
}

/// Keeps the times of a build beside its files, for a test in another process.
pub(crate) fn keep(packaged: &Packaged, stages: Vec<StageTime>) -> Result<()> {
    let path = path(packaged);
    let built = Built { content: packaged.content(), stages };
    let text = serde_json::to_string_pretty(&built)? + "\n";
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Returns the times of the build. Returns none if they are not of these files, such as those of a build
/// on another machine.
pub(crate) fn kept(packaged: &Packaged) -> Vec<StageTime> {
    let built: Option<Built> =
        fs::read(path(packaged)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    built.filter(|built| built.content == packaged.content()).map_or(Vec::new(), |b| b.stages)
}

fn path(packaged: &Packaged) -> PathBuf {
    packaged.directory.join(BUILT)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// Returns figures in which the kernel took this time, as a manifest has them.
    pub(crate) fn example(kernel: f64) -> Value {
        json!({
            "schema": 1,
            "machine": {"arch": "x86_64", "cpus": 2, "model": "Some CPU", "accelerator": "KVM"},
            "stages": [
                {"name": "init", "seconds": 14.5, "cached": false},
                {"name": "test", "seconds": 300.0, "cached": false},
            ],
            "boots": [{
                "boot": "uefi", "firmwareSeconds": 4.1, "bootLoaderSeconds": null,
                "kernelSeconds": kernel, "userspaceSeconds": 26.3,
                "memoryUsedMiB": 591, "memoryMiB": 1967,
            }],
        })
    }

    fn of(claim: Value) -> Result<Option<Figures>> {
        Figures::of(&Claims { etchaos_figures: Some(claim), ..Claims::default() })
    }

    #[test]
    fn a_manifest_has_figures_as_they_were_measured() {
        let figures = of(example(5.3)).unwrap().unwrap();
        assert_eq!(figures.to_json().unwrap(), example(5.3));
        let table = figures.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], BootFigures::HEADING);
        assert!(lines[1].starts_with("uefi") && lines[1].contains("591 of 1967 MiB"), "{table}");
        assert_eq!(lines[2], "on x86_64, 2 CPUs, Some CPU, KVM");
    }

    #[test]
    fn the_documented_example_is_valid() {
        let page = include_str!("../../docs/json.md");
        let (_, example_of_page) = page.split_once("```json figures\n").unwrap();
        let (example_of_page, _) = example_of_page.split_once("```").unwrap();
        assert_eq!(serde_json::from_str::<Value>(example_of_page).unwrap(), example(5.3));
    }

    #[test]
    fn figures_of_another_form_are_none_and_invalid_ones_are_errors() {
        assert_eq!(Figures::of(&Claims::default()).unwrap(), None);
        for other in [json!(null), json!(1), json!({}), json!({"schema": 2, "boots": 7})] {
            assert_eq!(of(other).unwrap(), None);
        }
        let mut many = example(5.3);
        many["stages"] = vec![many["stages"][0].clone(); COUNT_MAX + 1].into();
        let mut text = example(5.3);
        text["boots"][0]["memoryMiB"] = "much".into();
        for (claim, expected) in
            [(example(-1.0), "negative"), (many, "65 stages"), (text, "invalid type")]
        {
            let error = format!("{:#}", of(claim).unwrap_err());
            assert!(error.contains("figures in the manifest"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn describes_this_machine() {
        let machine = Machine::this(Some("KVM".into()));
        assert!(machine.cpus > 0 && machine.to_string().ends_with("KVM"), "{machine}");
        assert_eq!(model("processor\t: 0\nmodel name\t: A: B\nmodel name: C"), Some("A: B".into()));
        assert_eq!(model("processor\t: 0\nBogoMIPS\t: 50"), None);
    }
}
