//! The parts that all differences consist of.

use serde::Serialize;

/// An old and a new value that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change<T> {
    /// The old value.
    pub from: T,
    /// The new value.
    pub to: T,
}

impl<T: PartialEq> Change<T> {
    /// Returns the change, or `None` if the values are equal.
    pub(super) fn between(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

/// A change of something with a name. A value is absent if that release has nothing of the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Named<T> {
    /// The name.
    pub name: String,
    /// The old value.
    pub from: Option<T>,
    /// The new value.
    pub to: Option<T>,
}

/// What only the new release has, what only the old release has, and what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Lists<T, C> {
    /// What only the new release has.
    pub added: Vec<T>,
    /// What only the old release has.
    pub removed: Vec<T>,
    /// What both have, with differences.
    pub changed: Vec<C>,
}

impl<T, C> Default for Lists<T, C> {
    fn default() -> Self {
        Self { added: Vec::new(), removed: Vec::new(), changed: Vec::new() }
    }
}

impl<T, C> Lists<T, C> {
    /// Returns whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}
