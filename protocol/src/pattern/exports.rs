//! The environment variables that Commands set for later ones.

use std::collections::BTreeMap;

use super::limits::{EXPORT_MAX, EXPORTS_MAX};

/// What a variable is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Check,
    Change,
    Remove,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "_CHECK",
            Self::Change => "_CHANGE",
            Self::Remove => "_REMOVE",
        }
    }
}

/// The variables by their names.
///
/// A Command with the prefix `P` sets `P_CHECK` and so on. Every Command also sets `_CHECK` and so on, so these
/// are about the Command that ran last.
#[derive(Debug, Default)]
pub(super) struct Exports(BTreeMap<String, String>);

impl Exports {
    /// Returns the variables.
    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Sets whether a script did not succeed: `0` or `1`. For [`Phase::Check`], 1 means that there is
    /// something to change or remove.
    pub(super) fn set(&mut self, prefix: Option<&str>, phase: Phase, failed: bool) {
        self.insert(prefix, phase.name(), if failed { "1" } else { "0" });
    }

    /// Sets the output of a script.
    pub(super) fn set_output(&mut self, prefix: Option<&str>, phase: Phase, output: &str) {
        self.insert(prefix, &format!("{}_OUT", phase.name()), output);
    }

    fn insert(&mut self, prefix: Option<&str>, name: &str, value: &str) {
        // No variable can have a NUL character.
        let value = value.replace('\0', "");
        let value = &value[..value.floor_char_boundary(EXPORT_MAX)];
        for prefix in [Some(""), prefix].into_iter().flatten() {
            let name = format!("{prefix}{name}");
            self.0.remove(&name);
            let used: usize = self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            let Some(left) = EXPORTS_MAX.checked_sub(used + name.len() + 2) else { continue };
            let kept = &value[..value.floor_char_boundary(left)];
            self.0.insert(name, kept.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_variables_with_and_without_prefix() {
        let mut exports = Exports::default();
        exports.set(Some("P"), Phase::Check, true);
        exports.set_output(Some("P"), Phase::Change, "out\0put");
        exports.set(None, Phase::Check, false);
        let expected = [
            ("P_CHANGE_OUT", "output"),
            ("P_CHECK", "1"),
            ("_CHANGE_OUT", "output"),
            ("_CHECK", "0"),
        ];
        let found: Vec<_> = exports
            .variables()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn stays_below_the_limits(count in 1..80_usize, character in "[aé€]", size in 0..80_000_usize) {
            let mut exports = Exports::default();
            let output = character.repeat(size / character.len());
            for index in 0..count {
                exports.set_output(Some(&format!("P{index}")), Phase::Change, &output);
            }
            let variables = exports.variables();
            prop_assert!(variables.values().all(|value| value.len() <= EXPORT_MAX));
            let total: usize = variables.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            prop_assert!(total <= EXPORTS_MAX);
            prop_assert!((1..=count + 1).contains(&variables.len()));
        }
    }
}
