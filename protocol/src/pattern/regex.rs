//! Regular expressions of operators, with limits.

use regex_lite::{Regex, RegexBuilder};

use super::limits::{REGEX_COMPILED_MAX, REGEX_DEPTH_MAX, REGEX_MAX};

/// A regular expression that is too large or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// The text is too long.
    #[error("is longer than {REGEX_MAX} bytes, the limit of a regular expression")]
    TooLong,
    /// The syntax is wrong, or the compiled form is too large.
    #[error("is not a regular expression: {0}")]
    Syntax(String),
}

/// Compiles a regular expression. As in Go's package regexp, which Etcha uses, it matches anywhere in a text,
/// `\d`, `\s` and `\w` are ASCII, and the time to match is linear. Classes such as `\pL` are not supported.
///
/// # Errors
/// Fails if the expression is not valid or exceeds a limit.
pub fn regex(text: &str) -> Result<Regex, RegexError> {
    if text.len() > REGEX_MAX {
        return Err(RegexError::TooLong);
    }
    let mut builder = RegexBuilder::new(text);
    let builder = builder.size_limit(REGEX_COMPILED_MAX).nest_limit(REGEX_DEPTH_MAX);
    builder.build().map_err(|error| RegexError::Syntax(error.to_string()))
}

/// Selects Commands by the ids of the groups that contain them.
#[derive(Debug, Clone)]
pub struct Filter(Option<Regex>);

impl Filter {
    /// Creates a filter from a regular expression. An empty one selects all Commands.
    ///
    /// # Errors
    /// As [`regex`].
    pub fn new(text: &str) -> Result<Self, RegexError> {
        if text.is_empty() { Ok(Self(None)) } else { regex(text).map(|regex| Self(Some(regex))) }
    }

    /// Returns whether Commands are selected whose parent id is this text: the name of the source and the
    /// ids of the groups, as in `ci > packages > docker`.
    pub fn selects(&self, parent: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiles_only_small_expressions() {
        assert!(regex("^nginx (re)?start$").unwrap().is_match("nginx restart"));
        assert!(regex("start").unwrap().is_match("restart it"));
        for text in ["(", "a{1000}{1000}", &"(".repeat(100), r"\pL", "[z-a]"] {
            assert!(matches!(regex(text), Err(RegexError::Syntax(_))), "{text}");
        }
        assert_eq!(regex(&"a".repeat(REGEX_MAX + 1)).unwrap_err(), RegexError::TooLong);
    }

    #[test]
    fn an_empty_filter_selects_everything() {
        assert!(Filter::new("").unwrap().selects("ci"));
        let filter = Filter::new("^ci > web").unwrap();
        assert!(filter.selects("ci > web > nginx") && !filter.selects("ci"));
        assert!(Filter::new("(").is_err());
    }
}
