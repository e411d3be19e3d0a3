//! The code blocks of `docs/first-host.md`.

use std::path::{Path, PathBuf};

/// The name of a block that shows the output of the commands before it.
const OUTPUT: &str = "output";
/// Stands for any text within a line of an output.
const ANY: char = '…';

/// A code block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The language, such as `sh`.
    pub(crate) language: String,
    /// The name that follows the language.
    pub(crate) name: String,
    pub(crate) text: String,
    /// The output that the page shows, for commands.
    pub(crate) output: Option<String>,
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn blocks() -> Vec<Block> {
    parse(&std::fs::read_to_string(repository().join("docs/first-host.md")).unwrap())
}

/// Returns the code blocks of a page. An output belongs to the commands before it.
pub(crate) fn parse(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut text = String::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("the block {info:?} has no end"));
            if line == "```" {
                break;
            }
            text.push_str(line);
            text.push('\n');
        }
        let (language, name) = info.split_once(' ').unwrap_or((info, ""));
        if name == OUTPUT {
            let commands = found.last_mut().filter(|block| block.language == "sh");
            commands.expect("an output follows commands").output = Some(text);
            continue;
        }
        let (language, name) = (language.to_owned(), name.to_owned());
        found.push(Block { language, name, text, output: None });
    }
    found
}

/// Returns whether an output is the expected one, in which `…` stands for any text within a line.
pub(crate) fn is_output(expected: &str, found: &str) -> bool {
    expected.lines().count() == found.lines().count()
        && expected.lines().zip(found.lines()).all(|(expected, found)| is_line(expected, found))
}

fn is_line(expected: &str, found: &str) -> bool {
    let mut parts = expected.split(ANY);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}
