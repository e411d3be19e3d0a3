//! Captive portals, and redirects and URLs that write the same server in another way.

use protocol::esp::Slot::B;
use protocol::{Role, release::Artifact};
use serde_json::json;

use crate::server::{Reply, Server};
use crate::world::{World, content, release, target};

fn manifest() -> String {
    format!("/{}", target().manifest_name())
}

fn redirect(to: &str, body: &str) -> Reply {
    let html = if body.is_empty() { "X: y" } else { "Content-Type: text/html; charset=utf-8" };
    Reply { body: body.into(), ..Reply::status(302) }.header(format!("Location: {to}")).header(html)
}

#[test]
fn names_a_captive_portal_and_does_not_advise_to_allow_it() {
    let page = "<html><body>Moved</body></html>";
    let portal = Server::start();
    for reply in [
        redirect("http://portal.example/login?token=SECRET", ""),
        redirect("http://portal.example/login?token=SECRET", page),
        redirect("https://portal.example:8443/guest/", page),
        redirect("https://portal.example/?url=http%3A%2F%2F127.0.0.1%2F", ""),
        redirect(&format!("{}/login", portal.url), page),
        Reply::status(511),
        Reply { body: page.into(), ..Reply::status(511) },
    ] {
        let world = World::new();
        world.cdn.put(&manifest(), reply);
        let ran = world.run(&["update"]);
        ran.failed(&["captive portal", "log in to the network"]);
        for advice in ["allowedOrigins", "overloaded", "SECRET"] {
            assert!(!ran.stderr.contains(advice), "{}", ran.stderr);
        }
        // Neither is tried again at once.
        assert_eq!(world.cdn.requests().len(), 1, "{}", ran.stderr);
    }
    assert!(portal.received().is_empty());
}

#[test]
fn names_a_captive_portal_that_sends_its_page_at_once() {
    for page in [
        "<!DOCTYPE html><title>Login</title>",
        "<meta http-equiv=\"refresh\" content=\"0; url=http://portal.example/\">",
        "\r\n<script>location = 'http://portal.example/'</script>",
        "<body>Please log in",
        "<?xml version=\"1.0\"?><html xmlns=\"http://www.w3.org/1999/xhtml\"/>",
    ] {
        let world = World::new();
        world.cdn.put(&manifest(), Reply::ok(page));
        world.run(&["update"]).failed(&["is not a JWT", "captive portal"]);
        // A redirect to a page of the network at the same address.
        world.cdn.put(&manifest(), redirect("/login?token=SECRET", ""));
        world.cdn.put("/login?token=SECRET", Reply::ok(page));
        let ran = world.run(&["update"]);
        ran.failed(&["is not a JWT", "captive portal"]);
        assert!(!ran.stderr.contains("SECRET"), "{}", ran.stderr);
    }
}

#[test]
fn follows_a_redirect_that_adds_only_a_query() {
    let world = World::new();
    world.publish(2);
    for (path, role) in [("/2.vmlinuz", Role::Kernel), ("/2.initrd", Role::Initrd)] {
        world.cdn.put(path, Reply::status(303).header("Location: ?token=1#part"));
        world.cdn.put(&format!("{path}?token=1"), Reply::ok(content(role, 2)));
    }
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}

#[test]
fn advises_to_allow_a_mirror() {
    for (to, body, advice) in [
        (format!("https://mirror.example{}", manifest()), "<html>Moved", "add the other origin to"),
        ("https://store.example/4f/d2?signature=SECRET".into(), "", "add the other origin to"),
        (format!("http://mirror.example{}", manifest()), "<html>Moved", "accepts only https"),
    ] {
        let world = World::new();
        world.cdn.put(&manifest(), redirect(&to, body));
        let ran = world.run(&["update"]);
        ran.failed(&["302", "not followed", "allowedOrigins", advice]);
        assert!(!ran.stderr.contains("SECRET"), "{}", ran.stderr);
    }
}

#[test]
fn follows_redirects_to_the_same_server_however_it_is_written() {
    let world = World::new();
    let port = world.cdn.url.rsplit(':').next().unwrap().to_owned();
    let config = json!({"cdn": format!("HTTP://LocalHost:{port}/")});
    world.write("esp/etchaos/config.json", config.to_string());
    world.publish(2);
    for (from, to) in [
        ("/2.initrd", format!("http://LOCALHOST:0{port}/store%2F2/x.initrd")),
        ("/2.vmlinuz", format!("//localhost:{port}/store%2F2/x.vmlinuz")),
    ] {
        world.cdn.put(from, Reply::status(307).header(format!("Location: {to}")));
    }
    // The encoded slash is part of a name, and the server gets it as the redirect has it.
    world.cdn.put("/store%2F2/x.initrd", Reply::ok(content(Role::Initrd, 2)));
    world.cdn.put("/store%2F2/x.vmlinuz", Reply::ok(content(Role::Kernel, 2)));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}

#[test]
fn accepts_artifacts_of_the_same_server_however_it_is_written() {
    let world = World::new();
    let port = world.cdn.url.rsplit(':').next().unwrap().to_owned();
    let config = json!({"cdn": format!("http://localhost:{port}")});
    world.write("esp/etchaos/config.json", config.to_string());
    world.publish(2);
    let mut release = release(2);
    for artifact in &mut release.artifacts {
        let Artifact { url, .. } = artifact;
        *url = format!("HTTP://LOCALHOST:{port}/{url}");
    }
    world.publish_manifest(&release);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}

#[test]
fn does_not_follow_redirects_whose_path_changes_when_it_is_decoded() {
    for path in
        ["/a%2F..%2Fx", "/%2e%2e/x", "/a/..%2Fx", "/a%252F..%252Fx", "/a%5C..%5Cx", "/..;/x"]
    {
        let world = World::new();
        world.cdn.put(&manifest(), Reply::status(302).header(format!("Location: {path}")));
        world.run(&["update"]).failed(&["not followed", "dot segments"]);
        assert_eq!(world.cdn.requests().len(), 1, "{path}");
    }
}
