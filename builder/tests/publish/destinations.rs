//! Several publishers, several destinations, and public URLs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use protocol::Role;

use crate::server::Server;
use crate::world::{Run, World, publish, target};

/// Starts a publisher of the release in `<OUT>`.
fn start(world: &World, out: &str) -> Child {
    let mut command = world.command(&publish(out, ""));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Each has files of its own, so a mix of two releases cannot pass `builder verify`.
#[test]
fn of_two_publishers_at_once_one_wins_or_both_succeed() {
    let world = World::new();
    let (mut refused, mut both) = (0, 0);
    for round in 0..12 {
        for out in ["one", "two"] {
            world.build(out, &format!("{out}-{round}"));
        }
        let children = ["one", "two"].map(|out| (out, start(&world, out)));
        let mut winners = Vec::new();
        for (out, child) in children {
            let output = child.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => winners.push(format!("{out}-{round}")),
                Some(1) if error.contains("another publisher") => {
                    assert!(error.contains("run the command again"), "{error}");
                }
                code => panic!("{out}: {code:?}: {error}"),
            }
        }
        let content = world.content("cdn", "key");
        assert!(winners.contains(&content), "{content} is live, and {winners:?} won");
        (refused, both) = (refused + 2 - winners.len(), both + winners.len() / 2);
    }
    println!("{refused} publishers were refused, and both succeeded {both} times");
    assert!(refused > 0, "the publishers never met");
}

/// Each locks one destination first. The next publication makes them the same again.
#[test]
fn mirrors_are_whole_after_publishers_in_opposite_order() {
    let world = World::new();
    for round in 0..4 {
        let start = |(out, to): (&str, &str)| {
            world.build(out, &format!("{out}-{round}"));
            let mut command = world.command(&publish(out, to));
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let orders = [("one", "--to cdn --to mirror"), ("two", "--to mirror --to cdn")];
        for mut child in orders.map(start) {
            child.wait().unwrap();
        }
        for cdn in ["cdn", "mirror"] {
            if world.path(cdn).join(target().manifest_name()).exists() {
                world.live(cdn, "key");
            }
        }
        world.publish("one", "--to cdn --to mirror").ok();
        assert_eq!(world.live("cdn", "key").release, world.live("mirror", "key").release);
    }
}

#[test]
fn web_servers_can_read_what_is_published_whatever_the_umask_is() {
    let world = World::new();
    world.build("out", "a");
    let mut command = std::process::Command::new("sh");
    let script =
        format!("umask 077; exec {} {}", env!("CARGO_BIN_EXE_builder"), publish("out", ""));
    command.args(["-c", &script]).current_dir(world.path("."));
    Run::of(command, "publish with umask 077").ok();
    for entry in walkdir::WalkDir::new(world.path("cdn")).into_iter().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let expected = if entry.file_type().is_dir() { 0o755 } else { 0o644 };
        assert_eq!(mode, expected, "{}", entry.path().display());
    }
}

#[test]
fn wrong_options_are_wrong_usage() {
    let world = World::new();
    world.build("out", "a");
    for options in ["--keep 0", "--keep x", "--keep-for -1h", "--keep-for soon", "--nosuch", "--to"]
    {
        assert_eq!(world.publish("out", options).code, Some(2), "{options}");
    }
    for arguments in
        ["verify ../x", "verify deb --arch mips", "bridge deb", "withdraw deb --build x"]
    {
        assert_eq!(world.run(arguments).code, Some(2), "{arguments}");
    }
    assert!(!world.path("cdn").exists());
    fs::create_dir(world.path("cdn")).unwrap();
    let verify = "verify nosuch --arch amd64 --from cdn --trusted-key @key.pub";
    world.run(verify).failed(&["cdn has no etchaos_nosuch_amd64.jwt"]);
}

#[test]
fn a_second_publisher_of_the_same_build_directory_is_refused() {
    let world = World::new();
    world.build("out", "a");
    let lock = fs::File::create(world.path("out/deb_amd64/lock")).unwrap();
    lock.lock().unwrap();
    world.publish("out", "").failed(&["another build uses", "--out"]);
}

