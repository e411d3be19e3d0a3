//! Prints the results of all targets, as tables or as JSON.

use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::record::{Record, StageTime};

/// The artifacts whose sizes the table shows, by role.
const ROLES: [&str; 3] = ["kernel", "initrd", "disk"];

/// Prints the summary.
pub(super) fn print(records: &[Record], as_json: bool, out: &mut impl Write) -> Result<()> {
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(&to_json(records))?)?;
        return Ok(());
    }
    print_times(records, out)?;
    print_results(records, out)?;
    for record in records {
        let Some(error) = &record.error else { continue };
        writeln!(out, "\n{}: {error}", record.target)?;
        if let Some(log) = &record.log {
            writeln!(out, "  log: {log}")?;
        }
    }
    Ok(())
}

/// Returns the JSON, which docs/json.md describes.
fn to_json(records: &[Record]) -> Value {
    let stage = |StageTime { name, seconds }: &StageTime| json!({"name": name, "seconds": seconds});
    let target = |record: &Record| {
        json!({
            "target": record.target.to_string(),
            "result": if record.has_failed() { "failed" } else { "done" },
            "stage": record.stage,
            "seconds": record.took.as_secs_f64(),
            "stages": record.stages.iter().map(stage).collect::<Vec<_>>(),
            "error": record.error,
            "log": record.log,
            "output": record.output,
        })
    };
    json!({"targets": records.iter().map(target).collect::<Vec<_>>()})
}

/// Prints the time of each stage, in seconds.
fn print_times(records: &[Record], out: &mut impl Write) -> Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for stage in records.iter().flat_map(|record| &record.stages) {
        if !names.contains(&stage.name.as_str()) {
            names.push(&stage.name);
        }
    }
    write!(out, "\n{:<22}", "seconds")?;
    for name in &names {
        write!(out, " {name:>9}")?;
    }
    writeln!(out, " {:>9}", "total")?;
    for record in records {
        write!(out, "{:<22}", record.target.to_string())?;
        for name in &names {
            let stage = record.stages.iter().find(|stage| stage.name == *name);
            let seconds = stage.map_or("-".to_owned(), |stage| format!("{:.1}", stage.seconds));
            write!(out, " {seconds:>9}")?;
        }
        writeln!(out, " {:>9.1}", record.took.as_secs_f64())?;
    }
    Ok(())
}

/// Prints the stage that each target reached, the sizes of its artifacts in bytes, and its result.
fn print_results(records: &[Record], out: &mut impl Write) -> Result<()> {
    write!(out, "\n{:<22} {:<9}", "target", "stage")?;
    for role in ROLES {
        write!(out, " {role:>12}")?;
    }
    writeln!(out, "  result")?;
    for record in records {
        let stage = record.stage.as_deref().unwrap_or("-");
        write!(out, "{:<22} {stage:<9}", record.target.to_string())?;
        for role in ROLES {
            let size = size(record, role).map_or("-".to_owned(), |size| size.to_string());
            write!(out, " {size:>12}")?;
        }
        writeln!(out, "  {}", result(record))?;
    }
    Ok(())
}

fn size(record: &Record, role: &str) -> Option<u64> {
    let artifacts = record.output.as_ref()?.get("artifacts")?.as_array()?;
    artifacts.iter().find(|artifact| artifact["role"] == role)?["size"].as_u64()
}

/// Returns the result in a few words.
fn result(record: &Record) -> String {
    let release = record.output.as_ref().and_then(|output| output.get("release"));
    let published = release.and_then(|release| {
        Some(format!("{}, build {}", release.get("result")?.as_str()?, release.get("build")?))
    });
    match (record.has_failed(), published) {
        (true, _) => "FAILED".to_owned(),
        (false, published) => published.unwrap_or_else(|| "done".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Event;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn record(target: &str, stages: &[&str]) -> Record {
        let mut record = Record::new(target.parse().unwrap());
        for stage in stages {
            let stage = (*stage).to_owned();
            record.add(Event::Started { stage: stage.clone() });
            record.add(Event::Finished { stage, seconds: 1.5, result: "done".into() });
        }
        record
    }

    /// Returns the records of a target that was published, one that failed, and one that did not start.
    fn records() -> [Record; 3] {
        let mut published = record("deb_amd64", &["1/6 init", "6/6 release"]);
        let output = json!({
            "artifacts": [{"role": "kernel", "size": 11}, {"role": "disk", "size": 33}],
            "release": {"result": "published", "build": 20_261_126_100_000_u64},
        });
        published.end(Ok(ExitStatus::from_raw(0)), output.to_string().as_bytes());
        let mut failed = record("deb_arm64", &["1/6 init"]);
        failed.add(Event::Error { text: "no mirror\n  at all".into(), log: Some("/l/1".into()) });
        let mut missing = record("ubu_amd64", &[]);
        missing.fail("starting the builder");
        [published, failed, missing]
    }

    #[test]
    fn lists_every_target_with_its_stage_times_sizes_result_and_log() {
        let mut text = Vec::new();
        print(&records(), false, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["seconds", "init", "release", "total"]);
        assert_eq!(words[2][..3], ["deb_amd64", "1.5", "1.5"]);
        assert_eq!(words[3][..3], ["deb_arm64", "1.5", "-"]);
        assert_eq!(words[4][..3], ["ubu_amd64", "-", "-"]);
        assert_eq!(words[6], ["target", "stage", "kernel", "initrd", "disk", "result"]);
        assert_eq!(words[7][..5], ["deb_amd64", "release", "11", "-", "33"]);
        assert_eq!(words[7][5..], ["published,", "build", "20261126100000"]);
        assert_eq!(words[8], ["deb_arm64", "init", "-", "-", "-", "FAILED"]);
        assert_eq!(words[9], ["ubu_amd64", "-", "-", "-", "-", "FAILED"]);
        let failures =
            "\ndeb_arm64: no mirror\n  at all\n  log: /l/1\n\nubu_amd64: starting the builder\n";
        assert!(text.ends_with(failures), "{text}");
    }

    #[test]
    fn json_is_that_of_the_documentation() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md");
        let page = std::fs::read_to_string(page).unwrap();
        let example =
            page.split("```json targets\n").nth(1).and_then(|rest| rest.split("```").next());
        let example: Value = serde_json::from_str(example.unwrap()).unwrap();
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        let found = to_json(&records());
        assert_eq!(keys(&found), keys(&example));
        let (found, example) = (&found["targets"], &example["targets"]);
        for (index, result) in [(0, "done"), (1, "failed")] {
            let (found, example) = (&found[index], &example[index]);
            assert_eq!(keys(found), keys(example));
            assert_eq!((&found["result"], &example["result"]), (&json!(result), &json!(result)));
            assert_eq!(keys(&found["stages"][0]), keys(&example["stages"][0]));
            for key in ["error", "log", "output"] {
                assert_eq!(found[key].is_null(), example[key].is_null(), "{key} of {index}");
            }
        }
    }
}
