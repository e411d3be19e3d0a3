//! Where an answer may send us.

use protocol::url::origin;

/// Redirects that are followed one after another.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Whether an answer with this status sends us elsewhere. 304 does not, and 300 leaves a choice.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// The URL that `location` in an answer for `url` means, if it may be followed: the same scheme, host
/// and port, or one of `allowed` (`https://host[:port]`), and never from https to http.
pub(super) fn target(url: &str, location: &str, allowed: &[String]) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    let home = origin(url)?;
    let joined = join(url, home, location)?;
    let place = origin(&joined)?;
    let is_home = place.eq_ignore_ascii_case(home);
    let is_allowed = allowed.iter().any(|other| other.eq_ignore_ascii_case(place));
    let is_weaker = home.starts_with("https://") && !place.starts_with("https://");
    ((is_home || is_allowed) && !is_weaker && has_plain_path(&joined, place)).then_some(joined)
}

/// An absolute URL, one without a scheme, an absolute path, or a path beside the one that was asked
/// for (RFC 3986 section 4.2).
fn join(url: &str, home: &str, location: &str) -> Option<String> {
    if location.contains("://") && origin(location).is_some() {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        let scheme = home.split("//").next()?;
        return Some(format!("{scheme}//{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{home}{location}"));
    }
    // A colon in the first segment would make it a scheme.
    let first = location.split(['/', '?']).next().unwrap_or_default();
    if first.is_empty() || first.contains(':') {
        return None;
    }
    let path = url.split(['?', '#']).next()?;
    let directory = &path[..=path.rfind('/').filter(|end| *end >= home.len()).unwrap_or(0)];
    match directory.len() > home.len() {
        true => Some(format!("{directory}{location}")),
        false => Some(format!("{home}/{location}")),
    }
}

/// No segment climbs, however it is written.
fn has_plain_path(url: &str, place: &str) -> bool {
    let path = url[place.len()..].split('?').next().unwrap_or_default();
    let decoded = path.to_ascii_lowercase().replace("%2e", ".");
    let tricks = ["%2f", "%5c", "%00"];
    !tricks.iter().any(|trick| decoded.contains(trick))
        && !decoded.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://cdn.example/os/x.jwt";

    fn go(location: &str) -> Option<String> {
        let allowed = ["https://mirror.example:8443".to_owned(), "http://plain.example".to_owned()];
        target(URL, location, &allowed)
    }

    #[test]
    fn home_and_allowed_origins() {
        for (location, to) in [
            ("https://cdn.example/y", "https://cdn.example/y"),
            ("https://CDN.example/y", "https://CDN.example/y"),
            ("/y?token=1#part", "https://cdn.example/y?token=1"),
            ("y", "https://cdn.example/os/y"),
            ("7/y", "https://cdn.example/os/7/y"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("https://mirror.example:8443/y", "https://mirror.example:8443/y"),
            ("//mirror.example:8443/y", "https://mirror.example:8443/y"),
        ] {
            assert_eq!(go(location).as_deref(), Some(to), "{location}");
        }
        let bare = target("http://cdn.example", "y", &[]);
        assert_eq!(bare.as_deref(), Some("http://cdn.example/y"));
    }

    #[test]
    fn everything_else_is_not_followed() {
        for location in [
            "",
            "#",
            "?x",
            "http://cdn.example/y",
            "http://plain.example/y",
            "https://other.example/y",
            "//other.example/y",
            "///other.example/y",
            "/\\other.example/y",
            "https://cdn.example:444/y",
            "https://cdn.example.evil/y",
            "https://cdn.example@evil/y",
            "https://u:p@cdn.example/y",
            "https://mirror.example:84430/y",
            "../y",
            "/a/../y",
            "/a/%2E%2e/y",
            "/a/./y",
            "/a%2f..%2fy",
            "/a%5cy",
            "/a b",
            "/a\r\nHost: evil",
            "ftp://cdn.example/y",
            "file:///etc/shadow",
            "javascript:alert(1)",
        ] {
            assert_eq!(go(location), None, "{location}");
        }
        let nowhere = ["https://mirror.example:70000".to_owned()];
        assert_eq!(target(URL, "https://mirror.example:70000/y", &nowhere), None);
        // Up is allowed, if it is named.
        let up = target(
            "http://cdn.example/x",
            "https://cdn.example/x",
            &["https://cdn.example".into()],
        );
        assert!(up.is_some());
    }

    proptest! {
        #[test]
        fn nobody_is_sent_to_a_stranger(location in "[a-z/:.@?#%\\\\ 0-9]{0,40}") {
            if let Some(to) = go(&location) {
                let place = origin(&to).unwrap();
                prop_assert!(["https://cdn.example", "https://mirror.example:8443"].contains(&place));
            }
        }
    }
}
