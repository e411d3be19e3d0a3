//! The format of the environment block.

use std::collections::BTreeMap;

use crate::excerpt::excerpt;

/// The size of the block, which GRUB requires.
pub const SIZE: usize = 1024;
/// The number of bytes that a disk writes atomically.
const SECTOR: usize = 512;
/// The first line of the block.
const SIGNATURE: &str = "# GRUB Environment Block\n";

/// Why an environment block cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrubenvError {
    /// The size is not [`SIZE`].
    #[error("grubenv has {0} bytes, expected {SIZE}")]
    Size(usize),
    /// The first line is not the one that GRUB requires.
    #[error("grubenv does not begin with the line \"# GRUB Environment Block\"")]
    Signature,
    /// A line is not `name=value`, or the bytes are not UTF-8.
    #[error("grubenv has a damaged line {0:?}")]
    Line(String),
    /// A variable has an invalid value.
    #[error("grubenv has {name}={value:?}, expected {expected}")]
    Value {
        /// The name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// The values that are valid.
        expected: &'static str,
    },
    /// The variables do not fit into one sector.
    #[error(
        "the variables of grubenv take {0} bytes, more than the {SECTOR} that a disk writes atomically"
    )]
    TooLong(usize),
}

/// The variables of a block, including those of other programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block(BTreeMap<String, String>);

impl Block {
    /// Parses a block.
    ///
    /// # Errors
    /// Fails if the bytes are not a block in GRUB's format.
    pub fn parse(bytes: &[u8]) -> Result<Self, GrubenvError> {
        if bytes.len() != SIZE {
            return Err(GrubenvError::Size(bytes.len()));
        }
        let text = str::from_utf8(bytes).map_err(|_| GrubenvError::Line("(not UTF-8)".into()))?;
        let mut rest = text.strip_prefix(SIGNATURE).ok_or(GrubenvError::Signature)?.as_bytes();
        let mut variables = BTreeMap::new();
        while !rest.is_empty() {
            let Line { bytes, is_ended, after } = unescaped(rest);
            // GRUB skips comments wherever they are (grub_envblk_iterate): grub-editenv writes a second one
            // after the first line, and the padding at the end is one more.
            if !rest.starts_with(b"#") {
                let line = String::from_utf8_lossy(&bytes);
                let (name, value) = line
                    .split_once('=')
                    .filter(|(name, _)| is_ended && is_name(name))
                    .ok_or_else(|| GrubenvError::Line(excerpt(&line)))?;
                variables.insert(name.to_owned(), value.to_owned());
            }
            rest = after;
        }
        Ok(Self(variables))
    }

    /// Returns the variables that GRUB reads (`grub_envblk_iterate`), also from a block that [`Block::parse`]
    /// rejects: of another size, or with damaged lines. Returns `None` without the first line, which GRUB
    /// requires.
    pub fn as_grub_reads(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(SIGNATURE.as_bytes())?;
        let mut variables = BTreeMap::new();
        while !rest.is_empty() {
            let is_comment = rest[0] == b'#';
            // A line without "=" becomes part of the next name.
            let equals = rest.iter().position(|byte| *byte == b'=').filter(|_| !is_comment);
            let Line { bytes, is_ended, after } = unescaped(&rest[equals.map_or(0, |at| at + 1)..]);
            match equals {
                _ if !is_ended => break,
                Some(at) => {
                    let texts = (str::from_utf8(&rest[..at]), String::from_utf8(bytes));
                    if let (Ok(name), Ok(value)) = texts {
                        variables.insert(name.to_owned(), value);
                    }
                }
                None if is_comment => {}
                None => break,
            }
            rest = after;
        }
        Some(Self(variables))
    }

    /// Returns the value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// Returns the block in GRUB's format, with the variables sorted by name, so that the same
    /// variables always give the same bytes.
    ///
    /// # Errors
    /// Fails if the variables do not fit into the first 512 bytes.
    pub fn to_bytes(&self) -> Result<[u8; SIZE], GrubenvError> {
        let mut text = SIGNATURE.to_owned();
        for (name, value) in &self.0 {
            let value = value.replace('\\', "\\\\").replace('\n', "\\\n");
            text.push_str(&format!("{name}={value}\n"));
        }
        if text.len() > SECTOR {
            return Err(GrubenvError::TooLong(text.len()));
        }
        let mut bytes = [b'#'; SIZE];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(bytes)
    }
}

/// Returns whether a variable with this name is read as it was written. GRUB escapes values only, and
/// a line that starts with `#` is a comment.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('#') && !name.contains(['\\', '\n'])
}

/// A line.
struct Line<'a> {
    /// Its bytes, with their escapes resolved.
    bytes: Vec<u8>,
    /// Whether a newline follows the line. GRUB ignores a variable if none does.
    is_ended: bool,
    /// The bytes after the line.
    after: &'a [u8],
}

