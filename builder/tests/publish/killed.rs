//! Publishers that are killed, while hosts poll.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::random::Random;
use crate::server::Server;
use crate::updater::{self, RealHost};
use crate::world::{World, publish, target};

/// The number of polls, and of the hosts that make them.
const POLLS: usize = 200;
const HOSTS: usize = 4;
/// The minimum numbers of killed and of completed publications; a test with fewer shows nothing.
const KILLED_MIN: usize = 25;
const COMPLETED_MIN: usize = 10;
/// The time after which the test gives up.
const TIME_MAX: Duration = Duration::from_secs(120);

/// What publishers and hosts did.
#[derive(Debug, Default)]
struct Counts {
    polls: AtomicUsize,
    killed: AtomicUsize,
    completed: AtomicUsize,
    /// A thread has failed, so the others need not go on.
    is_over: AtomicBool,
}

/// Ends the test when a thread ends.
struct End<'a>(&'a Counts);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Counts {
    fn is_over(&self, start: Instant) -> bool {
        let is_over = self.is_over.load(Ordering::Relaxed);
        is_over || self.is_enough() || start.elapsed() > TIME_MAX
    }

    fn is_enough(&self) -> bool {
        self.polls.load(Ordering::Relaxed) >= POLLS
            && self.killed.load(Ordering::Relaxed) >= KILLED_MIN
            && self.completed.load(Ordering::Relaxed) >= COMPLETED_MIN
    }
}

/// Waits for a publisher, and kills it after a time. Returns whether it ended before.
fn end_after(mut child: Child, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_micros(500));
    }
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || output.status.code().is_none(), "it failed: {error}");
    output.status.success()
}

