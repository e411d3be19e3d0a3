//! Decides whether a response continues a partial download.

use super::response::ResponseHead;

/// How a response relates to a partial download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resume {
    /// The body begins at the requested byte.
    Continues,
    /// The body begins at the first byte: the server does not support ranges, or the file has changed.
    FromStart,
    /// The body is not usable. The whole file has to be requested.
    Unusable,
    /// The file on the server has this length, which is not the expected one.
    WrongLength(u64),
}

/// Classifies a response to a request for the bytes from `from` to the end of a file of `size` bytes.
/// `etag` is the ETag of the earlier response, if it had one. The status must be 200, 206 or 416.
pub(super) fn classify(head: &ResponseHead, from: u64, size: u64, etag: Option<&str>) -> Resume {
    if head.status == 200 {
        return match head.length {
            Some(length) if length != size => Resume::WrongLength(length),
            _ => Resume::FromStart,
        };
    }
    let Some(range) = head.range.filter(|_| head.status == 206) else { return Resume::Unusable };
    let changed = matches!((etag, &head.etag), (Some(old), Some(new)) if old != new);
    match range.total {
        Some(total) if total != size => Resume::WrongLength(total),
        _ if range.first != from || range.last >= size || changed => Resume::Unusable,
        _ => Resume::Continues,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::content_range::ContentRange;
    use super::*;

    fn head(status: u16, range: &str, length: Option<u64>) -> ResponseHead {
        ResponseHead {
            status,
            length,
            range: ContentRange::parse(range),
            ..ResponseHead::default()
        }
    }

    #[test]
    fn classifies_responses() {
        let classified = |head: &ResponseHead| classify(head, 5, 10, Some("\"a\""));
        assert_eq!(classified(&head(206, "bytes 5-9/10", Some(5))), Resume::Continues);
        assert_eq!(classified(&head(206, "bytes 5-7/*", Some(3))), Resume::Continues);
        assert_eq!(classified(&head(200, "", Some(10))), Resume::FromStart);
        assert_eq!(classified(&head(200, "", None)), Resume::FromStart);
        assert_eq!(classified(&head(200, "", Some(11))), Resume::WrongLength(11));
        assert_eq!(classified(&head(206, "bytes 5-9/11", Some(5))), Resume::WrongLength(11));
        assert_eq!(classified(&head(206, "bytes 0-9/10", Some(10))), Resume::Unusable);
        assert_eq!(classified(&head(206, "bytes 6-9/10", Some(4))), Resume::Unusable);
        assert_eq!(classified(&head(206, "bytes 5-10/*", None)), Resume::Unusable);
        assert_eq!(classified(&head(206, "", Some(5))), Resume::Unusable);
        assert_eq!(classified(&head(416, "bytes */5", None)), Resume::Unusable);
        let etag = |etag: &str| Some(etag.to_owned());
        let same = ResponseHead { etag: etag("\"a\""), ..head(206, "bytes 5-9/10", Some(5)) };
        assert_eq!(classified(&same), Resume::Continues);
        assert_eq!(classified(&ResponseHead { etag: etag("\"b\""), ..same }), Resume::Unusable);
    }

    proptest! {
        #[test]
        fn resumed_body_begins_at_requested_byte(
            status in prop::sample::select(vec![200u16, 206, 416]),
            first in 0u64..20, last in 0u64..20, total in prop::option::of(0u64..20), from in 1u64..20,
        ) {
            let total = total.map_or("*".to_owned(), |total| total.to_string());
            let head = head(status, &format!("bytes {first}-{last}/{total}"), None);
            if classify(&head, from, 15, None) == Resume::Continues {
                prop_assert!(status == 206 && first == from && last < 15);
            }
        }
    }
}
