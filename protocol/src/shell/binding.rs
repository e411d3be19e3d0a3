//! What binds a token to a connection.

use serde::{Deserialize, Serialize};

use crate::digest::hex;

/// The bytes that TLS derives for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding(pub [u8; 32]);

/// The claim `etchaosShell` of a token that asks for a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShellClaim {
    /// The [`Binding`] of the connection, as hexadecimal digits.
    pub binding: String,
}

impl From<Binding> for ShellClaim {
    fn from(Binding(bytes): Binding) -> Self {
        Self { binding: hex(&bytes) }
    }
}
