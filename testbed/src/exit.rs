//! Errors with an exit code of their own.

/// The exit codes of subcommands that work on a real host.
pub(crate) mod code {
    /// What was asked for was tried and failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line is wrong, or a file that it names.
    pub(crate) const USAGE: u8 = 2;
    /// The host did nothing.
    pub(crate) const REFUSED: u8 = 3;
    /// It is not known what the host did.
    pub(crate) const UNKNOWN: u8 = 4;
}

/// An error that ends the program with this exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// The exit code.
    pub code: u8,
    /// What is printed. If it is empty, nothing is.
    pub message: String,
}
