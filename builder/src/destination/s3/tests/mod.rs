//! Tests against a real server.

mod errors;
mod faults;
mod tls;

use std::collections::BTreeMap;
use std::path::Path;

use object_store::{Attribute, ObjectStoreExt};
use protocol::digest;

use super::server::{BUCKET, Server, variables};
use super::*;
use crate::destination::Conflict;

/// A size with two parts, of which the last one is small.
const LARGE: usize = (8 << 20) + 12_345;

/// Opens the bucket through an endpoint, with other values for some variables.
fn open(endpoint: &str, changed: &[(&str, &str)]) -> S3 {
    open_url(&format!("s3://{BUCKET}/cdn"), endpoint, changed).unwrap()
}

fn open_url(url: &str, endpoint: &str, changed: &[(&str, &str)]) -> Result<S3> {
    let mut all: BTreeMap<String, String> =
        variables(endpoint).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    S3::open(url, &Environment::new(all, None))
}

/// Writes a file of this size, and returns how to upload it.
fn upload(directory: &Path, path: &str, size: usize) -> Upload {
    // No two parts are equal.
    let blocks = (1_u64..).flat_map(|number| [number.to_le_bytes(); 512]);
    let mut content: Vec<u8> = blocks.take(size / 8 + 1).flatten().collect();
    content.truncate(size);
    let from = directory.join(path.replace('/', "-"));
    std::fs::write(&from, &content).unwrap();
    Upload { from, path: path.to_owned(), size: size as u64, sha256: digest::of_bytes(&content) }
}

/// Checks that the file was stored completely.
fn assert_stored(s3: &S3, upload: &Upload) {
    let found = s3.measure(&upload.path, u64::MAX - 1).unwrap();
    assert_eq!(found, Some((upload.size, upload.sha256.clone())), "{}", upload.path);
}

#[test]
fn creates_files_once_and_repairs_them() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let s3 = open(&server.endpoint(), &[]);
    assert_eq!(s3.describe(), "s3://releases/cdn");
    let _lock = s3.lock().unwrap();
    for size in [0, 1000, LARGE] {
        let path = format!("a/1.0~rc1+x/{size}");
        let first = upload(temporary.path(), &path, size);
        assert_eq!(s3.create(&first).unwrap(), Created::New);
        assert_stored(&s3, &first);
        assert!(server.object(&format!("cdn/{path}")).is_file(), "{path}");
        let other = upload(temporary.path(), &path, size + 1);
        assert_eq!(s3.create(&other).unwrap(), Created::Existed);
        assert_stored(&s3, &first);
        s3.repair(&other).unwrap();
        assert_stored(&s3, &other);
    }
    assert_eq!(server.incomplete_parts(), 0);
}

#[test]
fn reads_and_downloads_only_up_to_the_limit() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let s3 = open(&server.endpoint(), &[]);
    let large = upload(temporary.path(), "x", LARGE);
    s3.create(&large).unwrap();
    let to = temporary.path().join("to");
    s3.download("x", large.size, &to).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&large.from).unwrap());
    assert!(s3.download("x", large.size, &to).is_err(), "overwrote a file");
    std::fs::remove_file(&to).unwrap();
    let error = s3.download("x", large.size - 1, &to).unwrap_err().to_string();
    assert!(error.contains("has more than"), "{error}");
    assert!(s3.read("x", large.size - 1).unwrap_err().to_string().contains("has more than"));
    assert_eq!(s3.measure("x", 10).unwrap().unwrap().0, 11);
    assert_eq!((s3.read("y", 9).unwrap(), s3.measure("y", 9).unwrap()), (None, None));
    assert!(s3.download("y", 9, &temporary.path().join("y")).is_err());
    for path in ["../x", "/x", "a//b", ".x", ""] {
        assert!(s3.read(path, 9).is_err(), "{path:?}");
    }
}

#[test]
fn replaces_only_the_expected_version() {
    let server = Server::start();
    let s3 = open(&server.endpoint(), &[]);
    s3.replace("m.jwt", b"1", None).unwrap();
    let first = s3.read("m.jwt", 9).unwrap().unwrap().version;
    s3.replace("m.jwt", b"2", Some(&first)).unwrap();
    for expected in [None, Some(&first)] {
        let error = s3.replace("m.jwt", b"3", expected).unwrap_err();
        assert!(error.is::<Conflict>(), "{error:#}");
    }
    let missing = s3.replace("n.jwt", b"3", Some(&first)).unwrap_err();
    assert!(missing.is::<Conflict>(), "{missing:#}");
    assert_eq!(s3.read("m.jwt", 9).unwrap().unwrap().bytes, b"2");
}

#[test]
fn one_of_several_publishers_wins() {
    let server = Server::start();
    let s3 = open(&server.endpoint(), &[]);
    s3.replace("m.jwt", b"old", None).unwrap();
    let old = s3.read("m.jwt", 9).unwrap().unwrap().version;
    // The test server decides a condition before it receives the body, so the requests follow each
    // other closely instead of at the same time.
    let replace = |name: &str| s3.replace("m.jwt", name.as_bytes(), Some(&old));
    let results = ["a", "b", "c"].map(replace);
    assert!(results[0].is_ok() && results[1..].iter().all(Result::is_err), "{results:?}");
    assert!(results[1..].iter().all(|result| result.as_ref().unwrap_err().is::<Conflict>()));
    assert_eq!(s3.read("m.jwt", 9).unwrap().unwrap().bytes, b"a");
}

