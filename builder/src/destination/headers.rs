//! The HTTP headers of published files.
//!
//! An S3 store sends what was stored with the file. A directory stores no headers: there, the
//! configuration of the web server has to contain the same table.

/// For files whose path is never written twice.
pub(crate) const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// For files that change, such as the manifest. A cache may store them, but has to ask the server
/// whether its copy is still the newest one before each use. Hosts poll with `If-None-Match`, so
/// the answer has no body while nothing changed.
pub(crate) const REVALIDATED: &str = "no-cache";

/// The content type of a file, by the end of its name.
const CONTENT_TYPES: [(&str, &str); 6] = [
    (".jwt", "application/jwt"),
    (".json", "application/json"),
    (".md", "text/markdown; charset=utf-8"),
    ("SHA256SUMS", "text/plain; charset=utf-8"),
    (".zst", "application/zstd"),
    (".tar", "application/x-tar"),
];

/// Returns the value of `Content-Type` for a path.
pub(crate) fn content_type(path: &str) -> &'static str {
    let found = CONTENT_TYPES.iter().find(|(end, _)| path.ends_with(end));
    found.map_or("application/octet-stream", |(_, content_type)| content_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_depends_on_the_end_of_the_name() {
        for (path, expected) in [
            ("deb_amd64.jwt", "application/jwt"),
            ("t/1/sbom.spdx.json", "application/json"),
            ("t/1/notes.md", "text/markdown; charset=utf-8"),
            ("t/1/SHA256SUMS", "text/plain; charset=utf-8"),
            ("t/1/disk.raw.zst", "application/zstd"),
            ("t/1/netboot.tar", "application/x-tar"),
            ("t/1/vmlinuz", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path), expected, "{path}");
        }
    }
}
