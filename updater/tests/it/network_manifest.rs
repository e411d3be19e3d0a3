//! Manifests: conditional requests, mirrors and redirects.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use protocol::token::sign;
use protocol::{Claims, KeyRing, PrivateKey, Release};
use serde_json::json;
use updater::candidate::{Candidate, CandidateError};
use updater::cdn::{Cdn, Timeouts};
use updater::config::Network;

use crate::network::{Query, plain, timeouts};
use crate::server::{End, Reply, Server};
use crate::world::{World, claims, content, now, release, target};

fn path() -> String {
    format!("/{}", target().manifest_name())
}

/// A trusted key that signs manifests.
struct Signer {
    key: PrivateKey,
    directory: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        Self { key: PrivateKey::generate(), directory: tempfile::tempdir().unwrap() }
    }

    fn token(&self, build: u64) -> String {
        sign(&self.key, &claims(&release(build))).unwrap()
    }

    /// Starts a CDN with this build, which is also its ETag.
    fn cdn(&self, build: u64) -> Server {
        let server = Server::start();
        let token = self.token(build);
        server.answer(&path(), move |r| Reply::file(r, token.as_bytes(), &format!("\"{build}\"")));
        server
    }

    fn query(&self) -> Query<'_> {
        let mut keys = KeyRing::default();
        keys.add(self.key.public().clone()).unwrap();
        Query { keys, newest: None, cache: None }
    }

    fn fetch(&self, bases: &[&str]) -> Result<Candidate, CandidateError> {
        fetch(&self.query(), bases)
    }

    fn cache(&self) -> std::path::PathBuf {
        self.directory.path().join("run/etchaos/manifests")
    }
}

fn fetch(query: &Query<'_>, bases: &[&str]) -> Result<Candidate, CandidateError> {
    let bases: Vec<String> = bases.iter().map(|base| base.to_string()).collect();
    query.fetch(&plain(), &bases)
}

#[test]
fn unchanged_manifest_transfers_less_than_a_kilobyte() {
    let (signer, server) = (Signer::new(), Server::start());
    let long = Release { version: "1".repeat(250), ..release(7) };
    let token = sign(&signer.key, &claims(&long)).unwrap();
    let tokens = token.clone();
    // A response of nginx, with its other header fields.
    server.answer(&path(), move |r| {
        let reply = Reply::file(r, tokens.as_bytes(), "\"66f0a1b2-ea60\"");
        reply.header("Server: nginx/1.26.3").header("Date: Mon, 23 Nov 2026 03:47:49 GMT")
    });
    let cache = signer.cache();
    let query = Query { cache: Some(&cache), ..signer.query() };
    assert_eq!(fetch(&query, &[&server.url]).unwrap().token(), token);
    let before = server.sent();
    for _ in 0..3 {
        assert_eq!(fetch(&query, &[&server.url]).unwrap().token(), token);
    }
    let each = (server.sent() - before) / 3;
    assert!(before > 1024 && each < 1024, "{before} and then {each} bytes");
    let requests = server.received();
    assert_eq!(requests[0].header("if-none-match"), None);
    assert_eq!(requests[1].header("if-none-match"), Some("\"66f0a1b2-ea60\""));
}

#[test]
fn updater_polls_with_conditional_requests() {
    let world = World::new();
    let token = sign(&world.key, &claims(&release(1))).unwrap();
    world.cdn.answer(&path(), move |r| Reply::file(r, token.as_bytes(), "\"1\""));
    world.run(&["check"]).ended(0);
    let before = world.cdn.sent();
    world.run(&["check"]).ended(0);
    world.run(&["update"]).ended(0);
    assert!(world.cdn.sent() - before < 2 * 1024);
    assert!(world.cdn.received()[2].header("if-none-match").is_some());
    // A new manifest is found at once, and a lost or damaged cache does no harm.
    let token = sign(&world.key, &claims(&release(2))).unwrap();
    world.cdn.answer(&path(), move |r| Reply::file(r, token.as_bytes(), "\"2\""));
    world.run(&["check"]).ended(10);
    for damage in ["", "{", "[[[["] {
        fs::write(world.path("host/run/etchaos/manifests"), damage).unwrap();
        world.run(&["check"]).ended(10);
    }
    fs::remove_dir_all(world.path("host/run/etchaos")).unwrap();
    world.run(&["check"]).ended(10);
}

