//! Decides whether a redirect is followed.
//!
//! The `url` crate is not used: it normalizes what is rejected here, such as backslashes, dot segments and
//! raw control characters, so every check below would still have to examine the unparsed text.

use protocol::url::{Origin, is_plain_path};

/// The maximum number of redirects of a request.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Returns whether the status is an automatic redirect. Status 300 is not, because it offers a choice,
/// and status 304 is not a redirect at all.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The target has another origin.
    Foreign(Origin),
    /// The target is reached by http, although the URL was reached by https.
    Downgrade(Origin),
    /// The target is malformed, or its path has dot segments.
    Malformed,
}

/// Returns the URL that `location` in a response for `url` refers to, with its origin in the shortest form.
/// Fails unless its origin is that of `url` or one of `allowed` (`https://host[:port]`), and always if it
/// leads from https to http or if its path is not [plain](is_plain_path).
pub(super) fn target(url: &str, location: &str, allowed: &[String]) -> Result<String, Refusal> {
    let location = location.split('#').next().unwrap_or_default();
    let (own, path) = Origin::split(url).ok_or(Refusal::Malformed)?;
    let joined = join(&own, path, location).ok_or(Refusal::Malformed)?;
    let (origin, rest) = Origin::split(&joined).ok_or(Refusal::Malformed)?;
    if own.is_https() && !origin.is_https() {
        return Err(Refusal::Downgrade(origin));
    }
    let is_allowed = |other: &String| Origin::of(other).as_ref() == Some(&origin);
    if origin != own && !allowed.iter().any(is_allowed) {
        return Err(Refusal::Foreign(origin));
    }
    match is_plain_path(rest) {
        true => Ok(format!("{origin}{rest}")),
        false => Err(Refusal::Malformed),
    }
}

