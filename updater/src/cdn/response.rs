//! The head of an HTTP response.

use std::time::{Duration, SystemTime};

use ureq::http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderName,
    LAST_MODIFIED, LOCATION, RETRY_AFTER, TRANSFER_ENCODING,
};
use ureq::http::{HeaderMap, StatusCode};

use super::content_range::ContentRange;
use super::retries::retry_after;

/// The maximum length of an ETag or date that is stored and sent back.
const VALIDATOR_MAX: usize = 256;

/// The status and those header fields of a response that the client uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// `Content-Length`, unless the body is chunked.
    pub(super) length: Option<u64>,
    /// Whether the body is chunked. Chunking marks the end of a body, which distinguishes a short body from
    /// an interrupted one.
    pub(super) is_chunked: bool,
    pub(super) range: Option<ContentRange>,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<Duration>,
    /// `Content-Encoding`, unless it is empty or `identity`.
    pub(super) encoding: Option<String>,
    pub(super) content_type: Option<String>,
}

impl ResponseHead {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
        let owned = |name: HeaderName| text(name).map(str::to_owned);
        let is_chunked = text(TRANSFER_ENCODING).is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        // `Transfer-Encoding` overrides `Content-Length` (RFC 9112 section 6.3).
        let length = text(CONTENT_LENGTH).filter(|_| !is_chunked);
        Self {
            status: status.as_u16(),
            length: length.and_then(|length| length.parse().ok()),
            is_chunked,
            range: text(CONTENT_RANGE).and_then(ContentRange::parse),
            etag: owned(ETAG).filter(|etag| is_etag(etag)),
            last_modified: owned(LAST_MODIFIED).filter(|date| is_validator(date)),
            location: owned(LOCATION),
            retry_after: text(RETRY_AFTER).and_then(|after| retry_after(after, text(DATE), now)),
            encoding: owned(CONTENT_ENCODING).filter(|encoding| {
                !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")
            }),
            content_type: owned(CONTENT_TYPE),
        }
    }

    /// Returns the ETag if it is strong. The bodies of two responses with the same weak ETag may differ,
    /// so parts of them must not be joined (RFC 9110 section 8.8.1).
    pub(super) fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| etag.starts_with('"'))
    }

    /// Returns whether the body, of which `beginning` are the first bytes, is an HTML page, such as the
    /// login page of a network.
    pub(super) fn is_html(&self, beginning: &[u8]) -> bool {
        let declared = self.content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
        declared.starts_with("text/html")
            || declared.starts_with("application/xhtml")
            || begins_like_html(beginning)
    }
}

/// Returns whether a file is HTML or XML, which begins with a tag, a comment or a declaration. A JWT, a kernel or
/// an initrd never does.
pub(crate) fn begins_like_html(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).trim_ascii_start();
    matches!(text, [b'<', next, ..] if next.is_ascii_alphabetic() || b"!?".contains(next))
}

/// Returns whether a validator is safe to send in a header field: short, printable ASCII.
pub(crate) fn is_validator(text: &str) -> bool {
    let plain = |b: u8| b == b' ' || b.is_ascii_graphic();
    (1..=VALIDATOR_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// Returns whether the text is a single ETag (RFC 9110 section 8.8.3). In `If-None-Match`, `*` or a list
/// would match other files than the one with this ETag.
pub(crate) fn is_etag(text: &str) -> bool {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let opaque = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    is_validator(text) && opaque.is_some_and(|inner| !inner.contains(['"', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> ResponseHead {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        ResponseHead::new(StatusCode::OK, &map, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn parses_header_fields() {
        let head = head(&[
            ("content-length", "7"),
            ("etag", "\"x\""),
            ("retry-after", "3"),
            ("content-encoding", "GZip"),
        ]);
        assert_eq!((head.length, head.strong_etag()), (Some(7), Some("\"x\"")));
        assert_eq!(head.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(head.encoding.as_deref(), Some("GZip"));
    }

    #[test]
    fn ignores_invalid_header_fields() {
        let long = "x".repeat(257);
        let odd = head(&[("etag", &long), ("last-modified", "\u{fc}"), ("content-length", "-1")]);
        assert_eq!((odd.etag, odd.last_modified, odd.length), (None, None, None));
        let both = head(&[("content-length", "7"), ("transfer-encoding", "chunked")]);
        assert_eq!((both.length, both.is_chunked), (None, true));
        assert_eq!(head(&[("content-encoding", "identity")]).encoding, None);
        assert_eq!(head(&[("etag", "W/\"x\"")]).strong_etag(), None);
    }

    #[test]
    fn recognizes_html_pages() {
        for page in
            ["<html>", " \n<!DOCTYPE html>", "\u{feff}<HTML lang", "<?xml version", "<meta", "<a "]
        {
            assert!(begins_like_html(page.as_bytes()), "{page}");
        }
        for file in ["", "<", "MZ", "eyJhbGciOiJFZERTQSJ9.", "< html", "<1"] {
            assert!(!begins_like_html(file.as_bytes()), "{file}");
        }
        assert!(head(&[("content-type", "Text/HTML; charset=utf-8")]).is_html(b""));
        assert!(!head(&[("content-type", "application/octet-stream")]).is_html(b"MZ"));
    }
}
