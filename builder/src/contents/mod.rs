//! The list of the files in an image: for each file its type, owner, mode, size and digest, and for
//! settings their text.
//!
//! [`Trees`] makes it from the directories of a build, [`of_initrd`] and [`of_esp`] from the published
//! files. Both give the same list. A release publishes it as a [`document`], so that two releases can
//! be compared without their images.

pub(crate) mod archive;
mod artifacts;
mod collect;
mod document;
mod entry;
mod settings;

pub(crate) use artifacts::{of_esp, of_initrd};
pub(crate) use collect::Trees;
pub(crate) use document::{DOCUMENT_MAX, name};
#[cfg(test)]
pub(crate) use entry::Access;
pub(crate) use entry::{Contents, Entry, Kind, Place};
pub(crate) use settings::TRUSTED_KEYS;

#[cfg(test)]
pub(crate) mod tests;
