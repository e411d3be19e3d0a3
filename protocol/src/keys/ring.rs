//! Sets of trusted keys.

use super::parsed::KeyError;
use super::public::PublicKey;
use super::text::split_keys;

/// A set of trusted keys with unique ids.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(Vec<PublicKey>);

impl KeyRing {
    /// Returns the key with this id.
    pub fn get(&self, id: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.id() == id)
    }

    /// Adds a key, unless the ring already has it.
    ///
    /// # Errors
    /// Fails if the ring has another key with the same id.
    pub fn add(&mut self, key: PublicKey) -> Result<(), KeyError> {
        match self.get(key.id()) {
            Some(known) if known.is_same_key(&key) => Ok(()),
            Some(_) => Err(KeyError::DuplicateId(key.id().to_owned())),
            None => {
                self.0.push(key);
                Ok(())
            }
        }
    }

    /// Parses a text with one key per line, or with PEM blocks. Blank lines and lines that start with `#` are
    /// skipped.
    ///
    /// # Errors
    /// Fails if a line is not a public key, or if two different keys have the same id.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut ring = Self::default();
        for key in split_keys(text) {
            ring.add(key.parse()?)?;
        }
        Ok(ring)
    }

    /// Returns the keys in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter()
    }

    /// Returns the ids in the order in which the keys were added.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(PublicKey::id)
    }

    /// Returns whether the ring has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<PublicKey> for KeyRing {
    fn from(key: PublicKey) -> Self {
        Self(vec![key])
    }
}
