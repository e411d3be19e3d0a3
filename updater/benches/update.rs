//! Compares an update with `curl | sha256sum` of the same file: elapsed time, CPU time, peak memory, and
//! their ratios. Needs curl; run it with `cargo bench -p updater --bench update`.
//!
//! The updater does more work: it also writes the file, syncs it, reads it back and hashes it again.

#[expect(dead_code, reason = "shared with the tests")]
#[path = "../tests/it/server.rs"]
mod server;
#[expect(dead_code, reason = "shared with the tests")]
#[path = "../tests/it/world.rs"]
mod world;

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use protocol::{Artifact, Role};

use self::server::Reply;
use self::world::{World, peak_memory, release, sha256};

const SIZE: usize = 256 << 20;
const RUNS: usize = 5;

#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    cpu: f64,
    peak_kib: u64,
}

fn main() {
    let mut costs = [Vec::new(), Vec::new()];
    // The programs alternate, so that a change in the machine's speed affects both.
    for _ in 0..RUNS {
        let world = world_with_large_release();
        costs[0].push(measure(|| curl_and_sha256sum(&world)));
        costs[1].push(measure(|| {
            let mut child = world.command(&["update"]).stdout(Stdio::null()).spawn().unwrap();
            let peak = peak_memory(&mut child);
            assert!(child.wait().unwrap().success());
            peak
        }));
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert_eq!(status["slots"]["b"]["state"], "complete", "{status}");
    }
    println!("{} MiB over loopback, medians of {RUNS} runs", SIZE >> 20);
    println!("{:<18} {:>8} {:>12} {:>10}", "", "seconds", "CPU s", "peak KiB");
    let [curl, updater] = costs.map(median);
    for (name, cost) in [("curl | sha256sum", curl), ("updater update", updater)] {
        let Cost { seconds, cpu, peak_kib } = cost;
        println!("{name:<18} {seconds:>8.2} {cpu:>12.2} {peak_kib:>10}");
    }
    println!(
        "{:<18} {:>8.2} {:>12.2} {:>10.2}",
        "ratio",
        updater.seconds / curl.seconds,
        updater.cpu / curl.cpu,
        updater.peak_kib as f64 / curl.peak_kib as f64
    );
}

/// Creates a host and a CDN with a large release.
fn world_with_large_release() -> World {
    let world = World::new();
    let large = vec![7; SIZE];
    let mut release = release(2);
    let artifact = Artifact {
        role: Role::Initrd,
        name: "2.initrd".into(),
        url: "large".into(),
        size: SIZE as u64,
        sha256: sha256(&large),
        deltas: Vec::new(),
    };
    release.artifacts.retain(|artifact| artifact.role != Role::Initrd);
    release.artifacts.push(artifact);
    world.publish(2);
    world.publish_manifest(&release);
    world.cdn.put("/large", Reply::ok(large));
    world
}

/// Runs `curl | sha256sum`. Returns the peak memory of curl, which uses more than sha256sum.
fn curl_and_sha256sum(world: &World) -> u64 {
    let url = format!("{}/large", world.cdn.url);
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--noproxy", "*", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut sum = Command::new("sha256sum")
        .stdin(curl.stdout.take().unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let peak = peak_memory(&mut curl);
    assert!(curl.wait().unwrap().success() && sum.wait().unwrap().success());
    peak
}

fn measure(run: impl FnOnce() -> u64) -> Cost {
    let (start, before) = (Instant::now(), cpu_seconds());
    let peak_kib = run();
    Cost { seconds: start.elapsed().as_secs_f64(), cpu: cpu_seconds() - before, peak_kib }
}

/// Returns the CPU seconds of all children that have exited.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

fn median(mut costs: Vec<Cost>) -> Cost {
    let middle = costs.len() / 2;
    let mut value = |of: fn(&Cost) -> f64| {
        costs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&costs[middle])
    };
    Cost {
        seconds: value(|cost| cost.seconds),
        cpu: value(|cost| cost.cpu),
        peak_kib: value(|cost| cost.peak_kib as f64) as u64,
    }
}
