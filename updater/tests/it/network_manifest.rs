//! Manifests: asked for conditionally, from mirrors in turn, by servers that may send elsewhere.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use protocol::token::sign;
use protocol::{Claims, KeyRing, PrivateKey, Release};
use serde_json::json;
use updater::candidate::{Candidate, CandidateError};
use updater::cdn::{Cdn, Times};
use updater::config::Network;

use crate::network::{Asking, plain, times};
use crate::server::{End, Reply, Server};
use crate::world::{World, claims, content, now, release, target};

fn path() -> String {
    format!("/{}", target().manifest_name())
}

/// A key that is trusted, and manifests that it signs.
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

    /// A CDN with this build, under this ETag.
    fn cdn(&self, build: u64) -> Server {
        let server = Server::start();
        let token = self.token(build);
        server.answer(&path(), move |r| Reply::file(r, token.as_bytes(), &format!("\"{build}\"")));
        server
    }

    fn asking(&self) -> Asking<'_> {
        let mut keys = KeyRing::default();
        keys.add(self.key.public().clone()).unwrap();
        Asking { keys, newest: None, cache: None }
    }

    fn ask(&self, bases: &[&str]) -> Result<Candidate, CandidateError> {
        ask(&self.asking(), bases)
    }

    fn cache(&self) -> std::path::PathBuf {
        self.directory.path().join("run/etchaos/manifests")
    }
}

fn ask(asking: &Asking<'_>, bases: &[&str]) -> Result<Candidate, CandidateError> {
    let bases: Vec<String> = bases.iter().map(|base| base.to_string()).collect();
    asking.ask(&plain(), &bases)
}

#[test]
fn an_unchanged_manifest_costs_less_than_a_kilobyte() {
    let (signer, server) = (Signer::new(), Server::start());
    let long = Release { version: "1".repeat(250), ..release(7) };
    let token = sign(&signer.key, &claims(&long)).unwrap();
    let tokens = token.clone();
    // Nginx's, with everything that it says besides.
    server.answer(&path(), move |r| {
        let reply = Reply::file(r, tokens.as_bytes(), "\"66f0a1b2-ea60\"");
        reply.header("Server: nginx/1.26.3").header("Date: Mon, 23 Nov 2026 03:47:49 GMT")
    });
    let cache = signer.cache();
    let asking = Asking { cache: Some(&cache), ..signer.asking() };
    assert_eq!(ask(&asking, &[&server.url]).unwrap().token(), token);
    let before = server.sent();
    for _ in 0..3 {
        assert_eq!(ask(&asking, &[&server.url]).unwrap().token(), token);
    }
    let each = (server.sent() - before) / 3;
    assert!(before > 1024 && each < 1024, "{before} and then {each} bytes");
    let asked = server.asked();
    assert_eq!(asked[0].header("if-none-match"), None);
    assert_eq!(asked[1].header("if-none-match"), Some("\"66f0a1b2-ea60\""));
}

