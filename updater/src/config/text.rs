//! The encodings of a text.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The byte order mark in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Returns a text in UTF-8 and without a byte order mark.
///
/// Editors and shells on Windows write a mark, or UTF-16. RFC 8259 section 8.1 requires writers to use UTF-8
/// without a mark, and lets readers ignore one. UTF-16 without a mark is recognised as in RFC 4627 section 3:
/// every text here begins with an ASCII character, so one of its first two bytes is zero.
///
/// # Errors
/// Fails if a text in UTF-16 is not well-formed, and if it is UTF-32, which editors write only on request.
pub(super) fn to_utf8(text: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    if let [0xff, 0xfe, 0, 0, ..]
    | [0, 0, 0xfe, 0xff, ..]
    | [1..=255, 0, 0, 0, ..]
    | [0, 0, 0, 1..=255, ..] = text
    {
        return Err("the text begins as UTF-32: save it as UTF-8".to_owned());
    }
    let (rest, unit): (_, fn([u8; 2]) -> u16) = match text {
        [0xff, 0xfe, rest @ ..] => (rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => (rest, u16::from_be_bytes),
        [1..=255, 0, ..] => (text, u16::from_le_bytes),
        [0, 1..=255, ..] => (text, u16::from_be_bytes),
        _ => return Ok(Cow::Borrowed(text.strip_prefix(BOM).unwrap_or(text))),
    };
    let pairs = rest.chunks_exact(2);
    let is_whole = pairs.remainder().is_empty();
    let units: Vec<u16> = pairs.map(|pair| unit([pair[0], pair[1]])).collect();
    match String::from_utf16(&units) {
        Ok(text) if is_whole => Ok(Cow::Owned(text.into_bytes())),
        _ => Err("the text begins as UTF-16, but is not well-formed: save it as UTF-8".to_owned()),
    }
}

/// Decodes base64: standard or URL-safe alphabet, with or without padding and line breaks.
pub(super) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> =
        text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    while bytes.last() == Some(&b'=') {
        bytes.pop();
    }
    STANDARD_NO_PAD.decode(&bytes).or_else(|_| URL_SAFE_NO_PAD.decode(&bytes)).ok()
}

/// Decodes the start of base64 that was cut, or is damaged after its start. Returns `None` if nothing can be
/// decoded.
pub(super) fn decode_start(text: &[u8]) -> Option<Vec<u8>> {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let start = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace());
    let start: Vec<u8> = start.take_while(is_base64).collect();
    // Four characters stand for three bytes.
    let whole = start.len() / 4 * 4;
    decode_base64(&start[..whole]).filter(|bytes| !bytes.is_empty())
}

/// Returns whether the bytes are the start of a text, whose last character may be cut.
pub(super) fn begins_as_text(bytes: &[u8]) -> bool {
    to_utf8(bytes).is_ok_and(|text| match str::from_utf8(&text) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn converts_every_encoding_to_utf8() {
        let json = r#"{"cdn": "/ä€𝄞"}"#;
        let marked = format!("\u{feff}{json}");
        for text in [
            json.as_bytes().to_vec(),
            marked.clone().into_bytes(),
            utf16(json, u16::to_le_bytes),
            utf16(json, u16::to_be_bytes),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
        ] {
            assert_eq!(to_utf8(&text).as_deref(), Ok(json.as_bytes()), "{text:?}");
        }
        let utf32 = |text: &str, to_bytes: fn(u32) -> [u8; 4]| -> Vec<u8> {
            text.chars().map(u32::from).flat_map(to_bytes).collect()
        };
        for text in [
            utf32(json, u32::to_le_bytes),
            utf32(json, u32::to_be_bytes),
            utf32(&marked, u32::to_le_bytes),
            utf32(&marked, u32::to_be_bytes),
        ] {
            assert!(to_utf8(&text).unwrap_err().contains("UTF-32"), "{text:?}");
        }
        assert_eq!(to_utf8(b"").as_deref(), Ok(&b""[..]));
        for broken in [&b"\xff\xfe{"[..], b"{\0}", b"\xfe\xff\xd8\x00", b"{\0\0\xdc"] {
            assert!(to_utf8(broken).unwrap_err().contains("UTF-16"), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn does_not_panic_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = to_utf8(&bytes);
        }
    }
}
