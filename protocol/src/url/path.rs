//! Paths of URLs that every program reads as the same path.

/// How many times a path is decoded. A path that is encoded more often is rejected.
const DECODINGS_MAX: usize = 4;

/// Returns whether the path of a URL means the same to every program. `rest` is what follows the origin;
/// its query and fragment are not examined.
///
/// An encoded slash (`%2F`) is part of a name and is accepted. Not accepted are dot segments, also if they
/// appear only after decoding or are followed by a parameter (`..;x`), and encoded backslashes and control
/// characters: a server or a proxy may decode them before it resolves the path, and would then send another
/// file than the one that was asked for.
pub fn is_plain_path(rest: &str) -> bool {
    let mut path = rest.split(['?', '#']).next().unwrap_or_default().as_bytes().to_vec();
    for _ in 0..=DECODINGS_MAX {
        let is_forbidden = |byte: &u8| *byte == b'\\' || byte.is_ascii_control();
        if path.iter().any(is_forbidden) || path.split(|byte| *byte == b'/').any(is_dot_segment) {
            return false;
        }
        let decoded = percent_decoded(&path);
        if decoded == path {
            return true;
        }
        path = decoded;
    }
    false
}

fn is_dot_segment(segment: &[u8]) -> bool {
    let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
    matches!(name, b"." | b"..")
}

/// Decodes each `%XX` once. A `%` without two hexadecimal digits is kept.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let value = match after {
            [high, low, ..] if byte == b'%' => hexadecimal(*high).zip(hexadecimal(*low)),
            _ => None,
        };
        match value {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_encoded_characters_that_keep_the_path() {
        for path in [
            "",
            "/",
            "/a/b",
            "/a%2Fb",
            "/a%2fb%2Fc/d",
            "/group%2Fproject/packages/7/x.raw",
            "/fetch/https%3A%2F%2Fother.example%2Fx",
            "/a%20b",
            "/%61",
            "/...",
            "/.well-known/x",
            "/a..b/..c",
            "/100%",
            "/%zz",
            "/%C3%A9",
            "/x?y=../z&a=%2e%2e%5c",
            "/x#/../y",
        ] {
            assert!(is_plain_path(path), "{path}");
        }
    }

    #[test]
    fn rejects_paths_that_change_when_they_are_decoded() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/%2e%2E/b",
            "/.%2e/b",
            "/a%2F..%2Fb",
            "/..%2fb",
            "/a%2f.",
            "/a/..;x/b",
            "/a/..%3bx/b",
            "/%252e%252e/b",
            "/a%252F..%252Fb",
            "/%25252e%25252e%25252fb",
            "/a%5cb",
            "/a%5C..%5Cb",
            "/a%255cb",
            "/a%00",
            "/a%0d%0aX:",
            "/a%7f",
            "/%2525252525252541",
        ] {
            assert!(!is_plain_path(path), "{path}");
        }
    }

    proptest! {
        /// Whatever a server decodes, and how often, it stays below the directory in front.
        #[test]
        fn accepted_paths_have_no_dot_segments(path in "(/|\\.|%2e|%2F|%25|%5c|2e|2f|a|;){0,12}") {
            if is_plain_path(&path) {
                let mut decoded = path.into_bytes();
                for _ in 0..8 {
                    let text = String::from_utf8_lossy(&decoded).into_owned();
                    let is_dots = |name: &str| matches!(name, "." | "..");
                    prop_assert!(!text.split(['/', '\\']).any(is_dots), "{}", text);
                    decoded = percent_decoded(&decoded);
                }
            }
        }

        #[test]
        fn decodes_what_was_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let encoded: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decoded(encoded.as_bytes()), bytes);
        }
    }
}
