//! The format of the environment block.

use std::collections::BTreeMap;

use crate::target::shortened;

/// The size that GRUB demands.
pub const SIZE: usize = 1024;
/// The part that a disk writes as a whole.
const SECTOR: usize = 512;
/// The first line.
const SIGNATURE: &str = "# GRUB Environment Block\n";
/// A block that GRUB or we cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrubenvError {
    /// Another size than GRUB's.
    #[error("grubenv has {0} bytes, expected {SIZE}")]
    Size(usize),
    /// The first line is missing.
    #[error("grubenv does not begin with GRUB's first line")]
    Signature,
    /// A line that is not `name=value`, or bytes that are not UTF-8.
    #[error("grubenv has a damaged line {0:?}")]
    Line(String),
    /// A variable that does not say what it should.
    #[error("grubenv says {name}={value:?}, expected {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The variables would not fit into one sector.
    #[error(
        "the variables of grubenv take {0} bytes, more than the {SECTOR} that a disk writes at once"
    )]
    TooLong(usize),
}

/// The variables of a block. Those that are not ours are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block(BTreeMap<String, String>);

impl Block {
    /// Reads a block.
    pub fn parse(bytes: &[u8]) -> Result<Self, GrubenvError> {
        if bytes.len() != SIZE {
            return Err(GrubenvError::Size(bytes.len()));
        }
        let text = str::from_utf8(bytes).map_err(|_| GrubenvError::Line("(not UTF-8)".into()))?;
        let mut rest = text.strip_prefix(SIGNATURE).ok_or(GrubenvError::Signature)?;
        let mut variables = BTreeMap::new();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (line, after) = unescaped_line(rest);
            let (name, value) = line
                .split_once('=')
                .filter(|(name, _)| is_name(name))
                .ok_or_else(|| GrubenvError::Line(shortened(&line)))?;
            variables.insert(name.to_owned(), value.to_owned());
            rest = after;
        }
        Ok(Self(variables))
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// The block as it is written. Ours come first in the alphabet's order, so the same variables
    /// always give the same bytes.
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

/// Whether a line that begins with this name is read as it was written: only values are escaped, and
/// a `#` is the end.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('#') && !name.contains(['\\', '\n'])
}

/// The first line without its escapes, and what comes after it.
fn unescaped_line(text: &str) -> (String, &str) {
    let mut line = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\n' => return (line, &text[at + 1..]),
            '\\' => line.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => line.push(c),
        }
    }
    (line, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_grub_writes_is_read_and_foreign_variables_stay() {
        // As written by grub-editenv: variables in the order they were set.
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
    fn damage_is_an_error_that_says_what() {
        let good = Block::default().to_bytes().unwrap();
        assert_eq!(Block::parse(&good[..1000]), Err(GrubenvError::Size(1000)));
        assert_eq!(Block::parse(&[0; SIZE]), Err(GrubenvError::Signature));
        // Names that would be read otherwise once they are written.
        for line in ["\\#x=1\n", "x\\\ny=1\n", "x\\\\=1\n"] {
            let mut bytes = [SIGNATURE.as_bytes(), line.as_bytes()].concat();
            bytes.resize(SIZE, b'#');
            assert!(matches!(Block::parse(&bytes), Err(GrubenvError::Line(_))), "{line:?}");
        }
        let mut block = Block::default();
        block.set("x", &"y".repeat(600));
        assert!(matches!(block.to_bytes(), Err(GrubenvError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), SIZE)) {
            let _ = Block::parse(&bytes);
            let mut signed = bytes;
            signed[..SIGNATURE.len()].copy_from_slice(SIGNATURE.as_bytes());
            let _ = Block::parse(&signed);
        }

        #[test]
        fn any_variables_round_trip(values in proptest::collection::btree_map("[a-z_]{1,8}", "[ -~\n]{0,20}", 0..8)) {
            let block = Block(values);
            prop_assert_eq!(Block::parse(&block.to_bytes().unwrap()), Ok(block));
        }
    }
}
