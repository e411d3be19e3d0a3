//! The format of the file in which a host keeps what it has accepted from a source.
//!
//! The file has a digest, because a power cut can tear it. Nothing in it is trusted: the signature of a token
//! is verified again each time before its Pattern runs.

use std::collections::VecDeque;

use protocol::release::is_file_name;
use protocol::token::TOKEN_MAX;
use protocol::{KeyRing, digest, json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The maximum number of predecessors. There is more than one only if Commands of the first could not be removed
/// before a second one was accepted.
pub const PREVIOUS_MAX: usize = 4;
/// The maximum size of a file, in which each token and its variables may have the maximum size.
pub const FILE_MAX: u64 = 2 * (1 + PREVIOUS_MAX as u64) * TOKEN_MAX as u64;
/// The version of the format.
const SCHEMA: u32 = 1;
/// The length of a SHA-256 in hexadecimal, and of the line end after it.
const DIGEST_LINE: usize = 65;

/// What a host keeps of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// The version of the format.
    pub schema: u32,
    /// The name of the source.
    pub source: String,
    /// A number that increases with each change. If there are two copies, the one with the higher number counts.
    pub sequence: u64,
    /// The public keys of the source when it was last in the configuration.
    pub keys: Vec<String>,
    /// The newest `iat` of an accepted Pattern, in Unix seconds. Older ones are not pulled.
    pub newest: Option<u64>,
    /// The Pattern.
    pub pattern: Succession<Accepted>,
    /// The Commands of the configuration. They are JSON, so that an older release can keep those of a newer one.
    pub commands: Succession<Vec<Value>>,
}

/// A Pattern that was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The signed token.
    pub token: String,
    /// How it came to this host.
    pub from: Way,
    /// When it was accepted, in Unix seconds.
    pub time: u64,
    /// The variables of the source. With others, the same token may have other Commands.
    #[serde(default)]
    pub vars: Map<String, Value>,
}

/// How a Pattern came to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// It was pushed.
    Push,
    /// This host pulled it.
    Pull,
}

/// What is in force, and what it replaces until everything that is no longer wanted is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Succession<T> {
    /// What is in force.
    pub current: Option<T>,
    /// What it replaces, the newest first.
    pub previous: VecDeque<T>,
}

/// A file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// The content does not have the digest in its first line.
    #[error("it is damaged")]
    Damaged,
    /// The JSON is not valid.
    #[error("it is not valid: {0}")]
    Json(String),
    /// A later release wrote it in another format.
    #[error("it has the format {0}, expected {SCHEMA}: a newer release wrote it")]
    Schema(u32),
    /// A value is not valid.
    #[error("it is not valid: {0}")]
    Value(&'static str),
}

impl Kept {
    /// Creates an empty record of a source.
    pub fn new(source: &str) -> Self {
        Self { schema: SCHEMA, source: source.to_owned(), ..Self::default() }
    }

    /// Returns the content of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).expect("all maps have string keys");
        format!("{}\n{json}\n", digest::of_bytes(format!("{json}\n").as_bytes())).into_bytes()
    }

    /// Reads the content of a file.
    ///
    /// # Errors
    /// Fails if the content is damaged, or has another format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeptError> {
        let (line, json) = bytes.split_at_checked(DIGEST_LINE).ok_or(KeptError::Damaged)?;
        if line != format!("{}\n", digest::of_bytes(json)).as_bytes() {
            return Err(KeptError::Damaged);
        }
        let kept: Self =
            json::from_slice(json).map_err(|error| KeptError::Json(error.to_string()))?;
        if kept.schema != SCHEMA {
            return Err(KeptError::Schema(kept.schema));
        }
        if !is_file_name(&kept.source) {
            return Err(KeptError::Value("the source has no valid name"));
        }
        if kept.pattern.previous.len() > PREVIOUS_MAX || kept.commands.previous.len() > PREVIOUS_MAX
        {
            return Err(KeptError::Value("there are too many predecessors"));
        }
        let mut accepted = kept.pattern.current.iter().chain(&kept.pattern.previous);
        if accepted.any(|accepted| accepted.token.len() > TOKEN_MAX) {
            return Err(KeptError::Value("a token is too long"));
        }
        Ok(kept)
    }

    /// Returns this record without its Patterns and Commands. It still keeps older Patterns from being accepted.
    pub fn without_content(&self) -> Self {
        Self { sequence: self.sequence, newest: self.newest, ..Self::new(&self.source) }
    }

    /// Returns whether nothing would be lost without this record.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none() && self.has_no_content()
    }

    /// Returns whether there is nothing to run and nothing to remove.
    pub fn has_no_content(&self) -> bool {
        self.pattern.is_empty() && self.commands.is_empty()
    }

    /// Returns whether Commands still have to be removed.
    pub fn has_predecessors(&self) -> bool {
        !(self.pattern.previous.is_empty() && self.commands.previous.is_empty())
    }

    /// Takes over the keys of the configuration.
    pub fn set_keys(&mut self, keys: &KeyRing) {
        self.keys = keys.ids().filter_map(|id| keys.get(id)).map(ToString::to_string).collect();
    }

    /// Returns the keys of the source when it was last in the configuration. Omits those that cannot be read.
    pub fn key_ring(&self) -> KeyRing {
        let mut ring = KeyRing::default();
        for key in self.keys.iter().filter_map(|key| key.parse().ok()) {
            // The configuration had no two keys with the same ID.
            let _ = ring.add(key);
        }
        ring
    }
}