#[test]
fn rejects_upload_whose_content_changed() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let s3 = open(&server.endpoint(), &[]);
    for size in [1000, LARGE] {
        for new_size in [size - 1, size, size + 1, size + (30 << 20)] {
            let upload = upload(temporary.path(), "x", size);
            std::fs::write(&upload.from, vec![0; new_size]).unwrap();
            for result in [s3.create(&upload).map(drop), s3.repair(&upload)] {
                let error = result.unwrap_err().to_string();
                assert!(error.contains("was the file changed"), "{error}");
            }
        }
    }
    assert_eq!(s3.list("").unwrap(), []);
    assert_eq!(server.incomplete_parts(), 0);
}

#[test]
fn lists_and_removes_files() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let s3 = open(&server.endpoint(), &[]);
    for path in ["t/1/x", "t/2/x", "t2/x", "m.jwt"] {
        s3.create(&upload(temporary.path(), path, 3)).unwrap();
    }
    std::fs::write(server.object("cdn/.hidden"), "x").unwrap();
    std::fs::write(server.object("cdn2"), "x").unwrap();
    let paths = |directory| -> Vec<String> {
        s3.list(directory).unwrap().into_iter().map(|listed| listed.path).collect()
    };
    assert_eq!(paths("t"), ["t/1/x", "t/2/x"]);
    assert_eq!(paths(""), ["m.jwt", "t/1/x", "t/2/x", "t2/x"]);
    s3.remove("t/1/x").unwrap();
    s3.remove("t/1/x").unwrap();
    assert_eq!(paths("t"), ["t/2/x"]);
    assert_eq!(paths("missing"), [""; 0]);
    let listed = &s3.list("t2").unwrap()[0];
    assert!(listed.size == 3 && listed.modified.elapsed().unwrap().as_secs() < 60, "{listed:?}");
}

#[test]
fn lists_more_files_than_one_answer_has() {
    let server = Server::start();
    std::fs::create_dir_all(server.object("cdn")).unwrap();
    for number in 0..2345 {
        std::fs::write(server.object(&format!("cdn/{number:04}")), "x").unwrap();
    }
    let listed = open(&server.endpoint(), &[]).list("").unwrap();
    assert_eq!((listed.len(), &*listed[2344].path), (2345, "2344"));
}

#[test]
fn stores_the_headers_for_caches_and_browsers() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let s3 = open(&server.endpoint(), &[]);
    s3.create(&upload(temporary.path(), "t/1/notes.md", 10)).unwrap();
    s3.create(&upload(temporary.path(), "t/1/disk.raw.zst", LARGE)).unwrap();
    s3.replace("t.jwt", b"x", None).unwrap();
    for (path, content_type, cache_control) in [
        ("t/1/notes.md", "text/markdown; charset=utf-8", "public, max-age=31536000, immutable"),
        ("t/1/disk.raw.zst", "application/zstd", "public, max-age=31536000, immutable"),
        ("t.jwt", "application/jwt", "no-cache"),
    ] {
        let key = s3.client.key(path).unwrap();
        let found = s3.client.runtime.block_on(s3.client.reads.get(&key)).unwrap().attributes;
        assert_eq!(found.get(&Attribute::ContentType).unwrap().as_ref(), content_type, "{path}");
        assert_eq!(found.get(&Attribute::CacheControl).unwrap().as_ref(), cache_control, "{path}");
    }
}

#[test]
fn threads_share_one_destination() {
    let (server, temporary) = (Server::start(), tempfile::tempdir().unwrap());
    let s3 = open(&server.endpoint(), &[]);
    let uploads: Vec<Upload> = (0..8_usize)
        .map(|number| {
            upload(temporary.path(), &number.to_string(), number % 2 * 4 * LARGE + number)
        })
        .collect();
    std::thread::scope(|scope| {
        for upload in &uploads {
            let s3 = &s3;
            scope.spawn(move || {
                assert_eq!(s3.create(upload).unwrap(), Created::New);
                assert_stored(s3, upload);
            });
        }
    });
    assert_eq!(s3.list("").unwrap().len(), uploads.len());
}

#[test]
fn debug_output_has_no_secret() {
    let s3 = open("http://127.0.0.1:9", &[("AWS_SESSION_TOKEN", "token-hunter2")]);
    assert_eq!(format!("{s3:?}"), "S3(\"s3://releases/cdn\")");
}

#[test]
fn hosts_read_without_credentials() {
    let server = Server::start();
    open(&server.endpoint(), &[]).replace("t.jwt", b"manifest", None).unwrap();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = agent.get(format!("{}/cdn/t.jwt", server.public_url())).call().unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-cache");
    assert_eq!(answer.body_mut().read_to_string().unwrap(), "manifest");
    let list = agent.get(server.public_url()).call().unwrap();
    assert_eq!(list.status().as_u16(), 403, "everybody can list the bucket");
}
