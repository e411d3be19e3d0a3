//! Sources that are broken, and what a host must not do because of them.
//!
//! A host with a broken source goes on with the values of the others: it keeps updating, checks the health
//! that they configure, and says that the source is broken. Four members are read even from a broken
//! source, if it is a JSON object in which they are valid:
//! - `keys`, because without them a host cannot verify its own slots, nor update;
//! - `health`, because without it a bad release would be confirmed;
//! - `reboot`, because without it a host would reboot when it must not;
//! - `cdn`, if it is an empty list, because without it a host would update although its operator disabled
//!   that. Another CDN of a broken source is not used.
//!
//! If the text mentions `health` or `reboot` and cannot be read, their values are not known. The host then
//! installs releases and does not reboot into them by itself: nobody could say whether the release is
//! healthy, or whether the host may be rebooted. It does not wait for a source that could not be read at all,
//! such as a metadata service that does not answer: that would end its updates for a reason that may never
//! pass.

use protocol::json::from_slice;
use serde_json::{Map, Value, json};

use super::error::ConfigError;
use super::fragment::Fragment;
use super::source::Source;
use super::text::to_utf8;

/// The members that are read from broken sources.
const KEPT: [&str; 3] = ["keys", "health", "reboot"];
/// The members on which a reboot into a new release depends.
const NEEDED_TO_REBOOT: [&str; 2] = ["health", "reboot"];

/// A source that cannot be used, or of which only a part is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The error, which names the source.
    pub(super) error: ConfigError,
    /// The members that the source sets to values that are not known.
    pub(super) unknown: Vec<&'static str>,
}

/// A source that is meant for another program, or has nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// The source.
    pub(super) source: Source,
    /// Why it is ignored.
    pub(super) reason: String,
}

impl Broken {
    /// Returns the source and the error.
    pub(super) fn to_json(&self) -> Value {
        json!({"source": self.error.origin().to_string(), "reason": self.error.to_string()})
    }

    /// Returns why the host must not be rebooted into a new release, or `None` if it may be.
    pub(super) fn reason_not_to_reboot(&self) -> Option<String> {
        let names: Vec<String> = self.unknown.iter().map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| {
            let (names, from) = (names.join(" and "), self.error.origin());
            format!("{names} from {from} cannot be read: correct this configuration")
        })
    }
}

impl Ignored {
    /// Returns the source and the reason.
    pub(super) fn to_json(&self) -> Value {
        json!({"source": self.source.to_string(), "reason": self.reason})
    }
}

/// Returns each member of [`KEPT`] that a broken source has, and `cdn` if it is empty, as a fragment of its
/// own. Members of `health` are separate fragments. The fragments may have values that are not valid.
pub(super) fn kept(text: &[u8]) -> Vec<(&'static str, Result<Fragment, String>)> {
    let Some(object) = object(text) else { return Vec::new() };
    let mut found = Vec::new();
    for name in KEPT {
        match object.get(name) {
            Some(Value::Object(members)) if name == "health" => {
                let single = members.iter().map(|(key, value)| json!({"health": {key: value}}));
                found.extend(single.map(|json| (name, fragment(&json))));
            }
            Some(value) => found.push((name, fragment(&json!({name: value})))),
            None => {}
        }
    }
    if object.get("cdn") == Some(&json!([])) {
        found.push(("cdn", fragment(&json!({"cdn": []}))));
    }
    found
}

/// Returns the members on which a reboot depends and that a source, which is no JSON object, mentions.
pub(super) fn mentioned(text: &[u8]) -> Vec<&'static str> {
    if object(text).is_some() {
        return Vec::new();
    }
    let text = to_utf8(text).unwrap_or_default();
    let has = |name: &&str| text.windows(name.len()).any(|part| part == name.as_bytes());
    NEEDED_TO_REBOOT.into_iter().filter(has).collect()
}

fn fragment(json: &Value) -> Result<Fragment, String> {
    Fragment::from_json(json.to_string().as_bytes())
}

fn object(text: &[u8]) -> Option<Map<String, Value>> {
    from_slice(&to_utf8(text).ok()?).ok()
}

/// Returns whether a reboot depends on a member.
pub(super) fn is_needed_to_reboot(name: &str) -> bool {
    NEEDED_TO_REBOOT.contains(&name)
}
