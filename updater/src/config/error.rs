//! Errors of reading and validating the configuration.

use std::io;

use super::source::Source;

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A source exists and cannot be read.
    #[error("cannot read the configuration from {from}: {reason}")]
    Read {
        /// The source.
        from: Source,
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The error of the operating system or of a server.
        reason: String,
    },
    /// The text of a source cannot be parsed.
    #[error("the configuration from {from} is not usable: {reason}")]
    Format {
        /// The source.
        from: Source,
        /// The problem.
        reason: String,
    },
    /// A source is on a volume, and only root may mount it.
    #[error("cannot read the configuration from {from}: {error}")]
    NotRoot {
        /// The source.
        from: Source,
        /// The error of the mount.
        error: String,
    },
    /// A value is invalid.
    #[error("\"{key}\" from {from} is not usable: {reason}")]
    Value {
        /// The key, with dots between levels.
        key: String,
        /// The source.
        from: Source,
        /// The problem, and what was expected.
        reason: String,
    },
}

impl ConfigError {
    /// Creates an error of the operating system.
    pub(super) fn read(from: &Source, error: &io::Error) -> Self {
        Self::Read { from: from.clone(), kind: error.kind(), reason: error.to_string() }
    }

    /// Returns the source.
    pub(super) fn origin(&self) -> &Source {
        match self {
            Self::Read { from, .. }
            | Self::Format { from, .. }
            | Self::NotRoot { from, .. }
            | Self::Value { from, .. } => from,
        }
    }

    /// Returns whether the error persists until the configuration is corrected.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Format { .. } | Self::Value { .. } => true,
            // Other read errors may come from a disk, a mount or a shortage of memory, and may pass.
            Self::Read { kind, .. } => *kind == io::ErrorKind::FileTooLarge,
            Self::NotRoot { .. } => false,
        }
    }
}
