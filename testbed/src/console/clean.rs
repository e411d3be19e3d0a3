//! Removes terminal control sequences from console output.

/// A filter that reduces console output to its text, for display.
#[derive(Default)]
pub(crate) struct ConsoleFilter {
    cleaner: Cleaner,
    ended_line: bool,
}

impl ConsoleFilter {
    /// Returns the text in the next bytes. Several line ends in a row become one.
    pub(crate) fn clean(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for byte in bytes.iter().filter_map(|byte| self.cleaner.clean(*byte)) {
            if byte != b'\n' || !self.ended_line {
                text.push(byte);
            }
            self.ended_line = byte == b'\n';
        }
        text
    }
}

/// A parser that removes escape sequences and control characters.
///
/// A sequence that positions the cursor or clears the screen becomes a line end, because firmware
/// starts its lines with such sequences.
#[derive(Default)]
pub(super) enum Cleaner {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Cleaner {
    /// Returns the character that the next byte stands for, if any.
    pub(super) fn clean(&mut self, byte: u8) -> Option<u8> {
        match self {
            Self::Text => match byte {
                0x1b => {
                    *self = Self::Escape;
                    None
                }
                b'\n' => Some(b'\n'),
                b'\t' => Some(b' '),
                0..0x20 | 0x7f => None,
                _ => Some(byte),
            },
            Self::Escape => {
                *self = if byte == b'[' { Self::Sequence } else { Self::Text };
                None
            }
            // ECMA-48: parameter and intermediate bytes, then one final byte.
            Self::Sequence if (0x40..=0x7e).contains(&byte) => {
                *self = Self::Text;
                (byte == b'H' || byte == b'J').then_some(b'\n')
            }
            Self::Sequence => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_firmware_screen_into_lines() {
        let output = b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2JBdsDxe: starting\r\n\r\n\x1b[0mshim\x1b[1;";
        let mut filter = ConsoleFilter::default();
        let mut text = filter.clean(output);
        text.extend(filter.clean(b"1Hgrub"));
        assert_eq!(String::from_utf8(text).unwrap(), "\nBdsDxe: starting\nshim\ngrub");
    }
}