/// Publishes a new release again and again, and kills most of the publishers.
fn publish_and_kill(world: &World, options: &str, random: &mut Random, counts: &Counts) {
    let (start, _end) = (Instant::now(), End(counts));
    world.build("out", "second");
    world.publish("out", options).ok();
    let mut limit = u64::try_from(start.elapsed().as_micros()).unwrap();
    for number in 1.. {
        if counts.is_over(start) {
            return;
        }
        // A publisher continues what the one before left, or has another release.
        if random.below(3) > 0 {
            world.build("out", &format!("r{number}"));
        }
        let mut command = world.command(&publish("out", options));
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let time = Duration::from_micros(random.below(limit));
        // The limit follows the load of the machine: two of three publishers are killed.
        let (count, percent) = match end_after(child, time) {
            true => (&counts.completed, 90),
            false => (&counts.killed, 105),
        };
        limit = (limit * percent / 100).max(1000);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls once and returns the build number of the release that was downloaded.
type Poll<'a> = dyn Fn(&mut Random) -> Result<u64, String> + Send + Sync + 'a;

/// Polls until there were enough publications. Returns the build numbers that the host found. A poll
/// that takes more than `time_max` may fail, and does not count.
fn poll(
    host: &Poll<'_>,
    time_max: Duration,
    mut random: Random,
    counts: &Counts,
) -> Result<BTreeSet<u64>, String> {
    let (start, mut builds, _end) = (Instant::now(), BTreeSet::new(), End(counts));
    while !counts.is_over(start) {
        let poll = Instant::now();
        let build = match host(&mut random) {
            Err(_) if poll.elapsed() > time_max => continue,
            build => build?,
        };
        if builds.last().is_some_and(|newest| build < *newest) {
            return Err(format!("build {build} after {builds:?}"));
        }
        builds.insert(build);
        counts.polls.fetch_add(1, Ordering::Relaxed);
    }
    Ok(builds)
}

/// Returns a world with a release, and a server.
fn published(options: &str) -> (World, Server) {
    let world = World::new();
    world.build("out", "first");
    world.publish("out", options).ok();
    let server = Server::start(&world.path("cdn"));
    (world, server)
}

/// Runs publishers with these options, and hosts, until there were enough polls. Publishes a last release.
fn run(world: &World, options: &str, time_max: Duration, hosts: &[Box<Poll<'_>>]) {
    let (mut random, counts) = (Random::new(), Counts::default());
    let seen = thread::scope(|scope| {
        let counts = &counts;
        let start = |host| {
            let random = random.fork();
            scope.spawn(move || poll(host, time_max, random, counts))
        };
        let hosts: Vec<_> = hosts.iter().map(Box::as_ref).map(start).collect();
        publish_and_kill(world, options, &mut random, counts);
        let seen: Vec<BTreeSet<u64>> =
            hosts.into_iter().map(|host| host.join().unwrap().unwrap()).collect();
        seen.into_iter().flatten().collect::<BTreeSet<u64>>()
    });
    println!("{counts:?}, {} builds were seen", seen.len());
    assert!(counts.is_enough(), "{counts:?}");
    assert!(seen.len() >= COMPLETED_MIN / 2, "the hosts saw only the builds {seen:?}");
    world.build("out", "last");
    world.publish("out", options).ok();
    assert_eq!(world.content("cdn", "key"), "last");
    let rest = world.tree("cdn/.partial");
    assert!(rest.is_empty(), "{:?}", rest.keys());
}

/// Returns hosts that download slowly.
fn slow_hosts<'a>(world: &World, server: &Server) -> Vec<Box<Poll<'a>>> {
    let host = || {
        let trusted = world.key("key").public().clone().into();
        let host = Host { url: server.url.clone(), trusted, pause: 12 };
        Box::new(move |random: &mut Random| host.poll(random)) as Box<Poll<'_>>
    };
    (0..HOSTS).map(|_| host()).collect()
}

#[test]
fn no_poll_fails_while_publishers_are_killed() {
    let (world, server) = published("");
    run(&world, "", TIME_MAX, &slow_hosts(&world, &server));
}

#[test]
fn no_update_by_the_real_updater_fails_while_publishers_are_killed() {
    let ((world, server), updater) = (published(""), updater::compile());
    let (key, running) = (world.key("key"), world.live("cdn", "key").release.clone());
    let host = |_| {
        let host = RealHost::new(updater.clone(), &server.url, &key, &running);
        Box::new(move |_: &mut Random| host.update()) as Box<Poll<'_>>
    };
    run(&world, "", TIME_MAX, &(0..HOSTS).map(host).collect::<Vec<_>>());
}

/// Here, old releases are removed all the time.
#[test]
fn no_poll_fails_while_old_releases_are_removed() {
    let (options, time) = ("--keep 1 --keep-months 0 --keep-for 3s", Duration::from_secs(3));
    let (world, server) = published(options);
    run(&world, options, time - Duration::from_millis(500), &slow_hosts(&world, &server));
    thread::sleep(time);
    world.publish("out", options).ok();
    let left = world.tree("cdn/deb_amd64/history");
    assert_eq!(left.len(), 1, "{:?}", left.keys());
}

/// Nothing but the live manifest takes a build number.
#[test]
fn publishes_after_a_kill_between_history_and_manifest() {
    let world = World::new();
    world.build("out", "a");
    world.publish("out", "").ok();
    let live = fs::read(world.path("cdn").join(target().manifest_name())).unwrap();
    let build = world.live("cdn", "key").release.build;
    world.build("out", "b");
    world.publish("out", "").ok();
    // The publisher of "b" is killed before it replaces the manifest.
    fs::write(world.path("cdn").join(target().manifest_name()), live).unwrap();
    world.build("out", "c");
    world.publish("out", "").ok();
    assert_eq!(world.content("cdn", "key"), "c");
    assert!(world.live("cdn", "key").release.build > build);
}

#[test]
fn a_kill_between_manifest_and_history_loses_no_release() {
    let world = World::new();
    for content in ["a", "b"] {
        world.build("out", content);
        world.publish("out", "").ok();
    }
    let live = world.live("cdn", "key");
    let history = world.path(&format!("cdn/deb_amd64/history/{}.jwt", live.release.build));
    fs::remove_file(&history).unwrap();
    world.build("out", "c");
    world.publish("out", "").ok();
    assert!(history.exists(), "the release was live, so it belongs to the history");
    world.run("withdraw deb --arch amd64 --out out --to cdn --signing-key @key.key").ok();
    assert_eq!(world.content("cdn", "key"), "b");
}

/// A release that was never live is not the one before.
#[test]
fn withdraws_to_the_release_that_was_live_before() {
    let world = World::new();
    world.build("out", "good");
    world.publish("out", "").ok();
    let good = fs::read(world.path("cdn").join(target().manifest_name())).unwrap();
    world.build("out", "killed");
    let mut random = Random::new();
    // Publishers are killed until one has uploaded something but has not replaced the manifest.
    let live = || fs::read(world.path("cdn").join(target().manifest_name())).unwrap();
    for _ in 0..40 {
        let child =
            world.command(&publish("out", "")).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
        end_after(child.unwrap(), Duration::from_millis(random.below(60)));
        if live() != good {
            break;
        }
    }
    if live() == good {
        world.build("out", "bad");
        world.publish("out", "").ok();
    }
    world.run("withdraw deb --arch amd64 --out out --to cdn --signing-key @key.key").ok();
    assert_eq!(world.content("cdn", "key"), "good");
}
