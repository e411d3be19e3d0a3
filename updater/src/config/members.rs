//! The names of the members of an object, also if the object is not valid JSON, and what they say about
//! the program that the object is for.

/// The keys of a configuration, in the order of [`super::fragment::Fragment`].
pub(super) const KEYS: [&str; 17] = [
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
    "data",
    "hostname",
    "interfaces",
    "ntp",
    "sources",
];
/// Keys that configurations of cloud-init have too. They do not say that a text is a configuration.
const SHARED: [&str; 2] = ["hostname", "ntp"];
/// Keys of Etcha's own configuration. A configuration of the updater has only `sources` of them.
const ETCHA: [&str; 12] = [
    "build",
    "cli",
    "commands",
    "exec",
    "fallthrough",
    "jsonnet",
    "lint",
    "run",
    "sources",
    "targets",
    "test",
    "vars",
];
/// What begins and ends a text of several lines in Jsonnet.
const TEXT_BLOCK: &[u8] = b"|||";
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
/// JSON, and as much of Jsonnet as is necessary to find names.
pub(super) fn names(text: &[u8]) -> Vec<Name> {
    Reader::new(text).names()
}

/// Returns whether an object with these names is a configuration: more than half of them are keys of one that
/// are not in [`SHARED`], and they are not those of another program. Other programs use names such as `metrics`
/// too, and a configuration may have a typing error.
pub(super) fn is_ours(names: &[Name]) -> bool {
    let ours = names.iter().filter(|name| name.is_own_key()).count();
    2 * ours > names.len() && other_program(names).is_none()
}

/// Returns the keys that are not in [`SHARED`], for messages.
pub(super) fn own_keys() -> String {
    KEYS.into_iter().filter(|key| !SHARED.contains(key)).collect::<Vec<_>>().join(", ")
}

/// Returns whether all names are keys of a configuration, and there is at least one that is not in [`SHARED`].
pub(super) fn are_all_ours(names: &[Name]) -> bool {
    names.iter().any(Name::is_own_key) && names.iter().all(Name::is_key)
}

/// Returns the program to which the names of an object belong, whatever else it has.
pub(super) fn other_program(names: &[Name]) -> Option<&'static str> {
    let has = |text: &str| names.iter().any(|name| name.text == text);
    match (has("ignition"), has("variant") && has("version")) {
        (true, _) => Some("Ignition"),
        // Butane is YAML, of which JSON is a part.
        (_, true) => Some("Butane"),
        _ => None,
    }
}

/// Returns the first key of Etcha's configuration, if the names are those of such a configuration.
pub(super) fn etcha_key(names: &[Name]) -> Option<&str> {
    let is_shared = |name: &Name| name.is_key() && ETCHA.contains(&name.text.as_str());
    if names.iter().any(|name| name.is_key() && !is_shared(name)) {
        return None;
    }
    let others = names.iter().filter(|name| !is_shared(name));
    others.map(|name| name.text.as_str()).find(|name| ETCHA.contains(name))
}

/// Explains an object that is no configuration, if it is one of Etcha, or is written in Jsonnet.
pub(super) fn explain(text: &[u8]) -> Option<String> {
    let mut reader = Reader::new(text);
    let names = reader.names();
    if let Some(key) = etcha_key(&names) {
        let keys = KEYS.join(", ");
        return Some(format!(
            "it is a configuration of Etcha itself, because it has `{key}`; expected a configuration of etchaos-updater, which is a JSON object with the keys {keys}"
        ));
    }
    if let Some(bare) = names.iter().find(|name| !name.has_quotes && name.is_key()) {
        return Some(format!(
            "`{}` has no quotes, as in Jsonnet; expected JSON: render it, or write the names in quotes",
            bare.text
        ));
    }
    let is_jsonnet = reader.is_jsonnet && !names.is_empty();
    is_jsonnet.then(|| {
        "it is Jsonnet, because it has comments, variables or texts in single quotes; expected JSON: render it"
            .to_owned()
    })
}

impl Name {
    /// Returns whether this is a key of a configuration, as it is written there or in snake case.
    pub(super) fn is_key(&self) -> bool {
        let text = self.text.replace(['_', '-'], "");
        KEYS.iter().any(|key| key.eq_ignore_ascii_case(&text))
    }

