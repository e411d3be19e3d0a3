//! Which Patterns are pulled.

use std::time::Duration;

use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use serde_json::json;

use super::host::{Host, PATH};
use crate::server::{End, Reply, Server};
use crate::world::now;

#[test]
fn an_unchanged_pattern_costs_one_short_response() {
    let host = Host::new();
    let token = host.token(10, json!([host.command("a")]));
    let (served, url) = (token.clone(), host.world.cdn.url.clone());
    host.world.cdn.answer(PATH, move |request| Reply::file(request, served.as_bytes(), "\"1\""));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    let before = host.world.cdn.sent();
    host.pull().ended(0);
    let sent = host.world.cdn.sent() - before;
    assert!(sent < 200, "{sent} bytes from {url}");
    let received = host.world.cdn.received();
    assert_eq!(received.last().unwrap().header("if-none-match"), Some("\"1\""));
    // What is not due is not requested.
    let count = received.len();
    host.world.run(&["sources"]).ended(0);
    host.world.run(&["sources", "--pull"]).ended(0);
    assert_eq!(host.world.cdn.received().len(), count);
}

#[test]
fn refuses_what_does_not_verify_and_keeps_what_runs() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    let other = PrivateKey::generate();
    let newer = || json!([host.command("b")]);
    let expired = Claims { exp: Some(now() - 90), ..host.claims(95, newer()) };
    let for_others = Claims { aud: vec!["other".into()], ..host.claims(5, newer()) };
    let release = crate::world::claims(&crate::world::release(2));
    let long = "x".repeat(protocol::token::TOKEN_MAX + 1);
    let whole = Reply::ok(host.token(5, newer()));
    let invalid = json!([{"id": "b", "always": true, "change": "true", "onChange": ["none"]}]);
    for (reply, reason) in [
        (Reply::ok(sign(&other, &host.claims(5, newer())).unwrap()), "not trusted here"),
        (Reply::ok(host.token(101, newer())), "signed at"),
        (Reply::ok(host.token(100, newer())), "signed at"),
        (Reply::ok(host.sign(&expired)), "expired"),
        (Reply::ok(host.sign(&Claims { iat: None, ..host.claims(5, newer()) })), "iat"),
        (Reply::ok(host.sign(&for_others)), "audience"),
        (Reply::ok(host.sign(&Claims { iat: Some(now()), ..release })), "manifest of a release"),
        (Reply::ok(long), "more than 1048576"),
        (Reply::ok("<html>log in</html>"), "HTML"),
        (Reply { cut: Some(40), ..whole.clone() }, "web.jwt"),
        (Reply { cut: Some(40), end: End::Reset, ..whole.clone() }, "web.jwt"),
        (Reply { length: Some(None), cut: Some(40), ..whole }, "JWT"),
        (Reply::status(404), "404"),
        (Reply::status(302).header("Location: http://127.0.0.9:1/web.jwt"), "not followed"),
    ] {
        host.world.cdn.put(PATH, reply);
        host.pull().failed(&[reason]);
        host.world.run(&["sources", "--all"]).ended(0);
        assert_eq!(host.state(), ["a"], "{reason}");
        let status = host.status();
        assert!(status["pull"]["error"].as_str().unwrap().contains(reason), "{status}");
    }
    // A Pattern that cannot run is not accepted either.
    host.publish(host.token(5, invalid));
    let ran = host.run();
    assert!(ran.stderr.contains("onChange"), "{}", ran.stderr);
    assert_eq!(host.state(), ["a"]);
    host.publish(host.token(4, newer()));
    host.run().ended(0);
    assert_eq!(host.state(), ["b"]);
}

#[test]
fn tries_mirrors_in_order() {
    let host = Host::new();
    let [first, second] = [(); 2].map(|()| Server::start());
    let urls = [&first, &second].map(|server| format!("{}{PATH}", server.url));
    let mut web = host.web();
    web["pull"] = json!(urls);
    host.configure(json!({"web": web}));
    second.put(PATH, Reply::ok(host.token(100, json!([host.command("a")]))));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    // A mirror that lags behind does not hide a newer Pattern.
    first.put(PATH, Reply::ok(host.token(200, json!([host.command("old")]))));
    second.put(PATH, Reply::ok(host.token(50, json!([host.command("b")]))));
    host.run().ended(0);
    assert_eq!(host.state(), ["b"]);
    first.remove(PATH);
    second.remove(PATH);
    let ran = host.pull();
    ran.failed(&[&urls[0], &urls[1]]);
}

#[test]
fn a_host_that_has_pulled_nothing_yet_tries_again_soon() {
    let host = Host::new();
    host.pull().failed(&["404"]);
    host.world.run(&["sources"]).ended(0);
    let status = host.status();
    assert_eq!(status["state"], "nothing");
    let next = status["next"].as_u64().unwrap();
    assert!((now() + 200..=now() + 300).contains(&next), "{status}");
}

#[test]
fn reads_a_token_from_a_file() {
    let host = Host::new();
    host.world.write("stick/web.jwt", host.token(10, json!([host.command("a")])));
    let mut web = host.web();
    web["pull"] = json!(host.world.path("stick/web.jwt"));
    host.configure(json!({"web": web}));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
}

#[test]
fn a_slow_server_does_not_keep_other_sources_from_running() {
    let host = Host::new();
    let key = host.web()["keys"].clone();
    let slow = json!({"keys": key, "pull": format!("{}/slow.jwt", host.world.cdn.url)});
    let commands = json!({"commands": [host.command("static")]});
    host.configure(json!({"slow": slow, "web": host.web(), "static": commands}));
    host.publish(host.token(10, json!([host.command("a")])));
    // The request fails at once here; the timeouts are those of the CDN.
    let failed =
        Reply { end: End::Reset, cut: Some(1), pause: Some(Duration::ZERO), ..Reply::ok("xx") };
    host.world.cdn.put("/slow.jwt", failed);
    host.run().ended(0);
    assert_eq!(host.state(), ["a", "static"]);
}

#[test]
fn a_host_without_sources_does_nothing() {
    let host = Host::new();
    host.world.write("esp/etchaos/config.json", "{}");
    let before = host.world.tree();
    host.world.run(&["sources", "--pull"]).ended(3);
    host.world.run(&["sources"]).ended(3);
    assert_eq!(host.world.tree(), before);
    assert!(!host.world.commands().contains("systemd-run"));
}
