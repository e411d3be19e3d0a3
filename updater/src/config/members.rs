//! The names of the members of an object, also if the object is not valid JSON, and what they say about
//! the program that the object is for.

/// The keys of a configuration, in the order of [`super::fragment::Fragment`].
pub(super) const KEYS: [&str; 12] = [
    "cdn",
    "variant",
    "keys",
    "allowedOrigins",
    "proxy",
    "noProxy",
    "ca",
    "rateLimit",
    "health",
    "reboot",
    "metrics",
    "listen",
];
/// Keys of Etcha's own configuration that a configuration of the updater does not have.
const ETCHA: [&str; 11] = [
    "build", "cli", "commands", "exec", "jsonnet", "lint", "run", "sources", "targets", "test",
    "vars",
];
/// The maximum number of names that are looked at.
const NAMES_MAX: usize = 256;

/// The name of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    /// Jsonnet and YAML allow names without quotes, JSON does not.
    pub(super) has_quotes: bool,
}

/// Returns the names of the members of the outermost object, up to the first error of syntax. Understands
/// JSON, and as much of Jsonnet as is necessary to find names: comments, and names without quotes.
pub(super) fn names(text: &[u8]) -> Vec<Name> {
    let mut reader = Reader { text, at: 0 };
    let mut names = Vec::new();
    reader.skip_space();
    // Jsonnet declares variables before the object.
    while text[reader.at..].starts_with(b"local ") && reader.skip_past(b';') {
        reader.skip_space();
    }
    if reader.next() != Some(b'{') {
        return names;
    }
    while names.len() < NAMES_MAX {
        let Some(name) = reader.name() else { break };
        names.push(name);
        if !reader.skip_past(b',') {
            break;
        }
    }
    names
}

/// Returns whether one of the names is a key of a configuration.
pub(super) fn is_ours(names: &[Name]) -> bool {
    names.iter().any(|name| KEYS.contains(&name.text.as_str()))
}

/// Returns the first key of Etcha's configuration, if the names are those of such a configuration.
pub(super) fn etcha_key(names: &[Name]) -> Option<&str> {
    if is_ours(names) {
        return None;
    }
    names.iter().map(|name| name.text.as_str()).find(|name| ETCHA.contains(name))
}

/// Explains an object that is no configuration, if it is one of Etcha, or is written in Jsonnet.
pub(super) fn explain(text: &[u8]) -> Option<String> {
    let names = names(text);
    if let Some(key) = etcha_key(&names) {
        let keys = KEYS.join(", ");
        return Some(format!(
            "it is a configuration of Etcha itself, because it has `{key}`; expected a configuration of etchaos-updater, which is a JSON object with the keys {keys}"
        ));
    }
    let bare = names.iter().find(|name| !name.has_quotes && KEYS.contains(&name.text.as_str()))?;
    Some(format!(
        "`{}` has no quotes, as in Jsonnet; expected JSON: render it, or write the names in quotes",
        bare.text
    ))
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) {
        loop {
            let rest = &self.text[self.at.min(self.text.len())..];
            let length = match rest {
                [byte, ..] if byte.is_ascii_whitespace() => 1,
                [b'#', ..] | [b'/', b'/', ..] => {
                    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
                }
                [b'/', b'*', ..] => {
                    rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |at| at + 2)
                }
                _ => return,
            };
            self.at += length;
        }
    }

    /// Reads a name and its colon.
    fn name(&mut self) -> Option<Name> {
        self.skip_space();
        let start = self.at;
        let (bytes, has_quotes) = match self.peek()? {
            quote @ (b'"' | b'\'') => {
                self.skip_string(quote);
                (self.text.get(start + 1..self.at - 1)?, true)
            }
            _ => {
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
                while self.peek().is_some_and(is_name) {
                    self.at += 1;
                }
                (&self.text[start..self.at], false)
            }
        };
        self.skip_space();
        let is_member = !bytes.is_empty() && self.next() == Some(b':');
        is_member.then(|| Name { text: String::from_utf8_lossy(bytes).into_owned(), has_quotes })
    }

    /// Skips a string up to its closing quote.
    fn skip_string(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.next() {
            match byte {
                b'\\' => self.at += 1,
                byte if byte == quote => return,
                _ => {}
            }
        }
        // `name` expects a closing quote before the position.
        self.at = self.text.len() + 1;
    }

    /// Skips a value and the byte that ends it. Returns `false` if the object or the text ends first.
    fn skip_past(&mut self, end: u8) -> bool {
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            match self.peek() {
                None => return false,
                Some(quote @ (b'"' | b'\'')) => {
                    self.skip_string(quote);
                    continue;
                }
                Some(b'{' | b'[' | b'(') => depth += 1,
                Some(b'}' | b']' | b')') => match depth.checked_sub(1) {
                    Some(less) => depth = less,
                    None => return false,
                },
                Some(byte) if depth == 0 && byte == end => {
                    self.at += 1;
                    return true;
                }
                Some(_) => {}
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragment::Fragment;
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<String> {
        names(text.as_bytes()).into_iter().map(|name| name.text).collect()
    }

    /// serde's message for an unknown member lists the members of [`Fragment`].
    #[test]
    fn keys_are_those_of_a_fragment() {
        let error = Fragment::from_json(br#"{"x": 1}"#).unwrap_err();
        let keys = KEYS.map(|key| format!("`{key}`")).join(", ");
        assert!(error.contains(&format!("expected one of {keys},")), "{error}");
    }

    #[test]
    fn finds_names_up_to_the_first_error() {
        assert_eq!(texts(r#"{"a": {"x": [1, "},"]}, "b": "\"}", "c"#), ["a", "b"]);
        assert_eq!(texts(r#" {"cdn": "#), ["cdn"]);
        assert_eq!(texts("// x\n{ /* , */ run: { a: 'b, c' }, # z\n sources+:: {}, }"), ["run"]);
        assert_eq!(texts("{run: std.foo(1, 2), 'b': 1}"), ["run", "b"]);
        assert_eq!(texts("local x = { y: ';' };\nlocal f(a) = a;\n{ run: x }"), ["run"]);
        for none in ["", "{", "[]", "{}", "{\"a", "{,", "{\"a\" 1}", "a: b", "{\"a\\"] {
            assert!(texts(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn recognises_etcha_and_jsonnet() {
        for (text, part) in [
            (r#"{"run": {}, "x": 1}"#, "because it has `run`"),
            ("{ sources: { ci: {} } }", "because it has `sources`"),
            ("{ cdn: 'x' }", "`cdn` has no quotes"),
        ] {
            assert!(explain(text.as_bytes()).unwrap().contains(part), "{text}");
        }
        for text in [r#"{"cdn": "x", "run": {}}"#, r#"{"x": {"run": 1}}"#, "{}", ""] {
            assert_eq!(explain(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn does_not_panic_on_any_text(text in "(local )?[\\[\\]{}\":;,a'\\\\#/* é\n]{0,40}") {
            let _ = names(text.as_bytes());
        }
    }
}
