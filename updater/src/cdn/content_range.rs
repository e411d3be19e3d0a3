//! `Content-Range` (RFC 9110 section 14.4).

/// A `Content-Range` with a single range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The length of the whole file, if the server knows it.
    pub(super) total: Option<u64>,
}

impl ContentRange {
    /// Parses `bytes FIRST-LAST/TOTAL`; an unknown total is `*`. Returns `None` if it is not valid.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let total = if total == "*" { None } else { Some(number(total)?) };
        let is_sane = first <= last && total.is_none_or(|total| last < total);
        is_sane.then_some(Self { first, last, total })
    }
}

/// Parses decimal digits. `str::parse` alone would also accept a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_content_ranges() {
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

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = ContentRange::parse(&text);
        }
    }
}