#[test]
fn one_broken_destination_does_not_stop_the_others() {
    let world = World::new();
    world.build("out", "a");
    world.publish("out", "--to cdn --to mirror").ok();
    fs::write(world.path("mirror").join(target().manifest_name()), "nonsense").unwrap();
    world.build("out", "b");
    let run = world.publish("out", "--to cdn --to mirror");
    let run = run.failed(&["1 of 2 destinations failed", "mirror: ", "not a JWT"]);
    assert!(run.stdout.contains("FAILED") && run.stdout.contains("published build"), "{run:?}");
    assert_eq!(world.content("cdn", "key"), "b");
    let left = fs::read(world.path("mirror").join(target().manifest_name())).unwrap();
    assert_eq!(left, b"nonsense", "an unknown manifest is not replaced");
    // The way out: remove the damaged manifest.
    fs::remove_file(world.path("mirror").join(target().manifest_name())).unwrap();
    world.publish("out", "--to cdn --to mirror").ok();
    assert_eq!(world.live("cdn", "key").release, world.live("mirror", "key").release);
    let json = world.publish("out", "--to cdn --to mirror --json").report();
    assert_eq!(
        (json["result"].as_str(), json["destinations"].as_array().map(Vec::len)),
        (Some("unchanged"), Some(2))
    );
}

#[test]
fn fails_if_all_destinations_are_broken() {
    let world = World::new();
    world.build("out", "a");
    fs::write(world.path("file"), "x").unwrap();
    world.publish("out", "--to file/cdn").failed(&["file/cdn", "--to"]);
    world.publish("out", "--to s4://x").failed(&["s4: is not a scheme", "s3://"]);
    let two = world
        .publish("out", "--to cdn --public-url http://a.example --public-url http://b.example");
    two.failed(&["2 --public-url for 1 destinations"]);
    for url in ["http://u:secret@h.example", "ftp://h.example", "http://h.example?x", "h.example"] {
        let run = world.publish("out", &format!("--to cdn --public-url {url}"));
        assert!(!run.failed(&["not valid"]).stderr.contains("secret"));
    }
}

#[test]
fn reads_every_upload_back_from_the_public_url() {
    let world = World::new();
    let server = Server::start(&world.path("cdn"));
    let with_url = format!("--public-url {}", server.url);
    world.build("out", "a");
    world.publish("out", &with_url).ok();
    let check = format!("verify deb --arch amd64 --from {} --trusted-key @key.pub", server.url);
    assert_eq!(world.run(&check).ok().matches("whole").count(), 6);

    // The cache of the CDN keeps the manifest.
    let old = fs::read(world.path("cdn").join(target().manifest_name())).unwrap();
    server.keep_in_cache(&target().manifest_name(), old);
    world.build("out", "b");
    world.publish("out", &with_url).failed(&[&server.url, "still serves another", "cache"]);
    assert_eq!(world.content("cdn", "key"), "b", "the release is published");
    let again = world.publish("out", &with_url);
    again.failed(&[&server.url, "still serves another", "cache"]);
}

#[test]
fn publishes_nothing_that_the_public_url_does_not_serve() {
    let world = World::new();
    world.build("out", "a");
    world.publish("out", "").ok();
    let server = Server::start(&world.path("elsewhere"));
    let with_url = format!("--public-url {}", server.url);
    world.build("out", "b");
    world.publish("out", &with_url).failed(&["is missing", &server.url, "does this URL serve"]);
    assert_eq!(world.content("cdn", "key"), "a");

    // Nothing answers at the URL.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = world.publish("out", &format!("--public-url http://{closed}"));
    run.failed(&[&format!("fetching http://{closed}"), "onnection refused"]);
    assert_eq!(world.content("cdn", "key"), "a");

    // An error page in the cache, in place of a file.
    let server = Server::start(&world.path("cdn"));
    world.publish("out", &format!("--public-url {}", server.url)).ok();
    let live = world.live("cdn", "key");
    world.build("out", "c");
    let url = &live.release.artifact(Role::Kernel).unwrap().url;
    server.keep_in_cache(url, b"<html>not found</html>".to_vec());
    world.build("out", "b");
    let run = world.publish("out", &format!("--public-url {}", server.url));
    run.failed(&["has 22 bytes, expected 102400", "is its cache empty?"]);
}
