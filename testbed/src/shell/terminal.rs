//! The terminal of the operator.

use std::io::{self, IsTerminal};

use protocol::shell::{Size, Terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The size of a terminal that does not know its own.
const DEFAULT_SIZE: Size = Size { columns: 80, rows: 24 };

/// Returns the terminal, if standard input and output are one.
pub(super) fn of_operator() -> Option<Terminal> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    // The host accepts no other characters.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    let term = std::env::var("TERM").unwrap_or_default();
    let term: String = term.chars().filter(|c| is_allowed(*c)).take(64).collect();
    Some(Terminal { size: size(), term })
}

/// Returns the size of the terminal.
pub(super) fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col, rows: size.ws_row }
        }
        _ => DEFAULT_SIZE,
    }
}

/// A terminal that passes every key on, until this is dropped.
pub(super) struct Raw(Termios);

impl Raw {
    /// Changes the mode of the terminal at standard input.
    ///
    /// # Errors
    /// Fails if it is none.
    pub(super) fn enable() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let guard = Self(before);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
