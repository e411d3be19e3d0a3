//! Addresses: the URL of a bucket, and the endpoint of a store.

use anyhow::{Result, ensure};

/// The bucket and the directory in it that `s3://BUCKET[/PREFIX]` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// The name of the bucket.
    pub bucket: String,
    /// The directory, without slashes around it; empty for the whole bucket.
    pub prefix: String,
}

impl Address {
    /// Parses a URL.
    ///
    /// # Errors
    /// Fails if the URL has another form. The error does not show a URL that may contain a password.
    pub(super) fn parse(url: &str) -> Result<Self> {
        ensure!(
            !url.contains('@'),
            "the URL of an S3 destination must not contain credentials; set AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and give s3://BUCKET/PREFIX"
        );
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        ensure!(
            scheme.eq_ignore_ascii_case("s3"),
            "{url:?} is not the URL of an S3 bucket; expected s3://BUCKET/PREFIX"
        );
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        ensure!(
            (3..=63).contains(&bucket.len())
                && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
                && bucket.bytes().all(is_allowed),
            "{bucket:?} in {url:?} is not the name of a bucket; expected 3 to 63 letters, digits, \
             dots and hyphens, as in s3://BUCKET/PREFIX"
        );
        let prefix = prefix.trim_end_matches('/');
        ensure!(
            prefix.is_empty() || prefix.split('/').all(protocol::release::is_file_name),
            "{prefix:?} in {url:?} is not a path of plain file names; expected s3://BUCKET/PREFIX"
        );
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// Checks the URL of an endpoint, and returns whether HTTP without TLS has to be allowed for it.
///
/// # Errors
/// Fails if the URL contains credentials, or if it has no TLS, is not on this machine, and
/// `allow_http` is false. The session token would cross the network in plain text.
pub(super) fn check_endpoint(url: &str, variable: &str, allow_http: bool) -> Result<bool> {
    ensure!(
        !url.contains('@'),
        "{variable} must not contain credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    );
    if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        return Ok(allow_http);
    }
    let is_http = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    ensure!(
        is_http && !url.contains(['?', '#']),
        "{variable} is {url:?}; expected the URL of an S3 store, such as https://s3.example.com"
    );
    let authority = url[7..].split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(ipv6) => ipv6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    ensure!(
        is_loopback || allow_http,
        "{variable} is {url:?}, which has no TLS; use https://, or set AWS_ALLOW_HTTP=true if \
         nobody else can read the network between this machine and the store"
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_bucket_and_prefix() {
        for (url, bucket, prefix) in [
            ("s3://cdn", "cdn", ""),
            ("s3://cdn/", "cdn", ""),
            ("S3://cdn.example.com/a/b/", "cdn.example.com", "a/b"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((&*address.bucket, &*address.prefix), (bucket, prefix), "{url}");
        }
    }

    #[test]
    fn rejects_urls_of_another_form_without_showing_passwords() {
        for url in [
            "s3://",
            "s3://ab",
            "s3:/bucket",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://bucket/a?b",
            "s3://key:hunter2@bucket/x",
            "s3://bucket/x@hunter2",
            "https://bucket",
        ] {
            let error = format!("{:#}", Address::parse(url).unwrap_err());
            assert!(error.contains("s3://BUCKET/PREFIX"), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn allows_http_only_on_this_machine_or_on_request() {
        for url in ["http://localhost:9000", "http://127.0.0.1:9000/", "http://[::1]:9000"] {
            assert!(check_endpoint(url, "X", false).unwrap(), "{url}");
        }
        assert!(!check_endpoint("https://s3.example.com", "X", false).unwrap());
        assert!(check_endpoint("http://s3.example.com", "X", true).unwrap());
        for url in ["http://s3.example.com", "http://127.0.0.1.example.com", "s3.example.com", ""] {
            assert!(check_endpoint(url, "X", false).is_err(), "{url}");
        }
        let error = check_endpoint("https://key:hunter2@host", "X", true).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
