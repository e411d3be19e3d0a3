//! References to container images, such as `debian:trixie` or `host.example:5000/base@sha256:…`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use protocol::digest;

use super::text::excerpt;

/// The registry of references without a host, as for Docker.
const DEFAULT_HOST: &str = "docker.io";
/// Another name of the default registry.
const DEFAULT_HOST_ALIAS: &str = "index.docker.io";
/// The host that has the API of the default registry.
const DEFAULT_API_HOST: &str = "registry-1.docker.io";
/// The part that names of official images of the default registry start with.
const OFFICIAL: &str = "library";
/// The tag of references without one.
const DEFAULT_TAG: &str = "latest";

/// The maximum length of the host and the name, in bytes.
const NAME_MAX: usize = 255;
/// The maximum length of a tag, in bytes.
const TAG_MAX: usize = 128;

/// A SHA-256 digest, which is displayed as `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// Returns the digest of bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(digest::of_bytes(bytes))
    }

    /// Returns the digest that a hasher computed.
    pub(super) fn of_hasher(hasher: digest::Hasher) -> Self {
        Self(hasher.finish())
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hex = text.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        let expected = || {
            format!("the digest is {}, expected sha256: and 64 hexadecimal digits", excerpt(text))
        };
        Ok(Self(hex.with_context(expected)?.to_owned()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// A reference to an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The host of the registry, with a port if the reference has one.
    host: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry as it is written in references, such as `docker.io` or `host.example:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the host that has the registry's API.
    pub fn api_host(&self) -> &str {
        if self.host == DEFAULT_HOST { DEFAULT_API_HOST } else { &self.host }
    }

    /// Returns the path of the image in the registry, such as `library/debian`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the digest, if the reference has one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the digest, or else the tag: the name of the version in the registry's API.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// Returns the reference to the same image by its digest.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns the reference for a container engine, which does not accept a tag together with a digest in
    /// every version.
    pub fn for_engine(&self) -> String {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        format!("{}/{}{separator}{}", self.host, self.name, self.version())
    }

    /// Returns whether the registry is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).with_context(|| {
            format!(
                "{} is not a reference to a container image, expected [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST], \
                 such as debian:trixie",
                excerpt(text)
            )
        })
    }
}

impl Reference {
    fn parse(text: &str) -> Result<Self> {
        ensure!(!text.contains("://"), "a reference has no scheme such as https://");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon in front of a slash belongs to the port.
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[after_slash..].find(':') {
            Some(colon) => {
                let (path, tag) = rest.split_at(after_slash + colon);
                (path, Some(&tag[1..]))
            }
            None => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (host, name) = split_host(path);
        check_host(host)?;
        let name = match host {
            DEFAULT_HOST if !name.contains('/') => format!("{OFFICIAL}/{name}"),
            _ => name.to_owned(),
        };
        check_name(&name)?;
        ensure!(
            host.len() + 1 + name.len() <= NAME_MAX,
            "host and name have more than {NAME_MAX} bytes"
        );
        Ok(Self { host: host.to_owned(), name, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)?;
        match (&self.tag, &self.digest) {
            (Some(tag), _) => write!(f, ":{tag}")?,
            (None, None) => write!(f, ":{DEFAULT_TAG}")?,
            (None, Some(_)) => {}
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Splits the host from the name. A first part without dot and port, such as `user/image`, belongs to the
/// name, except for `localhost`.
fn split_host(path: &str) -> (&str, &str) {
    match path.split_once('/') {
        Some((DEFAULT_HOST_ALIAS, name)) => (DEFAULT_HOST, name),
        Some((host, name)) if host == "localhost" || host.contains(['.', ':']) => (host, name),
        _ => (DEFAULT_HOST, path),
    }
}

/// Returns whether a host, which may have a port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let Some((name, _)) = split_port(host) else { return false };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()),
        None => {
            name == "localhost" || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        }
    }
}

/// Splits the port from a host, whose IPv6 address is in brackets. Returns `None` if it is not a number.
fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = host[end..].find(':') else { return Some((host, None)) };
    let (name, port) = host.split_at(end + colon);
    let digits = &port[1..];
    let port = digits.parse().ok().filter(|port| *port > 0);
    port.filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit())).map(|port| (name, Some(port)))
}

fn check_host(host: &str) -> Result<()> {
    let invalid = || format!("the host {} is not valid", excerpt(host));
    let (name, _) = split_port(host).with_context(invalid)?;
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').with_context(invalid)?;
        address.parse::<Ipv6Addr>().with_context(invalid)?;
        return Ok(());
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !name.split('.').all(is_label) {
        bail!(invalid());
    }
    Ok(())
}

/// Checks a name: parts of lower-case letters and digits, which `.`, `_`, `__` and hyphens may join.
fn check_name(name: &str) -> Result<()> {
    let is_word = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let ends = bytes.first().is_some_and(|byte| is_word(*byte))
            && bytes.last().is_some_and(|byte| is_word(*byte));
        let mut joints = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends && joints.all(|joint| {
            matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|byte| byte == b'-')
        })
    };
    ensure!(
        name.split('/').all(is_part),
        "the name {} is not valid; it has lower-case letters and digits, joined by '.', '_', '-' and '/'",
        excerpt(name)
    );
    Ok(())
}

fn check_tag(tag: &str) -> Result<()> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    ensure!(
        tag.len() <= TAG_MAX
            && tag.bytes().next().is_some_and(is_word)
            && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-'),
        "the tag {} is not valid; it has at most {TAG_MAX} letters, digits, '_', '.' and '-'",
        excerpt(tag)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn parsed(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error: Error| panic!("{text}: {error:#}"))
    }

    #[test]
    fn completes_references_as_docker_does() {
        for (text, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:trixie", "docker.io/library/debian:trixie"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("opensuse/leap:16.0", "docker.io/opensuse/leap:16.0"),
            ("docker.io/library/debian", "docker.io/library/debian:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("host.example/a/b/c:1_2.3-4", "host.example/a/b/c:1_2.3-4"),
            ("host:5000/a", "host:5000/a:latest"),
            ("[::1]:5000/a:b", "[::1]:5000/a:b"),
            ("127.0.0.1:5000/a__b/c-d--e", "127.0.0.1:5000/a__b/c-d--e:latest"),
            ("Host.example/a", "Host.example/a:latest"),
        ] {
            assert_eq!(parsed(text).to_string(), full, "{text}");
        }
        let pinned = format!("host.example:5000/a@sha256:{HEX}");
        assert_eq!(parsed(&pinned).to_string(), pinned);
        assert_eq!(parsed(&pinned).version(), format!("sha256:{HEX}"));
        let both = parsed(&format!("a:b@sha256:{HEX}"));
        assert_eq!(both.to_string(), format!("docker.io/library/a:b@sha256:{HEX}"));
        assert_eq!(both.for_engine(), format!("docker.io/library/a@sha256:{HEX}"));
        assert_eq!(parsed("a").for_engine(), "docker.io/library/a:latest");
    }

    #[test]
    fn rejects_other_texts() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":",
            "@",
            "/",
            "a:",
            "a@",
            "a:b:c",
            "a b",
            "A",
            "a/",
            "/a",
            "a//b",
            "a/../b",
            "a/./b",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a:-b",
            "a:.b",
            "https://host.example/a",
            "host.example:0/a",
            "host.example:65536/a",
            "host.example:+1/a",
            "host.example:x/a",
            "host..example/a",
            "-host.example/a",
            "user@host.example/a",
            "[::1/a",
            "[::g]/a",
            "a@sha256:0",
            "a@sha512:00",
            "a\n",
            "a?b",
            "a#b",
            "a%2e",
            "a\u{e9}",
            "host.example:/a",
            &long,
            &format!("a@sha256:{}", HEX.to_uppercase()),
            &format!("a:{}", "b".repeat(129)),
        ] {
            let error = format!("{:#}", text.parse::<Reference>().unwrap_err());
            assert!(error.contains("expected [HOST"), "{text:?}: {error}");
            assert!(!error.contains('\n') && error.len() < 1000, "{error}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost/a", "localhost:1/a", "127.0.0.1/a", "127.1.2.3:5000/a", "[::1]:1/a"]
        {
            assert!(parsed(host).is_loopback(), "{host}");
        }
        for host in ["a", "localhost.example/a", "128.0.0.1/a", "[::2]:1/a", "127.0.0.1.example/a"]
        {
            assert!(!parsed(host).is_loopback(), "{host}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}", near in "[a-z0-9.:/@_\\[\\]-]{0,40}") {
            for text in [text, near] {
                if let Ok(reference) = text.parse::<Reference>() {
                    // What is displayed means the same, and can be part of a URL.
                    prop_assert_eq!(&parsed(&reference.to_string()), &{
                        let tag = reference.tag.clone();
                        let latest = reference.digest.is_none().then(|| DEFAULT_TAG.to_owned());
                        Reference { tag: tag.or(latest), ..reference.clone() }
                    });
                    let url = format!("https://{}/v2/{}/{}", reference.api_host(), reference.name(), reference.version());
                    prop_assert!(!url.contains(['?', '#', '%', ' ', '\\']) && !url.contains(".."), "{url}");
                }
            }
        }

        #[test]
        fn parses_what_it_displays(
            host in "(localhost|[a-z]{1,8}\\.example)(:[1-9][0-9]{0,3})?",
            name in "[a-z0-9]{1,5}((\\.|_|__|-|/)[a-z0-9]{1,5}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}",
        ) {
            let text = format!("{host}/{name}:{tag}");
            let reference = parsed(&text);
            prop_assert_eq!(reference.to_string(), text);
            prop_assert_eq!((reference.host(), reference.name()), (host.as_str(), name.as_str()));
        }
    }
}
