//! Text without what only a terminal understands.

/// A filter for showing a console: only its text.
#[derive(Default)]
pub struct Cleaned {
    cleaner: Cleaner,
    blank: bool,
}

impl Cleaned {
    /// What is left of the next bytes. Of several line ends in a row, one is.
    pub fn clean(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        for byte in bytes.iter().filter_map(|byte| self.cleaner.clean(*byte)) {
            if byte != b'\n' || !self.blank {
                text.push(byte);
            }
            self.blank = byte == b'\n';
        }
        text
    }
}

/// Leaves out escape sequences and control characters. A sequence that moves the cursor ends the
/// line: firmware draws its lines that way.
#[derive(Default)]
pub(super) enum Cleaner {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Cleaner {
    /// What is left of the next byte.
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
            // ECMA-48: parameters and intermediates, then one final byte.
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
    fn a_screen_full_of_firmware_becomes_lines() {
        let said = b"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[2JBdsDxe: starting\r\n\r\n\x1b[0mshim\x1b[1;";
        let mut cleaned = Cleaned::default();
        let mut text = cleaned.clean(said);
        text.extend(cleaned.clean(b"1Hgrub"));
        assert_eq!(String::from_utf8(text).unwrap(), "\nBdsDxe: starting\nshim\ngrub");
    }
}
