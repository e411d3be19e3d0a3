//! Several targets that are published by one command.

use std::fs;

use serde_json::{Value, json};

use crate::world::World;

const PUBLISH: &str = "publish deb --arch amd64,arm64 --untested --out out --to cdn";

/// Returns the targets of the summary.
fn targets(stdout: &str) -> Vec<Value> {
    let summary: Value = serde_json::from_str(stdout).unwrap();
    summary["targets"].as_array().unwrap().clone()
}

/// Publishes two targets to a directory, which admits one publisher at a time.
#[test]
fn publishes_all_targets_to_one_directory() {
    let world = World::new();
    let names = ["deb_amd64", "deb_arm64"];
    for (name, content) in names.into_iter().zip(["first", "second"]) {
        world.build_target("out", content, "key", &name.parse().unwrap());
    }
    // The public key is that of the releases, so the builder finds it without an option.
    fs::create_dir(world.path("out/keys")).unwrap();
    fs::copy(world.path("key.key"), world.path("out/keys/signing.key")).unwrap();
    let run = world.run(&format!("{PUBLISH} --jobs 2 --json"));
    let warnings = run.stderr.matches("no --signing-key was given").count();
    assert_eq!(warnings, 1, "{run:#?}");
    let targets = targets(&run.ok());
    for (target, name) in targets.iter().zip(names) {
        assert_eq!((&target["target"], &target["result"]), (&json!(name), &json!("done")));
        assert_eq!(target["output"]["release"]["result"], "published");
        assert_eq!((&target["stage"], &target["error"]), (&json!("release"), &Value::Null));
        let arch = name.strip_prefix("deb_").unwrap();
        world.run(&format!("verify deb --arch {arch} --from cdn --trusted-key @key.pub")).ok();
    }
    assert_eq!(targets.len(), 2);
}

#[test]
fn a_missing_release_fails_alone() {
    let world = World::new();
    world.build_target("out", "content", "key", &"deb_arm64".parse().unwrap());
    let run = world.run(&format!("{PUBLISH} --signing-key @key.key"));
    let run = run.failed(&["1 of 2 targets failed: deb_amd64", "\ndeb_amd64: error: reading"]);
    let row = |target: &str| -> Vec<String> {
        let mut rows = run.stdout.lines().filter(|line| line.starts_with(&format!("{target} ")));
        rows.next_back().unwrap().split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("deb_amd64"), ["deb_amd64", "-", "-", "-", "-", "FAILED"]);
    let sizes = [102_400, 409_600, 204_800].map(|size: u32| size.to_string());
    assert_eq!(row("deb_arm64")[..2], ["deb_arm64", "release"]);
    assert_eq!(row("deb_arm64")[2..5], sizes);
    assert_eq!(row("deb_arm64")[5..7], ["published,", "build"]);
    assert!(run.stdout.contains("\ndeb_amd64: reading the release in "), "{run:#?}");
    world.run("verify deb --arch arm64 --from cdn --trusted-key @key.pub").ok();
}
