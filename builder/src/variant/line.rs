//! Finds the line of a field in the source of a file.

use serde_json::Value;

/// Returns the line of a field, counted from 1, or `None` if the source does not tell.
///
/// The evaluation of Jsonnet does not keep the places of fields, so the source is searched for the value if it
/// is a text, and for the name. A line is returned only if there is no other candidate.
pub(super) fn line_of(source: &str, name: &str, value: &Value) -> Option<usize> {
    let text = value.as_str().filter(|text| !text.is_empty());
    let by_value = text.and_then(|text| only_line(source, |line| has_text(line, text)));
    by_value.or_else(|| only_line(source, |line| has_field(line, name)))
}

fn only_line(source: &str, matches: impl Fn(&str) -> bool) -> Option<usize> {
    let mut lines = source.lines().enumerate().filter(|(_, line)| matches(line));
    let (index, _) = lines.next()?;
    lines.next().is_none().then_some(index + 1)
}

/// Returns whether a line has a text in quotes.
fn has_text(line: &str, text: &str) -> bool {
    ['\'', '"'].iter().any(|quote| line.contains(&format!("{quote}{text}{quote}")))
}

/// Returns whether a line has a field, such as `name:`, `'name'+:` or `name::`.
fn has_field(line: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(name).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + name.len()..]);
        let after = after.trim_start_matches(['\'', '"']).trim_start();
        !name.is_empty()
            && !before.ends_with(is_word)
            && after.strip_prefix('+').unwrap_or(after).starts_with(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SOURCE: &str = "{
  packges: ['tcpdump', 'TCPDUMP'],
  'units'+: { enable: ['sockets.timer'] },
  files: [
    { path: '/etc/a', content: 'x', mode: '644' },
    { path: '/etc/b', content: 'x', mode: \"4755\" },
  ],
}
";

    #[test]
    fn finds_fields_and_texts_that_occur_once() {
        for (name, value, expected) in [
            ("packges", json!(["tcpdump"]), Some(2)),
            ("packages", json!("TCPDUMP"), Some(2)),
            ("units", json!({}), Some(3)),
            ("mode", json!("4755"), Some(6)),
            ("files", json!([]), Some(4)),
        ] {
            assert_eq!(line_of(SOURCE, name, &value), expected, "{name}");
        }
    }

    #[test]
    fn returns_no_line_if_there_are_several_or_none() {
        for (name, value) in
            [("mode", json!(5)), ("content", json!("x")), ("nothing", json!(1)), ("", json!(""))]
        {
            assert_eq!(line_of(SOURCE, name, &value), None, "{name}");
        }
    }
}
