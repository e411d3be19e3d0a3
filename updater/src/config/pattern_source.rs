//! The settings of a source of Patterns and Commands.

use std::ops::RangeInclusive;
use std::time::Duration;

use protocol::KeyRing;
use protocol::pattern::{Pattern, PatternError};
use serde_json::{Map, Value, json};

/// A source of Patterns and Commands. It may push, if `listen.sources` has it, and this host may pull from it.
#[derive(Debug, Clone)]
pub struct PatternSource {
    /// The keys that may sign what the source pushes.
    pub push_keys: KeyRing,
    /// The keys that may sign what this host pulls.
    pub keys: KeyRing,
    /// The URLs of the token with the Pattern, or absolute paths, in the order in which they are tried.
    pub pull: Vec<String>,
    /// Commands that run before the Pattern, as JSON that is valid.
    pub commands: Vec<Value>,
    /// The time from one run to the next.
    pub interval: Duration,
    /// Variables of the Pattern.
    pub vars: Map<String, Value>,
    /// Whether the host is unhealthy if a Command of this source fails.
    pub unhealthy: bool,
}

impl PatternSource {
    /// The default interval.
    pub(super) const INTERVAL: Duration = Duration::from_secs(3600);
    /// The range of valid intervals. A poll costs the server a request, and each run of a check costs this host
    /// some processes.
    pub(super) const INTERVALS: RangeInclusive<Duration> =
        Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);

    /// Returns all keys that may have signed a Pattern of this source.
    pub(crate) fn all_keys(&self) -> KeyRing {
        let mut all = self.keys.clone();
        for id in self.push_keys.ids() {
            // Two keys may have the same ID. Then the one of "sources" counts.
            let _ = self.push_keys.get(id).cloned().map(|key| all.add(key));
        }
        all
    }
}

/// Returns the Pattern that has these Commands.
///
/// # Errors
/// Fails if the Commands are not valid. The error names the place, and may quote values.
pub(crate) fn pattern_of(commands: &[Value]) -> Result<Pattern, PatternError> {
    Pattern::from_value(&json!({"run": commands}))
}

impl Default for PatternSource {
    fn default() -> Self {
        Self {
            push_keys: KeyRing::default(),
            keys: KeyRing::default(),
            pull: Vec::new(),
            commands: Vec::new(),
            interval: Self::INTERVAL,
            vars: Map::new(),
            unhealthy: false,
        }
    }
}