#[test]
fn uses_last_modified_without_etag() {
    let (signer, server) = (Signer::new(), Server::start());
    let token = signer.token(1);
    let date = "Mon, 23 Nov 2026 03:47:49 GMT";
    server.answer(&path(), move |r| match r.header("if-modified-since") {
        Some(known) if known == date => Reply::status(304),
        _ => Reply::ok(token.as_str()).header(format!("Last-Modified: {date}")),
    });
    let cache = signer.cache();
    let query = Query { cache: Some(&cache), ..signer.query() };
    for _ in 0..3 {
        assert_eq!(fetch(&query, &[&server.url]).unwrap().release().build, 1);
    }
    assert!(server.sent() < 4096);
}

/// `If-None-Match: *` matches any file (RFC 9110 section 13.1.2), so it must never be sent.
#[test]
fn sends_only_valid_etags() {
    let (signer, server) = (Signer::new(), Server::start());
    let cache = signer.cache();
    let query = Query { cache: Some(&cache), ..signer.query() };
    for etag in
        ["*", "W/*", "\"", "x", "\"1\", \"2\"", "\"1\"2\"", "\"1 2\"", "\"\u{fc}\"", "w/\"1\""]
    {
        for build in [1, 2] {
            let token = signer.token(build);
            server.answer(&path(), move |r| match r.header("if-none-match") {
                Some(_) => Reply::status(304),
                None => Reply::ok(token.as_str()).header(format!("ETag: {etag}")),
            });
            let found = fetch(&query, &[&server.url]).unwrap();
            assert_eq!(found.release().build, build, "{etag}");
        }
    }
    assert!(server.received().iter().all(|r| r.header("if-none-match").is_none()));
}

#[test]
fn verifies_cached_manifests() {
    let (signer, server) = (Signer::new(), Server::start());
    let good = signer.token(7);
    // This server responds with 304 to every conditional request.
    server.answer(&path(), move |r| match r.header("if-none-match") {
        Some(_) => Reply::status(304),
        None => Reply::ok(good.as_str()).header("ETag: \"7\""),
    });
    let cache = signer.cache();
    let url = format!("{}{}", server.url, path());
    let sign_with = |key: &PrivateKey, claims: &Claims| sign(key, claims).unwrap();
    let stranger = PrivateKey::generate();
    let expired = Claims { exp: Some(now() - 600), ..claims(&release(9)) };
    let foreign = claims(&Release { variant: "fed".parse().unwrap(), ..release(9) });
    let query = |newest| Query { newest, cache: Some(&cache), ..signer.query() };
    let write_cache = |url: &str, etag: &str, token: &str| {
        let entry = json!({"url": url, "etag": etag, "lastModified": null, "token": token});
        fs::create_dir_all(cache.parent().unwrap()).unwrap();
        fs::write(&cache, json!({"entries": [entry]}).to_string()).unwrap();
    };
    for (url, etag, token) in [
        (url.as_str(), "\"7\"", sign_with(&stranger, &claims(&release(9)))),
        (&url, "\"7\"", sign_with(&signer.key, &expired)),
        (&url, "\"7\"", sign_with(&signer.key, &foreign)),
        (&url, "\"7\"", sign_with(&signer.key, &claims(&release(6)))),
        (&url, "\"7\"", "x".repeat(10_000)),
        (&url, "a\r\nX: b", signer.token(9)),
        ("http://other.example/x", "\"7\"", signer.token(9)),
    ] {
        write_cache(url, etag, &token);
        let found = fetch(&query(Some(7)), &[&server.url]).unwrap();
        assert_eq!(found.release().build, 7, "{etag} {token:.20}");
    }
    assert!(server.received().iter().all(|r| r.header("if-none-match").is_none()));
    // A valid cached manifest is used for its own URL.
    write_cache(&url, "\"7\"", &signer.token(8));
    assert_eq!(fetch(&query(Some(7)), &[&server.url]).unwrap().release().build, 8);
    assert_eq!(server.received().last().unwrap().header("if-none-match"), Some("\"7\""));
}

#[test]
fn rejects_304_for_unconditional_request() {
    let (signer, server) = (Signer::new(), Server::start());
    server.put(&path(), Reply::status(304).header("ETag: \"1\""));
    let error = signer.fetch(&[&server.url]).unwrap_err().to_string();
    assert!(error.contains("304"), "{error}");
    assert_eq!(server.received().len(), 1);
}

