//! Sources that are broken, and what a host must not do because of them.
//!
//! A host with a broken source goes on with the values of the others: it keeps updating, checks the health
//! that they configure, and says that the source is broken. Five members are read even from a broken
//! source, if it is a JSON object in which they are valid:
//! - `cdn`, because without it a host would install the releases of another CDN;
//! - `keys`, because without them a host cannot verify its own slots, nor update;
//! - `health`, because without it a bad release would be confirmed;
//! - `reboot`, because without it a host would reboot when it must not;
//! - `data`, because without it Docker would store its data in memory.
//!
//! If the text mentions one of these and cannot be read, its value is not known:
//! - without `cdn`, the host installs nothing, unless a later source sets it;
//! - without `keys`, the host installs nothing if the release that runs is signed with a key that is not known,
//!   because it would overwrite releases that it could verify with that key;
//! - without `health` or `reboot`, the host installs releases and does not reboot into them by itself: nobody
//!   could say whether the release is healthy, or whether the host may be rebooted;
//! - without `data`, Docker is not started, unless a later source sets it.
//!
//! A host does not wait for a source that could not be read at all, such as a metadata service that does not
//! answer: that would end its updates for a reason that may never pass.

use protocol::json::from_slice;
use serde_json::{Map, Value, json};

use super::error::ConfigError;
use super::fragment::Fragment;
use super::source::Source;
use super::text::to_utf8;

/// The members that are read from broken sources.
pub(super) const KEPT: [&str; 5] = ["cdn", "keys", "health", "reboot", "data"];
/// The members on which a reboot into a new release depends.
const NEEDED_TO_REBOOT: [&str; 2] = ["health", "reboot"];

/// A source that cannot be used, or of which only a part is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The error, which names the source.
    pub(super) error: ConfigError,
    /// The members of [`KEPT`] that the source sets to values that are not known.
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
        let needed = self.unknown.iter().filter(|name| NEEDED_TO_REBOOT.contains(name));
        let names: Vec<String> = needed.map(|name| format!("`{name}`")).collect();
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

/// Returns each member of [`KEPT`] that a broken source has as a fragment of its own. Each of the `keys` and
/// the members of `health` is a separate fragment. The fragments may have values that are not valid.
pub(super) fn kept(text: &[u8]) -> Vec<(&'static str, Result<Fragment, String>)> {
    let Some(object) = object(text) else { return Vec::new() };
    let mut found = Vec::new();
    for name in KEPT {
        match object.get(name) {
            Some(Value::Object(members)) if name == "health" => {
                let single = members.iter().map(|(key, value)| json!({"health": {key: value}}));
                found.extend(single.map(|json| (name, fragment(&json))));
            }
            Some(Value::Array(keys)) if name == "keys" => {
                let single = keys.iter().map(|key| json!({"keys": [key]}));
                found.extend(single.map(|json| (name, fragment(&json))));
            }
            Some(value) => found.push((name, fragment(&json!({name: value})))),
            None => {}
        }
    }
    found
}

/// Returns the members of [`KEPT`] that the text mentions, if the text is not a JSON object.
pub(super) fn mentioned(text: &[u8]) -> Vec<&'static str> {
    if object(text).is_some() {
        return Vec::new();
    }
    // UTF-16 that is not well-formed has ASCII characters between zeros.
    let without_zeros = || text.iter().copied().filter(|byte| *byte != 0).collect();
    let text = to_utf8(text).unwrap_or_else(|_| without_zeros());
    let has = |name: &&str| text.windows(name.len()).any(|part| part == name.as_bytes());
    KEPT.into_iter().filter(has).collect()
}

fn fragment(json: &Value) -> Result<Fragment, String> {
    Fragment::from_json(json.to_string().as_bytes())
}

fn object(text: &[u8]) -> Option<Map<String, Value>> {
    from_slice(&to_utf8(text).ok()?).ok()
}
