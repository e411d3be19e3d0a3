//! What an answer to "from byte N on" is good for (RFC 9110 section 14).

use super::answer::Head;

/// `Content-Range` of one range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The length of the whole file, if the server says.
    pub(super) total: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes FIRST-LAST/TOTAL`, with `*` for a total that is not known.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let is_sane = first <= last && total.is_none_or(|total| last < total);
        is_sane.then_some(Self { first, last, total })
    }
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// How an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// From the byte that was asked for.
    Resumed,
    /// From the first byte: the server knows no ranges, or the file has changed.
    Whole,
    /// Not at all: ask again, for the whole file.
    Unusable,
    /// Not at all: the file has another length than it should have.
    Length(u64),
}

/// Judges an answer to a request for everything from byte `from` on of a file that has `size` bytes
/// and was seen with this `etag` before. The statuses are those that [`super::Cdn`] lets through.
pub(super) fn begin(head: &Head, from: u64, size: u64, etag: Option<&str>) -> Begin {
    if head.status == 200 {
        return match head.length {
            Some(length) if length != size => Begin::Length(length),
            _ => Begin::Whole,
        };
    }
    let Some(range) = head.range.filter(|_| head.status == 206) else { return Begin::Unusable };
    let changed = matches!((etag, &head.etag), (Some(old), Some(new)) if old != new);
    match range.total {
        Some(total) if total != size => Begin::Length(total),
        _ if range.first != from || range.last >= size || changed => Begin::Unusable,
        _ => Begin::Resumed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(status: u16, range: &str, length: Option<u64>) -> Head {
        Head { status, length, range: ContentRange::parse(range), ..Head::default() }
    }

    #[test]
    fn content_ranges() {
        let parse = ContentRange::parse;
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(parse("bytes 5-9/10"), range(5, 9, Some(10)));
        assert_eq!(parse("bytes 5-9/*"), range(5, 9, None));
        for bad in [
            "",
            "bytes",
            "bytes */10",
            "bytes 5-9",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "bytes +5-9/10",
            "bytes -9/10",
            "bytes 5-/10",
            "items 5-9/10",
            "bytes 5-9/99999999999999999999999",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers() {
        let judge = |head: &Head| begin(head, 5, 10, Some("\"a\""));
        assert_eq!(judge(&head(206, "bytes 5-9/10", Some(5))), Begin::Resumed);
        assert_eq!(judge(&head(206, "bytes 5-7/*", Some(3))), Begin::Resumed);
        assert_eq!(judge(&head(200, "", Some(10))), Begin::Whole);
        assert_eq!(judge(&head(200, "", None)), Begin::Whole);
        assert_eq!(judge(&head(200, "", Some(11))), Begin::Length(11));
        assert_eq!(judge(&head(206, "bytes 5-9/11", Some(5))), Begin::Length(11));
        assert_eq!(judge(&head(206, "bytes 0-9/10", Some(10))), Begin::Unusable);
        assert_eq!(judge(&head(206, "bytes 6-9/10", Some(4))), Begin::Unusable);
        assert_eq!(judge(&head(206, "bytes 5-10/*", None)), Begin::Unusable);
        assert_eq!(judge(&head(206, "", Some(5))), Begin::Unusable);
        assert_eq!(judge(&head(416, "bytes */5", None)), Begin::Unusable);
        let etag = |etag: &str| Some(etag.to_owned());
        let same = Head { etag: etag("\"a\""), ..head(206, "bytes 5-9/10", Some(5)) };
        assert_eq!(judge(&same), Begin::Resumed);
        assert_eq!(judge(&Head { etag: etag("\"b\""), ..same }), Begin::Unusable);
    }

    proptest! {
        #[test]
        fn any_content_range_is_read_without_a_panic(text in ".*") {
            let _ = ContentRange::parse(&text);
        }

        #[test]
        fn what_is_resumed_begins_where_it_was_asked_for(
            status in prop::sample::select(vec![200u16, 206, 416]),
            first in 0u64..20, last in 0u64..20, total in prop::option::of(0u64..20), from in 1u64..20,
        ) {
            let total = total.map_or("*".to_owned(), |total| total.to_string());
            let head = head(status, &format!("bytes {first}-{last}/{total}"), None);
            if begin(&head, from, 15, None) == Begin::Resumed {
                prop_assert!(status == 206 && first == from && last < 15);
            }
        }
    }
}