/// Returns servers without an acceptable manifest if build 5 is the newest known, and a part of the
/// message for each.
fn bad_servers(signer: &Signer) -> Vec<(Server, &'static str)> {
    let serve = |reply: Reply| {
        let server = Server::start();
        server.put(&path(), reply);
        server
    };
    let signed = |claims: &Claims| serve(Reply::ok(sign(&signer.key, claims).unwrap()));
    let stranger = sign(&PrivateKey::generate(), &claims(&release(9))).unwrap();
    let endless = Reply { length: Some(None), end: End::Repeat, ..Reply::ok("x".repeat(100_000)) };
    vec![
        (serve(Reply::ok(stranger)), "cannot be trusted"),
        (serve(Reply::ok("x.y.z")), "cannot be trusted"),
        (serve(Reply::ok("<html><body>Log in")), "looks like HTML"),
        (signed(&Claims { exp: Some(now() - 600), ..claims(&release(9)) }), "expired"),
        (signed(&claims(&Release { variant: "fed".parse().unwrap(), ..release(9) })), "is for fed"),
        (signed(&claims(&Release { build: 0, ..release(9) })), "build 0"),
        (signed(&claims(&release(4))), "build 4, which is older than the known build 5"),
        (serve(Reply::status(404)), "404"),
        (serve(Reply::status(503)), "503"),
        (serve(Reply::ok("x".repeat(2 << 20))), "more than 1048576"),
        (serve(endless), "more than 1048576"),
        (serve(Reply::ok(signer.token(9)).cut(100, End::Reset)), "read to its end"),
        (serve(Reply::ok(signer.token(9)).header("Content-Encoding: br")), "content encoding"),
    ]
}

#[test]
fn tries_mirrors_in_order() {
    let signer = Signer::new();
    let query = Query { newest: Some(5), ..signer.query() };
    let bad = bad_servers(&signer);
    let (good, better) = (signer.cdn(6), signer.cdn(7));
    // A port on which most likely nothing listens.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = format!("http://{free}");
    for base in
        bad.iter().map(|(server, _)| server.url.as_str()).chain([unreachable.as_str(), "/no"])
    {
        let found = fetch(&query, &[base, &good.url, &better.url]).unwrap();
        assert_eq!(found.release().build, 6, "{base}");
    }
    // The mirrors after the first acceptable one get no request.
    assert!(better.received().is_empty());
    // Without an acceptable manifest, the error has each mirror's reason.
    let mut bases: Vec<&str> = bad.iter().map(|(server, _)| server.url.as_str()).collect();
    bases.push(&unreachable);
    let error = fetch(&query, &bases).unwrap_err().to_string();
    assert!(error.contains("any of the 14 CDNs"), "{error}");
    for (server, expected) in &bad {
        let part = error.split(&format!("[{}] ", server.url)).nth(1).unwrap();
        assert!(part.split("; [").next().unwrap().contains(expected), "no {expected:?} in: {part}");
    }
    assert!(error.contains(&format!("[{unreachable}] cannot get")), "{error}");
}

#[test]
fn rejects_older_build_than_newest_known() {
    let signer = Signer::new();
    let (old, new) = (signer.cdn(4), signer.cdn(6));
    let with = |newest| Query { newest, ..signer.query() };
    // A mirror that is out of date is accepted if no newer build is known, and skipped otherwise.
    assert_eq!(fetch(&with(None), &[&old.url, &new.url]).unwrap().release().build, 4);
    assert_eq!(fetch(&with(Some(4)), &[&old.url, &new.url]).unwrap().release().build, 4);
    assert_eq!(fetch(&with(Some(5)), &[&old.url, &new.url]).unwrap().release().build, 6);
    let error = fetch(&with(Some(5)), &[&old.url]).unwrap_err();
    assert!(matches!(error, CandidateError::Older { found: 4, newest: 5, .. }), "{error}");
}

#[test]
fn artifact_urls_begin_next_to_manifest() {
    let signer = Signer::new();
    let (bad, good) = (Server::start(), signer.cdn(6));
    let found = signer.fetch(&[&bad.url, &good.url, "/mnt/cdn"]).unwrap();
    let initrd = &found.release().artifacts[1];
    let urls = found.artifact_urls(initrd, &[]).unwrap();
    let expected = [&good.url, &bad.url, "/mnt/cdn"].map(|base| format!("{base}/6.initrd"));
    assert_eq!(urls, expected);
    // An absolute URL is the same for every mirror, and has the origin of only one of them.
    let full = protocol::Artifact { url: format!("{}/y", good.url), ..initrd.clone() };
    assert_eq!(found.artifact_urls(&full, &[]).unwrap(), [full.url.as_str()]);
    let other = protocol::Artifact { url: format!("{}/y", bad.url), ..initrd.clone() };
    assert!(found.artifact_urls(&other, &[]).is_err());
    assert_eq!(
        found.artifact_urls(&other, std::slice::from_ref(&bad.url)).unwrap(),
        [other.url.as_str()]
    );
}

