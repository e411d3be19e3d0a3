//! Errors of reading and validating the configuration.

use super::source::Source;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source exists and cannot be read.
    #[error("cannot read the configuration from {from}: {error}")]
    Read {
        /// The source.
        from: Source,
        /// The error of the operating system.
        error: std::io::Error,
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
    /// Returns whether the error persists until the configuration is corrected.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Format { .. } | Self::Value { .. } => true,
            // Other read errors may come from a disk, a mount or a shortage of memory, and may pass.
            Self::Read { error, .. } => error.kind() == std::io::ErrorKind::FileTooLarge,
            Self::NotRoot { .. } => false,
        }
    }
}