/// Resolves an absolute URL, a network-path reference, an absolute path, a relative path, or a query (RFC 3986
/// section 4.2) in a response for the URL of an origin and a path.
fn join(own: &Origin, path: &str, location: &str) -> Option<String> {
    if Origin::of(location).is_some() {
        return Some(location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        let scheme = if own.is_https() { "https" } else { "http" };
        return Some(format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return Some(format!("{own}{location}"));
    }
    let path = path.split(['?', '#']).next()?;
    if location.starts_with('?') {
        return Some(format!("{own}{path}{location}"));
    }
    // A colon in the first segment ends a scheme, so this is not a relative path.
    let first = location.split(['/', '?']).next().unwrap_or_default();
    if first.is_empty() || first.contains(':') {
        return None;
    }
    let directory = path.rfind('/').map_or("/", |end| &path[..=end]);
    Some(format!("{own}{directory}{location}"))
}

/// Returns whether a redirect that is not followed probably comes from a network that asks for a login (a
/// captive portal) and not from the CDN. `is_html` says whether the response has an HTML page.
///
/// A CDN that moves a file keeps its name, or sends the redirect without a page. A portal answers in the
/// place of a server that is reached by http, and shows its own page to a browser, often with the address that
/// was asked for in the query.
pub(super) fn is_portal(url: &str, location: &str, to: &Origin, is_html: bool) -> bool {
    let Some(own) = Origin::of(url).filter(|own| !own.is_https()) else { return false };
    let (path, query) = location.split_once('?').unwrap_or((location, ""));
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let keeps_name = name(url.split(['?', '#']).next().unwrap_or_default()) == name(path);
    let is_other_host = own.host() != to.host();
    let asks_to_return = query.to_ascii_lowercase().contains(own.host());
    !keeps_name && (is_html || is_other_host && (!to.is_https() || asks_to_return))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "https://cdn.example/os/x.jwt";

    fn follow(location: &str) -> Option<String> {
        let allowed = ["https://mirror.example:8443".to_owned(), "http://plain.example".to_owned()];
        target(URL, location, &allowed).ok()
    }

    #[test]
    fn follows_same_and_allowed_origins() {
        for (location, to) in [
            ("https://cdn.example/y", "https://cdn.example/y"),
            ("https://CDN.example/y", "https://cdn.example/y"),
            ("HTTPS://cdn.example:443/y", "https://cdn.example/y"),
            ("//CDN.example:443/y", "https://cdn.example/y"),
            ("/a%2Fb", "https://cdn.example/a%2Fb"),
            ("/group%2Fproject/y?x=../z", "https://cdn.example/group%2Fproject/y?x=../z"),
            ("/fetch/https%3A%2F%2Fx", "https://cdn.example/fetch/https%3A%2F%2Fx"),
            ("/y?token=1#part", "https://cdn.example/y?token=1"),
            ("y", "https://cdn.example/os/y"),
            ("7/y", "https://cdn.example/os/7/y"),
            ("?token=1&to=/../x#part", "https://cdn.example/os/x.jwt?token=1&to=/../x"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("https://mirror.example:8443/y", "https://mirror.example:8443/y"),
            ("https://Mirror.EXAMPLE:8443/y", "https://mirror.example:8443/y"),
            ("//mirror.example:8443/y", "https://mirror.example:8443/y"),
        ] {
            assert_eq!(follow(location).as_deref(), Some(to), "{location}");
        }
        let bare = target("http://cdn.example", "y", &[]);
        assert_eq!(bare.as_deref(), Ok("http://cdn.example/y"));
        for (url, location) in [
            ("http://cdn.example:80/x", "http://cdn.example/y"),
            ("http://cdn.example/x", "http://cdn.example:80/y"),
            ("http://CDN.example/x", "/y"),
        ] {
            let found = target(url, location, &[]);
            assert_eq!(found.as_deref(), Ok("http://cdn.example/y"), "{url} {location}");
        }
    }

    #[test]
    fn rejects_everything_else() {
        for location in [
            "",
            "#",
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
            "/..%2Fy",
            "/a%252F..%252Fy",
            "/a/..;x/y",
            "/a%00y",
            "https://cdn.example:80/y",
            "https://cdn.example:/y",
            "https://cdn%2eexample/y",
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
        let refusal = target(URL, "https://mirror.example:70000/y", &nowhere);
        assert_eq!(refusal, Err(Refusal::Malformed));
        // From http to https is allowed if the origin is.
        let up = target(
            "http://cdn.example/x",
            "https://cdn.example/x",
            &["https://cdn.example".into()],
        );
        assert!(up.is_ok());
    }

    #[test]
    fn recognizes_portals() {
        let is_portal = |url: &str, location: &str, is_html: bool| {
            let Err(Refusal::Foreign(to)) = target(url, location, &[]) else {
                panic!("{location}")
            };
            is_portal(url, location, &to, is_html)
        };
        let manifest = "http://cdn.example/os/x.jwt";
        for (location, is_html) in [
            ("http://portal.example/login", false),
            ("http://192.0.2.1:8080/", false),
            ("https://portal.example/login", true),
            ("https://portal.example/?url=http%3A%2F%2FCDN.example%2Fos", false),
            ("http://cdn.example:8080/login", true),
        ] {
            assert!(is_portal(manifest, location, is_html), "{location}");
        }
        for (location, is_html) in [
            // A mirror, whose server adds a page for browsers.
            ("http://mirror.example/os/x.jwt", true),
            ("https://mirror.example/os/x.jwt?token=1", true),
            // A store that names files by their content.
            ("https://store.example/4f/d2?signature=1", false),
            ("http://cdn.example:8080/x", false),
        ] {
            assert!(!is_portal(manifest, location, is_html), "{location}");
        }
        // A portal cannot answer in the place of an https server.
        let https = is_portal("https://cdn.example/x.jwt", "https://other.example/login", true);
        assert!(!https);
    }

    proptest! {
        #[test]
        fn only_allowed_origins_are_followed(location in "[a-zA-Z/:.@?#%\\\\ 0-9]{0,40}") {
            if let Some(to) = follow(&location) {
                let (origin, rest) = Origin::split(&to).unwrap();
                let allowed = ["https://cdn.example", "https://mirror.example:8443"];
                prop_assert!(allowed.contains(&origin.to_string().as_str()));
                prop_assert!(is_plain_path(rest));
            }
        }

        #[test]
        fn spellings_of_an_origin_make_no_difference(
            host in "(cdn|CDN|Cdn)\\.(example|EXAMPLE)",
            scheme in "https|HTTPS|Https",
            port in "(:443|:0443)?",
            path in "/a[a-z%2F/]{0,8}",
        ) {
            let written = follow(&format!("{scheme}://{host}{port}{path}"));
            prop_assert_eq!(written, follow(&path));
        }
    }
}
