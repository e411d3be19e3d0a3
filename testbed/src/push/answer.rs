//! The answer of a listener to a push: that of EtchaOS, that of Etcha's own listener, or that of EtchaOS
//! until 0.2, which has no fields of Etcha.
//!
//! Etcha's client takes an answer without the fields that it expects for "no changes". This one takes it
//! for an error, because such an answer comes from another program, and nothing is known about the push.

use protocol::pattern::{CommandResult, Outcome, Report};
use serde::Serialize;
use serde_json::{Map, Value};

/// The fields of Etcha. An answer that has one of them has all.
const FIELDS: [&str; 6] =
    ["err", "exit", "changedIDs", "changedOutputs", "removedIDs", "removedOutputs"];

/// What a listener did with a Pattern.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Answer {
    /// What was changed, or would be in check mode.
    pub(crate) changed: Vec<Entry>,
    /// What was removed, because the Pattern that the source pushed before has it and this one has not.
    pub(crate) removed: Vec<Entry>,
    /// The Commands that failed, if the answer names them.
    pub(crate) failed: Vec<Entry>,
    /// Why the push failed. Empty if it did not.
    pub(crate) error: String,
    /// Whether the listener ends after this push, for example because the Pattern restarts it.
    pub(crate) exit: bool,
    /// The report of a listener of EtchaOS.
    #[serde(skip)]
    pub(crate) report: Option<Report>,
}

/// A Command of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// Its id. Empty if the answer has more outputs than ids.
    pub(crate) id: String,
    pub(crate) output: String,
}

impl Answer {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// Fails with the reason if it is not one of the known answers.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, String> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err("it is empty".into());
        }
        let object: Map<String, Value> = serde_json::from_slice(body)
            .map_err(|error| format!("it is no JSON object: {error}"))?;
        let has_fields = FIELDS.iter().any(|name| object.contains_key(*name));
        let has_report = object.contains_key("results");
        if !has_fields && !has_report {
            return Err(format!("it has none of the fields {}", FIELDS.join(", ")));
        }
        let mut answer = if has_fields { Self::from_fields(&object)? } else { Self::default() };
        if has_report {
            let report = serde_json::from_value(Value::Object(object));
            let report: Report =
                report.map_err(|error| format!("its report cannot be read: {error}"))?;
            answer.failed = report.failures().map(Entry::from).collect();
            if !has_fields {
                answer.changed = report.with_outcome(Outcome::Changed).map(Entry::from).collect();
            }
            answer.report = Some(report);
        }
        Ok(answer)
    }

    /// Returns whether a Command failed, or something else in the run.
    pub(crate) fn is_failure(&self) -> bool {
        !self.error.is_empty() || !self.failed.is_empty()
    }

    fn from_fields(object: &Map<String, Value>) -> Result<Self, String> {
        let changed = (texts(object, "changedIDs")?, texts(object, "changedOutputs")?);
        let removed = (texts(object, "removedIDs")?, texts(object, "removedOutputs")?);
        let error = field(object, "err")?.as_str().ok_or_else(|| wrong("err", "a text"))?;
        let exit = field(object, "exit")?.as_bool().ok_or_else(|| wrong("exit", "a boolean"))?;
        Ok(Self {
            changed: entries(changed),
            removed: entries(removed),
            error: error.to_owned(),
            exit,
            ..Self::default()
        })
    }
}

impl From<&CommandResult> for Entry {
    fn from(result: &CommandResult) -> Self {
        Self { id: result.id.clone(), output: result.output.clone() }
    }
}

/// Pairs ids with outputs. What has no partner is kept.
fn entries((ids, outputs): (Vec<String>, Vec<String>)) -> Vec<Entry> {
    let length = ids.len().max(outputs.len());
    let (mut ids, mut outputs) = (ids.into_iter(), outputs.into_iter());
    let mut next =
        || Entry { id: ids.next().unwrap_or_default(), output: outputs.next().unwrap_or_default() };
    (0..length).map(|_| next()).collect()
}

fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a Value, String> {
    object.get(name).ok_or_else(|| format!("it lacks the field {name:?}"))
}

/// Reads a list of texts. `null` is an empty one: a program in Go writes a list so that was never set.
fn texts(object: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let list = match field(object, name)? {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(wrong(name, "a list of texts")),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts: Option<Vec<String>> = list.iter().map(text).collect();
    texts.ok_or_else(|| wrong(name, "a list of texts"))
}

fn wrong(name: &str, expected: &str) -> String {
    format!("its field {name:?} is not {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn etcha() -> Value {
        json!({
            "err": "", "exit": false, "changedIDs": ["etcha push"], "changedOutputs": ["hi"],
            "removedIDs": ["old"], "removedOutputs": ["gone"],
        })
    }

    fn decode(value: &Value) -> Result<Answer, String> {
        Answer::decode(value.to_string().as_bytes())
    }

    fn entry(id: &str, output: &str) -> Entry {
        Entry { id: id.into(), output: output.into() }
    }

    #[test]
    fn reads_the_answer_of_etcha() {
        let answer = decode(&etcha()).unwrap();
        assert_eq!(answer.changed, [entry("etcha push", "hi")]);
        assert_eq!(answer.removed, [entry("old", "gone")]);
        assert!(!answer.is_failure() && answer.report.is_none());
        let mut failed = etcha();
        failed["err"] = json!("exit status 1");
        assert!(decode(&failed).unwrap().is_failure());
        let mut empty = etcha();
        for name in ["changedIDs", "changedOutputs", "removedIDs", "removedOutputs"] {
            empty[name] = Value::Null;
        }
        assert!(decode(&empty).unwrap().changed.is_empty());
    }

    #[test]
    fn requires_every_field_and_its_type() {
        for name in FIELDS {
            let mut lacking = etcha();
            lacking.as_object_mut().unwrap().remove(name);
            assert!(decode(&lacking).unwrap_err().contains(name), "{name}");
            for wrong in [json!(7), json!({}), json!([1]), json!([null]), json!([["x"]])] {
                let mut answer = etcha();
                answer[name] = wrong.clone();
                let error = decode(&answer).unwrap_err();
                assert!(error.contains(name), "{name} {wrong}: {error}");
            }
        }
        for (name, wrong) in [("err", json!(null)), ("exit", json!(null)), ("exit", json!("false"))]
        {
            let mut answer = etcha();
            answer[name] = wrong;
            assert!(decode(&answer).is_err(), "{name}");
        }
    }

    #[test]
    fn rejects_answers_of_other_programs() {
        for body in [
            "",
            " \n",
            "{}",
            "[]",
            "null",
            "true",
            "7",
            "OK",
            "<html></html>",
            "{\"ok\":true}",
            "{\"error\": \"no\"}",
            "{\"err\"",
            "\u{0}",
        ] {
            assert!(Answer::decode(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Answer::decode(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn reads_the_report_of_etchaos_with_and_without_the_fields() {
        let results = json!([
            {"id": "a", "outcome": "changed", "output": "1"},
            {"id": "b", "outcome": "failed", "output": "2"},
        ]);
        let old = decode(&json!({"results": results})).unwrap();
        assert_eq!(
            (&old.changed[..], &old.failed[..]),
            (&[entry("a", "1")][..], &[entry("b", "2")][..])
        );
        assert!(old.is_failure());
        let mut both = etcha();
        both["results"] = results;
        let both = decode(&both).unwrap();
        assert_eq!(both.changed, [entry("etcha push", "hi")]);
        assert_eq!(both.report.unwrap().results.len(), 2);
        let mut bad = etcha();
        bad["results"] = json!([{"id": "a", "outcome": "burnt", "output": ""}]);
        assert!(decode(&bad).unwrap_err().contains("report"));
    }
}