#[test]
fn the_updater_polls_so() {
    let world = World::new();
    let token = sign(&world.key, &claims(&release(1))).unwrap();
    world.cdn.answer(&path(), move |r| Reply::file(r, token.as_bytes(), "\"1\""));
    world.run(&["check"]).ended(0);
    let before = world.cdn.sent();
    world.run(&["check"]).ended(0);
    world.run(&["update"]).ended(0);
    assert!(world.cdn.sent() - before < 2 * 1024);
    assert!(world.cdn.asked()[2].header("if-none-match").is_some());
    // Something else is seen at once, and a lost or damaged memory is nothing.
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
fn a_server_without_etags_is_asked_by_date() {
    let (signer, server) = (Signer::new(), Server::start());
    let token = signer.token(1);
    let date = "Mon, 23 Nov 2026 03:47:49 GMT";
    server.answer(&path(), move |r| match r.header("if-modified-since") {
        Some(known) if known == date => Reply::status(304),
        _ => Reply::ok(token.as_str()).header(format!("Last-Modified: {date}")),
    });
    let cache = signer.cache();
    let asking = Asking { cache: Some(&cache), ..signer.asking() };
    for _ in 0..3 {
        assert_eq!(ask(&asking, &[&server.url]).unwrap().release().build, 1);
    }
    assert!(server.sent() < 4096);
}

/// `If-None-Match: *` is true of whatever there is (RFC 9110 section 13.1.2).
#[test]
fn what_is_no_etag_is_not_asked_with() {
    let (signer, server) = (Signer::new(), Server::start());
    let cache = signer.cache();
    let asking = Asking { cache: Some(&cache), ..signer.asking() };
    for etag in
        ["*", "W/*", "\"", "x", "\"1\", \"2\"", "\"1\"2\"", "\"1 2\"", "\"\u{fc}\"", "w/\"1\""]
    {
        for build in [1, 2] {
            let token = signer.token(build);
            server.answer(&path(), move |r| match r.header("if-none-match") {
                Some(_) => Reply::status(304),
                None => Reply::ok(token.as_str()).header(format!("ETag: {etag}")),
            });
            let found = ask(&asking, &[&server.url]).unwrap();
            assert_eq!(found.release().build, build, "{etag}");
        }
    }
    assert!(server.asked().iter().all(|r| r.header("if-none-match").is_none()));
}

#[test]
fn what_is_remembered_is_trusted_no_more_than_a_server() {
    let (signer, server) = (Signer::new(), Server::start());
    let good = signer.token(7);
    // This server says "unchanged" to whoever asks by an ETag.
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
    let asking = |newest| Asking { newest, cache: Some(&cache), ..signer.asking() };
    let remember = |url: &str, etag: &str, token: &str| {
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
        remember(url, etag, &token);
        let found = ask(&asking(Some(7)), &[&server.url]).unwrap();
        assert_eq!(found.release().build, 7, "{etag} {token:.20}");
    }
    assert!(server.asked().iter().all(|r| r.header("if-none-match").is_none()));
    // And a good one is used, by its own URL.
    remember(&url, "\"7\"", &signer.token(8));
    assert_eq!(ask(&asking(Some(7)), &[&server.url]).unwrap().release().build, 8);
    assert_eq!(server.asked().last().unwrap().header("if-none-match"), Some("\"7\""));
}

#[test]
fn unchanged_is_no_answer_to_who_knows_nothing() {
    let (signer, server) = (Signer::new(), Server::start());
    server.put(&path(), Reply::status(304).header("ETag: \"1\""));
    let error = signer.ask(&[&server.url]).unwrap_err().to_string();
    assert!(error.contains("304"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

/// Servers whose manifest is not acceptable where build 5 was seen, and what is said of each.
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
        (serve(Reply::ok(stranger)), "not to be trusted"),
        (serve(Reply::ok("x.y.z")), "not to be trusted"),
        (serve(Reply::ok("<html><body>Log in")), "looks like HTML"),
        (signed(&Claims { exp: Some(now() - 600), ..claims(&release(9)) }), "expired"),
        (signed(&claims(&Release { variant: "fed".parse().unwrap(), ..release(9) })), "is for fed"),
        (signed(&claims(&Release { build: 0, ..release(9) })), "build 0"),
        (signed(&claims(&release(4))), "build 4, which is older than build 5"),
        (serve(Reply::status(404)), "404"),
        (serve(Reply::status(503)), "503"),
        (serve(Reply::ok("x".repeat(2 << 20))), "more than 1048576"),
        (serve(endless), "more than 1048576"),
        (serve(Reply::ok(signer.token(9)).cut(100, End::Reset)), "read to its end"),
        (serve(Reply::ok(signer.token(9)).header("Content-Encoding: br")), "content encoding"),
    ]
}

#[test]
fn mirrors_are_tried_in_turn() {
    let signer = Signer::new();
    let asking = Asking { newest: Some(5), ..signer.asking() };
    let bad = bad_servers(&signer);
    let (good, better) = (signer.cdn(6), signer.cdn(7));
    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = format!("http://{free}");
    for base in
        bad.iter().map(|(server, _)| server.url.as_str()).chain([unreachable.as_str(), "/no"])
    {
        let found = ask(&asking, &[base, &good.url, &better.url]).unwrap();
        assert_eq!(found.release().build, 6, "{base}");
    }
    // The first that is acceptable; the others are left alone.
    assert!(better.asked().is_empty());
    // None: each one is named, with its reason.
    let mut bases: Vec<&str> = bad.iter().map(|(server, _)| server.url.as_str()).collect();
    bases.push(&unreachable);
    let error = ask(&asking, &bases).unwrap_err().to_string();
    assert!(error.contains("none of the 14 CDNs"), "{error}");
    for (server, said) in &bad {
        let part = error.split(&format!("[{}] ", server.url)).nth(1).unwrap();
        assert!(part.split("; [").next().unwrap().contains(said), "no {said:?} in: {part}");
    }
    assert!(error.contains(&format!("[{unreachable}] cannot get")), "{error}");
}

#[test]
fn what_was_seen_stays_seen() {
    let signer = Signer::new();
    let (old, new) = (signer.cdn(4), signer.cdn(6));
    let with = |newest| Asking { newest, ..signer.asking() };
    // A stale mirror is taken where nothing is known, and hides nothing that was seen.
    assert_eq!(ask(&with(None), &[&old.url, &new.url]).unwrap().release().build, 4);
    assert_eq!(ask(&with(Some(4)), &[&old.url, &new.url]).unwrap().release().build, 4);
    assert_eq!(ask(&with(Some(5)), &[&old.url, &new.url]).unwrap().release().build, 6);
    let error = ask(&with(Some(5)), &[&old.url]).unwrap_err();
    assert!(matches!(error, CandidateError::Older { found: 4, newest: 5, .. }), "{error}");
}

#[test]
fn artifacts_are_asked_for_beside_the_manifest_first() {
    let signer = Signer::new();
    let (bad, good) = (Server::start(), signer.cdn(6));
    let found = signer.ask(&[&bad.url, &good.url, "/mnt/cdn"]).unwrap();
    let initrd = &found.release().artifacts[1];
    let sources = found.sources(initrd, &[]).unwrap();
    let expected = [&good.url, &bad.url, "/mnt/cdn"].map(|base| format!("{base}/6.initrd"));
    assert_eq!(sources, expected);
    // A full address is the same for every mirror, and at home at one of them only.
    let full = protocol::Artifact { url: format!("{}/y", good.url), ..initrd.clone() };
    assert_eq!(found.sources(&full, &[]).unwrap(), [full.url.as_str()]);
    let other = protocol::Artifact { url: format!("{}/y", bad.url), ..initrd.clone() };
    assert!(found.sources(&other, &[]).is_err());
    assert_eq!(
        found.sources(&other, std::slice::from_ref(&bad.url)).unwrap(),
        [other.url.as_str()]
    );
}

#[test]
fn a_manifest_that_trickles_is_given_up() {
    let (signer, server) = (Signer::new(), Server::start());
    let pause = Some(Duration::from_millis(20));
    server.put(&path(), Reply { pause, ..Reply::ok(signer.token(1)) });
    let times = Times { manifest: Duration::from_millis(500), ..times() };
    let cdn = Cdn::with_environment(&Network::default(), &[], times, &|_| None).unwrap();
    let since = Instant::now();
    let error =
        signer.asking().ask(&cdn, std::slice::from_ref(&server.url)).unwrap_err().to_string();
    assert!(error.contains("timeout") && since.elapsed() < Duration::from_secs(10), "{error}");
    assert_eq!(server.asked().len(), 1);
}

fn redirecting(status: u16, to: &str) -> Server {
    let server = Server::start();
    server.put(&path(), Reply::status(status).header(format!("Location: {to}")));
    server
}

#[test]
fn redirects_within_the_origin_are_followed() {
    let signer = Signer::new();
    for status in [301, 302, 303, 307, 308] {
        for to in ["/elsewhere?token=SECRET", "elsewhere?token=SECRET"] {
            let server = redirecting(status, to);
            server.put("/elsewhere?token=SECRET", Reply::ok(signer.token(3)));
            assert_eq!(signer.ask(&[&server.url]).unwrap().release().build, 3);
        }
    }
    // Five are, six are not.
    for (steps, is_followed) in [(5, true), (6, false)] {
        let server = redirecting(302, "/1");
        for n in 1..steps {
            let next = format!("Location: /{}", n + 1);
            server.put(&format!("/{n}"), Reply::status(302).header(next));
        }
        server.put(&format!("/{steps}"), Reply::ok(signer.token(3)));
        let found = signer.ask(&[&server.url]);
        assert_eq!(found.is_ok(), is_followed);
        let said = found.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(is_followed || said.contains("more than 5 times"), "{said}");
        assert!(server.asked().len() <= 6);
    }
}

#[test]
fn redirects_elsewhere_are_not_unless_allowed() {
    let (signer, other) = (Signer::new(), Server::start());
    other.put("/x", Reply::ok(signer.token(3)));
    let server = redirecting(302, &format!("{}/x", other.url));
    let error = signer.ask(&[&server.url]).unwrap_err().to_string();
    for said in ["302", &format!("redirects to {}", other.url), "not followed", "allowedOrigins"] {
        assert!(error.contains(said), "{error}");
    }
    assert!(other.asked().is_empty());
    let allowed = [other.url.clone()];
    let cdn = Cdn::with_environment(&Network::default(), &allowed, times(), &|_| None).unwrap();
    let found = signer.asking().ask(&cdn, std::slice::from_ref(&server.url)).unwrap();
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
        let error = signer.ask(&[&server.url]).unwrap_err().to_string();
        assert!(error.contains("not followed") && !error.contains("SECRET"), "{to}: {error}");
        assert!(error.len() < 1000, "{} bytes", error.len());
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn an_artifact_may_be_redirected_too() {
    let world = World::new();
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::status(302).header("Location: /store/2"));
    world.cdn.put("/store/2", Reply::ok(content(protocol::Role::Initrd, 2)));
    world.run(&["update"]).ended(0);
    world.assert_slot(protocol::esp::Slot::B, 2);
}
