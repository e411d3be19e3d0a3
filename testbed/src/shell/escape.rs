//! The escape of a terminal: `~.` at the beginning of a line ends the connection, also if the host does not
//! answer any more.

/// Finds escapes in what is typed.
#[derive(Debug, Default)]
pub(super) struct Escapes(State);

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    LineStart,
    Tilde,
    Line,
}

/// What is left of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Bytes for the host.
    Bytes(Vec<u8>),
    /// The connection is to be ended.
    End,
}

impl Escapes {
    /// Takes typed bytes. A tilde at the beginning of a line is held back until the next byte. Two tildes are one.
    pub(super) fn apply(&mut self, typed: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            self.0 = match (self.0, byte) {
                (State::LineStart, b'~') => {
                    self.0 = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => return Typed::End,
                (State::Tilde, b'~') => State::Line,
                (State::Tilde, byte) => {
                    bytes.push(b'~');
                    after(*byte)
                }
                (State::LineStart | State::Line, byte) => after(*byte),
            };
            bytes.push(*byte);
        }
        Typed::Bytes(bytes)
    }
}

fn after(byte: u8) -> State {
    if b"\r\n".contains(&byte) { State::LineStart } else { State::Line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(parts: &[&str]) -> Option<String> {
        let (mut escapes, mut all) = (Escapes::default(), Vec::new());
        for part in parts {
            match escapes.apply(part.as_bytes()) {
                Typed::Bytes(bytes) => all.extend(bytes),
                Typed::End => return None,
            }
        }
        Some(String::from_utf8(all).unwrap())
    }

    #[test]
    fn ends_only_at_the_beginning_of_a_line() {
        for ended in [&["~."][..], &["~", "."], &["ls\r~."], &["ls\r", "~", "."], &["\n~."]] {
            assert_eq!(typed(ended), None, "{ended:?}");
        }
        for (parts, expected) in [
            (&["ls ~.\r"][..], "ls ~.\r"),
            (&["~~."], "~."),
            (&["~", "x"], "~x"),
            (&["~\r~", "~"], "~\r~"),
            (&["~/bin\r"], "~/bin\r"),
            (&["~"], ""),
        ] {
            assert_eq!(typed(parts).as_deref(), Some(expected), "{parts:?}");
        }
    }
}
