//! The differences between the settings of two releases, line by line, and between their trusted keys.

use std::collections::BTreeSet;

use serde::Serialize;
use similar::TextDiff;

use super::files::{Pair, pairs};
use crate::contents::{Contents, Place, TRUSTED_KEYS};

/// The limit for the product of the numbers of lines. Beyond it, the comparison could take minutes.
const EFFORT_MAX: usize = 25_000_000;
/// The number of equal lines around a difference.
const CONTEXT: usize = 3;

/// Whether one release or both have a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Presence {
    /// Only the new release has it.
    Added,
    /// Only the old release has it.
    Removed,
    /// Both releases have it.
    Changed,
}

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    /// The path of its file.
    pub path: String,
    /// Whether one release or both have it.
    pub presence: Presence,
    /// The differences as unified diff, without the lines with the names of the files.
    pub diff: String,
}

/// The trusted keys that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Keys {
    /// Keys that only the new release trusts.
    pub added: Vec<String>,
    /// Keys that only the old release trusts.
    pub removed: Vec<String>,
}

/// Returns the settings that differ.
pub(super) fn compare(old: &Contents, new: &Contents) -> Vec<Setting> {
    pairs(old, new).filter_map(setting).collect()
}

fn setting(pair: Pair<'_>) -> Option<Setting> {
    let (presence, from, to) = match pair {
        Pair::Old(entry) => (Presence::Removed, entry.text.as_deref()?, ""),
        Pair::New(entry) => (Presence::Added, "", entry.text.as_deref()?),
        // If only one of them is a text, the list of changed files has the sizes.
        Pair::Both(from, to) => (Presence::Changed, from.text.as_deref()?, to.text.as_deref()?),
    };
    let is_equal = presence == Presence::Changed && from == to;
    (!is_equal).then(|| Setting { path: pair.entry().name(), presence, diff: unified(from, to) })
}

fn unified(from: &str, to: &str) -> String {
    if from.lines().count().saturating_mul(to.lines().count()) > EFFORT_MAX {
        return "(too many lines for a comparison)\n".to_owned();
    }
    TextDiff::from_lines(from, to)
        .unified_diff()
        .context_radius(CONTEXT)
        .missing_newline_hint(true)
        .to_string()
}

/// Returns the trusted keys that differ, or `None` if one of the releases does not list its keys.
pub(super) fn keys(old: &Contents, new: &Contents) -> Option<Keys> {
    let (old, new) = (trusted(old)?, trusted(new)?);
    let difference = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
        a.difference(b).map(|key| (*key).to_owned()).collect()
    };
    Some(Keys { added: difference(&new, &old), removed: difference(&old, &new) })
}

fn trusted(contents: &Contents) -> Option<BTreeSet<&str>> {
    let text = contents.get(Place::System, TRUSTED_KEYS)?.text.as_deref()?;
    let lines = text.lines().map(str::trim);
    Some(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect())
}