impl<T> Default for Succession<T> {
    fn default() -> Self {
        Self { current: None, previous: VecDeque::new() }
    }
}

impl<T: PartialEq> Succession<T> {
    /// Puts `next` in force, and moves what was in force to the predecessors. Returns whether anything changed.
    ///
    /// If there are too many predecessors, the oldest is forgotten: its Commands stay on the host.
    pub fn replace(&mut self, next: Option<T>) -> bool {
        if next == self.current {
            return false;
        }
        // What comes into force again is not removed.
        self.previous.retain(|previous| Some(previous) != next.as_ref());
        if let Some(replaced) = std::mem::replace(&mut self.current, next) {
            self.previous.retain(|previous| *previous != replaced);
            self.previous.push_front(replaced);
            self.previous.truncate(PREVIOUS_MAX);
        }
        true
    }

    /// Forgets the predecessors, after everything of them was removed.
    pub fn finish(&mut self) {
        self.previous.clear();
    }

    /// Returns whether there is nothing in force and nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.current.is_none() && self.previous.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn accepted(token: &str) -> Accepted {
        Accepted { token: token.into(), from: Way::Pull, time: 7, vars: Map::new() }
    }

    fn kept() -> Kept {
        let mut kept = Kept { sequence: 3, newest: Some(9), ..Kept::new("web") };
        kept.pattern.replace(Some(accepted("a.b.c")));
        kept.pattern.replace(Some(accepted("d.e.f")));
        kept.commands.replace(Some(vec![json!({"id": "x", "check": "true"})]));
        kept
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = kept().to_bytes();
        assert_eq!(Kept::from_bytes(&bytes), Ok(kept()));
        let key = protocol::PrivateKey::generate().public().clone();
        let mut kept = kept();
        kept.set_keys(&key.clone().into());
        let again = Kept::from_bytes(&kept.to_bytes()).unwrap();
        assert_eq!(again.key_ring().ids().collect::<Vec<_>>(), [key.id()]);
    }

    #[test]
    fn a_file_of_the_maximum_size_can_be_read() {
        let mut kept = Kept::new("web");
        for n in 0..=PREVIOUS_MAX {
            kept.pattern.replace(Some(accepted(&n.to_string().repeat(TOKEN_MAX))));
        }
        let bytes = kept.to_bytes();
        assert!(bytes.len() as u64 <= FILE_MAX);
        assert_eq!(Kept::from_bytes(&bytes), Ok(kept));
    }

    #[test]
    fn refuses_what_is_damaged_or_not_valid() {
        let bytes = kept().to_bytes();
        for length in [0, 1, DIGEST_LINE, bytes.len() - 1] {
            assert_eq!(Kept::from_bytes(&bytes[..length]), Err(KeptError::Damaged), "{length}");
        }
        let with = |change: &dyn Fn(&mut Value)| {
            let mut json = serde_json::to_value(kept()).unwrap();
            change(&mut json);
            let json = json.to_string();
            let line = digest::of_bytes(json.as_bytes());
            Kept::from_bytes(format!("{line}\n{json}").as_bytes())
        };
        assert!(with(&|_| ()).is_ok());
        assert!(with(&|json| json["more"] = json!(1)).is_ok(), "of a later release");
        assert_eq!(with(&|json| json["schema"] = json!(2)), Err(KeptError::Schema(2)));
        for (member, value) in [
            ("source", json!("../x")),
            ("source", json!("")),
            ("commands", json!({"previous": [[], [], [], [], []]})),
            (
                "pattern",
                json!({"current": {"token": "x".repeat(TOKEN_MAX + 1), "from": "pull", "time": 1}}),
            ),
            ("pattern", json!({"current": {"token": "x", "from": "mail", "time": 1}})),
            ("sequence", json!(-1)),
        ] {
            assert!(with(&|json| json[member] = value.clone()).is_err(), "{member}");
        }
    }

    #[test]
    fn what_comes_into_force_again_is_not_removed() {
        let mut succession = Succession::default();
        assert!(succession.replace(Some(1)));
        assert!(!succession.replace(Some(1)));
        succession.replace(Some(2));
        succession.replace(Some(1));
        assert_eq!((succession.current, &succession.previous), (Some(1), &VecDeque::from([2])));
        succession.replace(None);
        assert_eq!((succession.current, &succession.previous), (None, &VecDeque::from([1, 2])));
        succession.finish();
        assert!(succession.is_empty());
    }

    proptest! {
        /// The predecessors are what was in force since the last removal, without what is in force now.
        #[test]
        fn keeps_predecessors_until_they_are_removed(
            steps in proptest::collection::vec(prop_oneof![
                4 => proptest::option::of(0_u8..4).prop_map(Some),
                1 => Just(None),
            ], 0..20)
        ) {
            let (mut succession, mut expected) = (Succession::default(), Vec::new());
            let mut current = None;
            for step in steps {
                match step {
                    Some(next) => {
                        succession.replace(next);
                        expected.extend(current);
                        current = next;
                    }
                    None => {
                        succession.finish();
                        expected.clear();
                    }
                }
                expected.retain(|one| Some(*one) != current);
                let mut found: Vec<u8> = succession.previous.iter().copied().collect();
                found.sort_unstable();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(succession.current, current);
            }
        }

        #[test]
        fn does_not_panic_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let line = digest::of_bytes(&bytes);
            let _ = Kept::from_bytes(&bytes);
            let _ = Kept::from_bytes(&[format!("{line}\n").as_bytes(), &bytes].concat());
        }
    }
}