#[test]
fn gives_up_on_slow_manifest() {
    let (signer, server) = (Signer::new(), Server::start());
    let pause = Some(Duration::from_millis(20));
    server.put(&path(), Reply { pause, ..Reply::ok(signer.token(1)) });
    let timeouts = Timeouts { manifest: Duration::from_millis(500), ..timeouts() };
    let cdn = Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap();
    let since = Instant::now();
    let error =
        signer.query().fetch(&cdn, std::slice::from_ref(&server.url)).unwrap_err().to_string();
    assert!(error.contains("timeout") && since.elapsed() < Duration::from_secs(10), "{error}");
    assert_eq!(server.received().len(), 1);
}

fn redirecting(status: u16, to: &str) -> Server {
    let server = Server::start();
    server.put(&path(), Reply::status(status).header(format!("Location: {to}")));
    server
}

#[test]
fn follows_redirects_within_origin() {
    let signer = Signer::new();
    for status in [301, 302, 303, 307, 308] {
        for to in ["/elsewhere?token=SECRET", "elsewhere?token=SECRET"] {
            let server = redirecting(status, to);
            server.put("/elsewhere?token=SECRET", Reply::ok(signer.token(3)));
            assert_eq!(signer.fetch(&[&server.url]).unwrap().release().build, 3);
        }
    }
    // Five redirects are followed, the sixth is not.
    for (steps, is_followed) in [(5, true), (6, false)] {
        let server = redirecting(302, "/1");
        for n in 1..steps {
            let next = format!("Location: /{}", n + 1);
            server.put(&format!("/{n}"), Reply::status(302).header(next));
        }
        server.put(&format!("/{steps}"), Reply::ok(signer.token(3)));
        let found = signer.fetch(&[&server.url]);
        assert_eq!(found.is_ok(), is_followed);
        let error = found.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(is_followed || error.contains("more than 5 times"), "{error}");
        assert!(server.received().len() <= 6);
    }
}

#[test]
fn follows_redirects_to_other_origins_only_if_allowed() {
    let (signer, other) = (Signer::new(), Server::start());
    other.put("/x", Reply::ok(signer.token(3)));
    let server = redirecting(302, &format!("{}/x", other.url));
    let error = signer.fetch(&[&server.url]).unwrap_err().to_string();
    for part in ["302", &format!("redirects to {}", other.url), "not followed", "allowedOrigins"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(other.received().is_empty());
    let allowed = [other.url.clone()];
    let cdn = Cdn::with_environment(&Network::default(), &allowed, timeouts(), &|_| None).unwrap();
    let found = signer.query().fetch(&cdn, std::slice::from_ref(&server.url)).unwrap();
    assert_eq!(found.release().build, 3);

    let port = server.url.rsplit(':').next().unwrap();
    for to in [
        format!("http://localhost:{port}/x"),
        format!("http://127.0.0.1:{port}@evil.example/SECRET"),
        format!("http://user:SECRET@127.0.0.1:{port}/x"),
        "//evil.example/SECRET".into(),
        "/a/../../x".into(),
        "/%2e%2e/x".into(),
        "/\\evil.example/SECRET".into(),
        format!("https://{}.example/x", "a".repeat(20_000)),
        "/\u{fc}/SECRET".into(),
        "file:///etc/passwd".into(),
        String::new(),
    ] {
        let server = redirecting(307, &to);
        let error = signer.fetch(&[&server.url]).unwrap_err().to_string();
        assert!(error.contains("not followed") && !error.contains("SECRET"), "{to}: {error}");
        assert!(error.len() < 1000, "{} bytes", error.len());
        assert_eq!(server.received().len(), 1);
    }
}

#[test]
fn follows_redirect_of_artifact() {
    let world = World::new();
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::status(302).header("Location: /store/2"));
    world.cdn.put("/store/2", Reply::ok(content(protocol::Role::Initrd, 2)));
    world.run(&["update"]).ended(0);
    world.assert_slot(protocol::esp::Slot::B, 2);
}
