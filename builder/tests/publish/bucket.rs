//! Publishing to a bucket of a real S3 server, with the real program.

use std::process::Command;

use protocol::Role;

use crate::s3::{Fault, Proxy, Rule, SECRET_KEY, Server, variables};
use crate::world::{Run, World, publish, target};

/// The destination, and the URL below that of the server's bucket.
const BUCKET: &str = "s3://releases/os";

/// Runs the builder with the credentials of the server at `endpoint`.
fn run(world: &World, endpoint: &str, arguments: &str) -> Run {
    let mut command: Command = world.command(arguments);
    command.env("HOME", world.path("home"));
    for (name, value) in variables(endpoint) {
        command.env(name, value);
    }
    Run::of(command, arguments)
}

fn public_url(server: &Server) -> String {
    format!("{}/os", server.public_url())
}

/// Returns the content of the release that hosts find, after "builder verify" has checked it.
fn content(world: &World, server: &Server) -> String {
    let from = public_url(server);
    let verify = format!("verify deb --arch amd64 --from {from} --trusted-key @key.pub --json");
    let verified: serde_json::Value = serde_json::from_str(&world.run(&verify).ok()).unwrap();
    let name = target().artifact_name(Role::Kernel);
    let files = verified["files"].as_array().unwrap();
    let kernel = files.iter().find(|file| file["name"] == name.as_str()).unwrap();
    let object = server.object(&format!("os/{}", kernel["url"].as_str().unwrap()));
    let text = std::fs::read_to_string(object).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

#[test]
fn publishes_to_a_bucket_and_a_directory_at_once() {
    let (world, server) = (World::new(), Server::start());
    let to = format!("--to {BUCKET} --to cdn --public-url {}", public_url(&server));
    for content_of in ["a", "b"] {
        world.build("out", content_of);
        run(&world, &server.endpoint(), &publish("out", &to)).ok();
        assert_eq!(content(&world, &server), content_of);
        assert_eq!(world.content("cdn", "key"), content_of);
    }
    let unchanged = run(&world, &server.endpoint(), &publish("out", &to)).ok();
    assert!(unchanged.contains("unchanged"), "{unchanged}");
    let options = format!("--arch amd64 --signing-key @key.key {to}");
    run(&world, &server.endpoint(), &format!("withdraw deb {options}")).ok();
    assert_eq!(content(&world, &server), "a");
}

#[test]
fn faults_that_pass_do_not_stop_a_publication() {
    let (world, server) = (World::new(), Server::start());
    let busy = Fault::Answer("503 Slow Down", "<Error><Code>SlowDown</Code></Error>");
    let faults = [busy, Fault::LoseAnswer, Fault::ResetRequest(1000), Fault::CloseWithoutAnswer];
    for (number, fault) in faults.into_iter().enumerate() {
        let expected = format!("release{number}");
        world.build("out", &expected);
        let rule = Rule { contains: "PUT ", times: 2, fault: fault.clone() };
        let proxy = Proxy::start(server.address(), [rule]);
        run(&world, &proxy.endpoint(), &publish("out", &format!("--to {BUCKET}"))).ok();
        assert_eq!(content(&world, &server), expected, "{fault:?}");
    }
}

#[test]
fn faults_that_stay_leave_the_live_release_and_show_no_secret() {
    let (world, server) = (World::new(), Server::start());
    world.build("out", "a");
    let arguments = publish("out", &format!("--to {BUCKET}"));
    run(&world, &server.endpoint(), &arguments).ok();
    world.build("out", "b");
    let denied = Fault::Answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>");
    let busy = Fault::Answer("503 Slow Down", "<Error><Code>SlowDown</Code></Error>");
    for (fault, expected) in
        [(denied, "AccessDenied"), (busy, "SlowDown"), (Fault::ResetAnswer(0), "")]
    {
        let rule = Rule { contains: "PUT ", times: 1000, fault };
        let proxy = Proxy::start(server.address(), [rule]);
        let failed = run(&world, &proxy.endpoint(), &arguments);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        let text = format!("{failed:?}");
        assert!(text.contains(expected) && !text.contains(SECRET_KEY), "{text}");
        assert_eq!(content(&world, &server), "a");
    }
    run(&world, &server.endpoint(), &arguments).ok();
    assert_eq!(content(&world, &server), "b");
}