/// Returns the first line. Escapes and newlines are single bytes, also in UTF-8.
fn unescaped(text: &[u8]) -> Line<'_> {
    let mut bytes = Vec::new();
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\n' => return Line { bytes, is_ended: true, after: rest.as_slice() },
            b'\\' => bytes.extend(rest.next()),
            _ => bytes.push(*byte),
        }
    }
    Line { bytes, is_ended: false, after: &[] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_blocks_of_grub_and_keeps_other_variables() {
        // Like a block of grub-editenv, which keeps the order in which variables were set.
        let mut bytes = b"# GRUB Environment Block\nsaved_entry=x\\\\y\netchaos_good=a\n".to_vec();
        bytes.resize(SIZE, b'#');
        let mut block = Block::parse(&bytes).unwrap();
        assert_eq!(block.get("saved_entry"), Some("x\\y"));
        block.set("etchaos_good", "b");
        let again = Block::parse(&block.to_bytes().unwrap()).unwrap();
        assert_eq!(again.get("saved_entry"), Some("x\\y"));
        assert_eq!(again.get("etchaos_good"), Some("b"));
    }

    #[test]
    fn reads_variables_after_comments() {
        // `grub-editenv create` writes the second line since GRUB 2.06.
        let warning = "# WARNING: Do not edit this file by tools other than grub-editenv!!!\n";
        for comment in [warning, "#\n", "#x=1\\\ny=2\n", "# a\n# b\n"] {
            for lines in [
                format!("{comment}etchaos_good=b\netchaos_failed=1\n"),
                format!("etchaos_good=b\n{comment}etchaos_failed=1\n"),
            ] {
                let mut bytes = [SIGNATURE, lines.as_str()].concat().into_bytes();
                bytes.resize(SIZE, b'#');
                let block = Block::parse(&bytes).unwrap();
                let values = [block.get("etchaos_good"), block.get("etchaos_failed")];
                assert_eq!(values, [Some("b"), Some("1")], "{lines:?}");
                assert_eq!(block.0.len(), 2, "{lines:?}");
            }
        }
    }

    #[test]
    fn reports_the_kind_of_damage() {
        let good = Block::default().to_bytes().unwrap();
        assert_eq!(Block::parse(&good[..1000]), Err(GrubenvError::Size(1000)));
        assert_eq!(Block::parse(&[0; SIZE]), Err(GrubenvError::Signature));
        // These names would change if they were written and read again.
        for line in ["\\#x=1\n", "x\\\ny=1\n", "x\\\\=1\n"] {
            let mut bytes = [SIGNATURE.as_bytes(), line.as_bytes()].concat();
            bytes.resize(SIZE, b'#');
            assert!(matches!(Block::parse(&bytes), Err(GrubenvError::Line(_))), "{line:?}");
        }
        // GRUB ignores the last line if no newline follows it.
        let mut bytes = [SIGNATURE, "x="].concat().into_bytes();
        bytes.resize(SIZE, b'y');
        assert!(matches!(Block::parse(&bytes), Err(GrubenvError::Line(_))));
        let mut block = Block::default();
        block.set("x", &"y".repeat(600));
        assert!(matches!(block.to_bytes(), Err(GrubenvError::TooLong(_))));
    }

    #[test]
    fn reads_what_grub_reads_from_a_damaged_block() {
        for (text, expected) in [
            ("etchaos_disk=1\n", Some("1")),
            ("etchaos_disk=1\netchaos_disk=2\n", Some("2")),
            ("#etchaos_disk=1\n", None),
            ("no equals sign\netchaos_disk=1\netchaos_disk=2\n", Some("2")),
            ("x=\\\netchaos_disk=1\n", None),
            ("etchaos_disk=\\1\n", Some("1")),
            ("etchaos_disk", None),
            ("", None),
        ] {
            for size in [text.len(), 100, 2000] {
                let mut bytes = [SIGNATURE, "x=\n", text].concat().into_bytes();
                bytes.resize(bytes.len() + size, b'#');
                let block = Block::as_grub_reads(&bytes).unwrap();
                assert_eq!(block.get("etchaos_disk"), expected, "{text:?}");
            }
        }
        // GRUB ignores the last line if no newline follows it (grub_envblk_iterate).
        for text in ["etchaos_disk=1", "etchaos_disk=1\\", "etchaos_disk=1\\\n", "#x"] {
            let bytes = [SIGNATURE, "etchaos_good=a\n", text].concat().into_bytes();
            let block = Block::as_grub_reads(&bytes).unwrap();
            assert_eq!(block.get("etchaos_disk"), None, "{text:?}");
            assert_eq!(block.get("etchaos_good"), Some("a"), "{text:?}");
        }
        let not_utf8 = [SIGNATURE.as_bytes(), b"etchaos_version_a=\xff\netchaos_disk=1\n"].concat();
        assert_eq!(Block::as_grub_reads(&not_utf8).unwrap().get("etchaos_disk"), Some("1"));
        assert_eq!(Block::as_grub_reads(b"etchaos_disk=1\n"), None);
    }

    proptest! {
        #[test]
        fn does_not_panic_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), SIZE)) {
            let _ = Block::parse(&bytes);
            let mut signed = bytes;
            signed[..SIGNATURE.len()].copy_from_slice(SIGNATURE.as_bytes());
            let _ = Block::as_grub_reads(&signed);
            let _ = Block::parse(&signed);
        }

        #[test]
        fn round_trips_variables(values in proptest::collection::btree_map("[a-z_]{1,8}", "[ -~\n]{0,20}", 0..8)) {
            let block = Block(values);
            prop_assert_eq!(Block::as_grub_reads(&block.to_bytes().unwrap()), Some(block.clone()));
            prop_assert_eq!(Block::parse(&block.to_bytes().unwrap()), Ok(block));
        }
    }
}
