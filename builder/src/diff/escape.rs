//! Escapes text from outside, so that it shows as what it is and controls nothing.

/// Returns whether a character has no shape of its own: a control character, or one that changes the
/// direction or the joining of others. A terminal or a browser could be made to show another text.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// Returns the text with invisible characters as `\u{…}`.
pub(crate) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_invisible(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown
}

/// Returns a JSON text with invisible characters as `\uXXXX`, except for line ends between values.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_invisible(c) && c != '\n' {
            // All invisible characters are below U+10000, where one unit is enough.
            true => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => shown.push(c),
        }
    }
    shown
}

/// Returns the text as inline code of Markdown, also within a table.
///
/// In inline code, nothing but a backtick has a meaning, and in a table the vertical bar. A text with
/// one of these is written with character references, which never have a meaning as Markdown.
pub(super) fn code(text: &str) -> String {
    let text = plain(text);
    let is_blank = text.trim().is_empty();
    if is_blank || text.contains(['`', '|']) {
        let reference = |c: char| match c.is_ascii_alphanumeric() || !c.is_ascii() {
            true => c.to_string(),
            false => format!("&#{};", u32::from(c)),
        };
        return format!("<code>{}</code>", text.chars().map(reference).collect::<String>());
    }
    format!("`{text}`")
}

/// Returns a block of code of Markdown. `text` has to be [`plain`], except for line ends.
pub(super) fn block(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}{language}\n{text}{end}{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_control_characters_and_directions() {
        assert_eq!(plain("a\u{1b}[31m\r\u{202e}b\u{9b}"), "a\\u{1b}[31m\\u{d}\\u{202e}b\\u{9b}");
        assert_eq!(plain("Főtanúsítvány"), "Főtanúsítvány");
        assert_eq!(json("{\n\"a\": \"\u{9b}\"}"), "{\n\"a\": \"\\u009b\"}");
    }

    #[test]
    fn inline_code_has_no_markdown() {
        assert_eq!(code("/etc/hosts"), "`/etc/hosts`");
        assert_eq!(code("<img src=x>"), "`<img src=x>`");
        assert_eq!(code("a`|b"), "<code>a&#96;&#124;b</code>");
        assert_eq!(code(""), "<code></code>");
    }

    #[test]
    fn a_block_cannot_be_closed_by_its_text() {
        assert_eq!(block("diff", "+a"), "```diff\n+a\n```\n");
        assert_eq!(block("", "````\n"), "`````\n````\n`````\n");
    }

    proptest! {
        #[test]
        fn never_returns_structure(text in any::<String>()) {
            let shown = code(&text);
            prop_assert!(!shown.chars().any(is_invisible) && !shown.contains('|'));
            let inner = shown.strip_prefix('`').and_then(|shown| shown.strip_suffix('`'));
            let inner = inner.or_else(|| shown.strip_prefix("<code>")?.strip_suffix("</code>"));
            prop_assert!(!inner.unwrap().contains('`'));
            if shown.starts_with('<') {
                prop_assert!(!inner.unwrap().contains(['<', '>', '*', '_', '[', '\\', '@']));
            }
        }
    }
}
