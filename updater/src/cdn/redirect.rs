//! Decides whether a redirect is followed.
//!
//! The `url` crate is not used: it normalizes what is rejected here, such as backslashes, dot segments and
//! raw control characters, so every check below would still have to examine the unparsed text.

use protocol::url::origin;

/// The maximum number of redirects of a request.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Returns whether the status is an automatic redirect. Status 300 is not, because it offers a choice,
/// and status 304 is not a redirect at all.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Returns the URL that `location` in a response for `url` refers to. Returns `None` unless its origin is
/// that of `url` or one of `allowed` (`https://host[:port]`), and always if it leads from https to http.
pub(super) fn target(url: &str, location: &str, allowed: &[String]) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    let own_origin = origin(url)?;
    let joined = join(url, own_origin, location)?;
    let target_origin = origin(&joined)?;
    let is_same = target_origin.eq_ignore_ascii_case(own_origin);
    let is_allowed = allowed.iter().any(|other| other.eq_ignore_ascii_case(target_origin));
    let is_downgrade = own_origin.starts_with("https://") && !target_origin.starts_with("https://");
    ((is_same || is_allowed) && !is_downgrade && has_plain_path(&joined, target_origin))
        .then_some(joined)
}

/// Resolves an absolute URL, a network-path reference, an absolute path, or a relative path (RFC 3986
/// section 4.2).
fn join(url: &str, own_origin: &str, location: &str) -> Option<String> {
    if location.contains("://") && origin(location).is_some() {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        let scheme = own_origin.split("//").next()?;
        return Some(format!("{scheme}//{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{own_origin}{location}"));
    }
    // A colon in the first segment ends a scheme, so this is not a relative path.
    let first = location.split(['/', '?']).next().unwrap_or_default();
    if first.is_empty() || first.contains(':') {
        return None;
    }
    let path = url.split(['?', '#']).next()?;
    let directory = &path[..=path.rfind('/').filter(|end| *end >= own_origin.len()).unwrap_or(0)];
    match directory.len() > own_origin.len() {
        true => Some(format!("{directory}{location}")),
        false => Some(format!("{own_origin}/{location}")),
    }
}

/// Returns whether the path has no dot segments and no encoded separators or NULs.
fn has_plain_path(url: &str, target_origin: &str) -> bool {
    let path = url[target_origin.len()..].split('?').next().unwrap_or_default();
    let decoded = path.to_ascii_lowercase().replace("%2e", ".");
    let forbidden = ["%2f", "%5c", "%00"];
    !forbidden.iter().any(|text| decoded.contains(text))
        && !decoded.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://cdn.example/os/x.jwt";

    fn follow(location: &str) -> Option<String> {
        let allowed = ["https://mirror.example:8443".to_owned(), "http://plain.example".to_owned()];
        target(URL, location, &allowed)
    }

    #[test]
    fn follows_same_and_allowed_origins() {
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
            assert_eq!(follow(location).as_deref(), Some(to), "{location}");
        }
        let bare = target("http://cdn.example", "y", &[]);
        assert_eq!(bare.as_deref(), Some("http://cdn.example/y"));
    }

    #[test]
    fn rejects_everything_else() {
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
            assert_eq!(follow(location), None, "{location}");
        }
        let nowhere = ["https://mirror.example:70000".to_owned()];
        assert_eq!(target(URL, "https://mirror.example:70000/y", &nowhere), None);
        // From http to https is allowed if the origin is.
        let up = target(
            "http://cdn.example/x",
            "https://cdn.example/x",
            &["https://cdn.example".into()],
        );
        assert!(up.is_some());
    }

    proptest! {
        #[test]
        fn only_allowed_origins_are_followed(location in "[a-z/:.@?#%\\\\ 0-9]{0,40}") {
            if let Some(to) = follow(&location) {
                let target_origin = origin(&to).unwrap();
                prop_assert!(["https://cdn.example", "https://mirror.example:8443"].contains(&target_origin));
            }
        }
    }
}
