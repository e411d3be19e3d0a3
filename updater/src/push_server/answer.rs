//! The JSON of an answer: the members that Etcha's client reads, and those of the updater.
//!
//! Etcha's client decodes every answer except those with the status 304, 404 or 429, and shows `err`, or else the
//! ids. It shows an answer without these members as success without changes, so every answer has all of them. The
//! updater never answers with 304, which the client takes for success.

use hyper::StatusCode;
use protocol::pattern::{CommandResult, Mode, Outcome, Report};
use serde::Serialize;

/// How many characters of the output of a Command that failed are in `err`. The results have all of it.
const SHOWN_MAX: usize = 1000;

/// An answer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    /// Why the push failed. Empty if it did not.
    err: String,
    /// Whether the process of the server ends after the push. Etcha's listener does that to replace itself.
    exit: bool,
    /// The Commands whose change ran, or in check mode would run.
    #[serde(rename = "changedIDs")]
    changed_ids: Vec<&'a str>,
    changed_outputs: Vec<&'a str>,
    /// The Commands that were removed, or in check mode would be.
    #[serde(rename = "removedIDs")]
    removed_ids: Vec<&'a str>,
    removed_outputs: Vec<&'a str>,
    /// The same as `err`, if the push was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// The mode in which the Pattern ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    #[serde(flatten)]
    report: Option<&'a Report>,
}

/// Returns the answer to a push that was refused, or could not be run.
pub(super) fn refused(error: &str) -> String {
    to_json(&Answer { err: error.to_owned(), error: Some(error), ..Answer::default() })
}

/// Returns the status and the answer after the Commands of a Pattern ran.
pub(super) fn ran(mode: Mode, report: &Report) -> (StatusCode, String) {
    let err = report.failures().map(failure).collect::<Vec<_>>().join("; ");
    let status = match err.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // A Command without `change` is not listed if its `check` fails: nothing was changed.
    let (changed, removed) = match mode {
        Mode::Change => (Outcome::Changed, Outcome::Removed),
        Mode::Check => (Outcome::Needed, Outcome::Needed),
    };
    let (changed_ids, changed_outputs) = with(&report.results, changed);
    let (removed_ids, removed_outputs) = with(&report.removed, removed);
    let answer = Answer {
        err,
        changed_ids,
        changed_outputs,
        removed_ids,
        removed_outputs,
        mode: Some(mode),
        report: Some(report),
        ..Answer::default()
    };
    (status, to_json(&answer))
}

/// Returns the ids and outputs of the Commands with this outcome.
fn with(results: &[CommandResult], outcome: Outcome) -> (Vec<&str>, Vec<&str>) {
    let listed = results.iter().filter(|result| result.outcome == outcome);
    listed.map(|result| (result.id.as_str(), result.output.as_str())).unzip()
}

/// Describes a Command that failed, with the end of its output, where its error is.
fn failure(result: &CommandResult) -> String {
    let skipped = result.output.chars().count().saturating_sub(SHOWN_MAX);
    let output: String = result.output.chars().skip(skipped).collect();
    let output = if output.is_empty() { "it printed nothing" } else { &output };
    format!("the Command {:?} failed: {output}", result.id)
}

fn to_json(answer: &Answer<'_>) -> String {
    serde_json::to_string(answer).expect("an answer has only string keys")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn result(id: &str, outcome: Outcome, output: &str) -> CommandResult {
        CommandResult { id: id.into(), outcome, output: output.into() }
    }

    #[test]
    fn every_answer_has_what_the_client_reads() {
        let report = Report {
            results: vec![
                result("a", Outcome::Changed, "made"),
                result("b", Outcome::Ok, "fine"),
                result("c", Outcome::Needed, "missing"),
            ],
            removed: vec![result("d", Outcome::Removed, "gone"), result("e", Outcome::Ok, "")],
            ..Report::default()
        };
        let (status, text) = ran(Mode::Change, &report);
        assert_eq!(status, 200);
        let answer: Value = serde_json::from_str(&text).unwrap();
        for (name, expected) in [
            ("err", json!("")),
            ("exit", json!(false)),
            ("changedIDs", json!(["a"])),
            ("changedOutputs", json!(["made"])),
            ("removedIDs", json!(["d"])),
            ("removedOutputs", json!(["gone"])),
            ("mode", json!("change")),
        ] {
            assert_eq!(answer[name], expected, "{name}");
        }
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        let checked: Value = serde_json::from_str(&ran(Mode::Check, &report).1).unwrap();
        assert_eq!(checked["changedIDs"], json!(["c"]));
        assert_eq!(checked["changedOutputs"], json!(["missing"]));

        let answer: Value = serde_json::from_str(&refused("no")).unwrap();
        assert_eq!((&answer["err"], &answer["error"]), (&json!("no"), &json!("no")));
        for list in ["changedIDs", "changedOutputs", "removedIDs", "removedOutputs"] {
            assert_eq!(answer[list], json!([]), "{list}");
        }
        assert_eq!(answer["exit"], json!(false));
    }

    #[test]
    fn a_failed_command_or_removal_is_an_error() {
        let long = format!("{}the end", "é".repeat(2 * SHOWN_MAX));
        for report in [
            Report { results: vec![result("x", Outcome::Failed, &long)], ..Report::default() },
            Report { removed: vec![result("x", Outcome::Failed, &long)], ..Report::default() },
        ] {
            let (status, text) = ran(Mode::Change, &report);
            assert_eq!(status, 500);
            let err = serde_json::from_str::<Value>(&text).unwrap()["err"].to_string();
            assert!(err.contains("the Command") && err.contains("the end"), "{err}");
            assert!(err.len() < 3 * SHOWN_MAX, "{}", err.len());
        }
        let silent =
            Report { results: vec![result("x", Outcome::Failed, "")], ..Report::default() };
        assert!(ran(Mode::Change, &silent).1.contains("it printed nothing"));
    }
}