    /// Returns whether this is a key of a configuration that other programs do not have.
    pub(super) fn is_own_key(&self) -> bool {
        self.is_key() && !SHARED.iter().any(|key| key.eq_ignore_ascii_case(&self.text))
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether there was something that JSON does not have.
    is_jsonnet: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, is_jsonnet: false }
    }

    fn names(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        self.skip_space();
        // Jsonnet declares variables before the object.
        while self.starts_with(b"local ") && self.skip_past(b';') {
            self.is_jsonnet = true;
            self.skip_space();
        }
        // A call such as `std.mergePatch({…}, …)`.
        if self.starts_with(b"std.") {
            self.is_jsonnet = true;
            let rest = &self.text[self.at..];
            self.at += rest.iter().position(|byte| *byte == b'{').unwrap_or(rest.len());
        }
        if self.next() != Some(b'{') {
            return names;
        }
        while names.len() < NAMES_MAX {
            self.skip_space();
            if self.starts_with(b"local ") || self.starts_with(b"assert ") {
                self.is_jsonnet = true;
            } else {
                let Some(name) = self.name() else { break };
                names.push(name);
            }
            if !self.skip_past(b',') {
                break;
            }
        }
        names
    }

    fn starts_with(&self, start: &[u8]) -> bool {
        self.text.get(self.at..).is_some_and(|rest| rest.starts_with(start))
    }

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
            self.is_jsonnet |= !rest[0].is_ascii_whitespace();
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
        // Jsonnet's `+:` extends a member, and `::` and `:::` hide or show it.
        if self.peek() == Some(b'+') {
            self.at += 1;
        }
        let is_member = !bytes.is_empty() && self.next() == Some(b':');
        is_member.then(|| Name { text: String::from_utf8_lossy(bytes).into_owned(), has_quotes })
    }

    /// Skips a string up to its closing quote.
    fn skip_string(&mut self, quote: u8) {
        self.is_jsonnet |= quote == b'\'';
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

    /// Skips a text of several lines up to its end.
    fn skip_text_block(&mut self) {
        self.is_jsonnet = true;
        self.at += TEXT_BLOCK.len();
        let mut rest = self.text[self.at..].windows(TEXT_BLOCK.len());
        let length = rest.position(|part| part == TEXT_BLOCK);
        self.at = length.map_or(self.text.len(), |length| self.at + length + TEXT_BLOCK.len());
    }

    /// Skips a value and the byte that ends it. Returns `false` if the object or the text ends first.
    fn skip_past(&mut self, end: u8) -> bool {
        let mut depth = 0_usize;
        loop {
            self.skip_space();
            if self.starts_with(TEXT_BLOCK) {
                self.skip_text_block();
                continue;
            }
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
        assert_eq!(
            texts("// x\n{ /* , */ run: { a: 'b, c' }, # z\n sources+:: {}, }"),
            ["run", "sources"]
        );
        assert_eq!(texts("{run: std.foo(1, 2), 'b': 1}"), ["run", "b"]);
        assert_eq!(texts("local x = { y: ';' };\nlocal f(a) = a;\n{ run: x }"), ["run"]);
        assert_eq!(texts("{ a+: { b: 1 }, 'c'+:: 2, d::: 3 }"), ["a", "c", "d"]);
        assert_eq!(texts("{ local x = 1, assert x == 1, run: x }"), ["run"]);
        assert_eq!(texts("{ a: |||\n  it's {\n|||, b: 1 }"), ["a", "b"]);
        assert_eq!(texts("std.mergePatch({ a: 1, b: 2 }, { c: 3 })"), ["a", "b"]);
        for none in ["", "{", "[]", "{}", "{\"a", "{,", "{\"a\" 1}", "a: b", "{\"a\\"] {
            assert!(texts(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn recognises_etcha_and_jsonnet() {
        for (text, part) in [
            (r#"{"run": {}, "x": 1}"#, "because it has `run`"),
            ("{ sources: { ci: {} }, targets: {} }", "because it has `targets`"),
            ("{ sources: { ci: {} } }", "`sources` has no quotes"),
            ("{ cdn: 'x' }", "`cdn` has no quotes"),
            ("local k = 'x';\n{ \"cdn\": k }", "is Jsonnet"),
            ("// a comment\n{ \"cdn\": \"x\" }", "is Jsonnet"),
            ("{ \"cdn\": 'x' }", "is Jsonnet"),
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
