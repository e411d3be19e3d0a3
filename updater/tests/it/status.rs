//! Reports on a host: `status`, `verify`, `update --dry-run` and the metrics.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use protocol::esp::PARTIAL;
use protocol::esp::Slot::{A, B};
use serde_json::{Value, json};

use crate::server::Reply;
use crate::world::{World, content, now};

fn status(world: &World) -> Value {
    world.run(&["status", "--json"]).ended(0).json()
}

#[test]
fn status_shows_both_slots() {
    let world = World::new();
    world.fill(B, 2, 2);
    world.on_trial(A, B, 3);
    fs::remove_file(world.esp("etchaos/b/initrd")).unwrap();
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(
        status["running"],
        json!({"slot": "a", "version": "13.1", "build": 0, "kernel": "6.12.0"})
    );
    assert_eq!(status["good"], "a");
    assert_eq!(status["trial"], json!({"slot": "b", "tries": 3}));
    assert_eq!(status["slots"]["a"]["state"], "complete");
    assert_eq!(status["slots"]["b"]["state"], "damaged");
    assert_eq!(status["slots"]["b"]["problem"], "initrd is missing");
    assert_eq!(status["slots"]["b"]["build"], 2);
    assert_eq!(status["config"]["keys"][0]["value"], world.key.id());
    assert_eq!(status["updaterVersion"], env!("CARGO_PKG_VERSION"));
    let text = world.run(&["status"]).ended(0).stdout;
    assert!(text.contains("slot b      damaged   13.2  build 2  initrd is missing"), "{text}");
}

#[test]
fn status_shows_the_last_runs() {
    let world = World::new();
    let before = now();
    let shown = status(&world);
    for key in ["lastPoll", "lastError", "nextPoll", "health", "download", "verified", "failed"] {
        assert_eq!(shown[key], json!(null), "{key}");
    }
    assert_eq!(shown["confirmed"], true);

    world.run(&["check"]).ended(0);
    let poll = &status(&world)["lastPoll"];
    assert_eq!(poll["outcome"], "upToDate");
    assert_eq!((&poll["version"], &poll["build"]), (&json!("13.1"), &json!(1)));
    assert_eq!(poll["cdn"], world.cdn.url);
    assert!(poll["time"].as_u64().unwrap() >= before);

    world.publish(2);
    world.cdn.put("/2.initrd", Reply { status: 404, ..Reply::default() });
    world.run(&["update"]).failed(&["404"]);
    let shown = status(&world);
    assert_eq!(shown["lastError"]["command"], "update");
    assert!(shown["lastError"]["error"].as_str().unwrap().contains("404"), "{shown}");
    assert_eq!(shown["lastPoll"]["outcome"], "install");
    assert_eq!(shown["reboot"]["outstanding"], false);

    world.publish(2);
    world.write("esp/etchaos/config.json", json!({"reboot": "never"}).to_string());
    world.run(&["update"]).ended(0);
    let shown = status(&world);
    assert_eq!(shown["reboot"]["outstanding"], true);
    assert_eq!(shown["reboot"]["policy"], "never");
    assert!(shown["reboot"]["waiting"]["why"].as_str().unwrap().contains("never"), "{shown}");
    let text = world.run(&["status"]).ended(0).stdout;
    for part in
        ["never; outstanding, into slot b", "last poll   install, 13.2 (build 2)", "update: "]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    // The running release is on trial, and then it failed.
    world.on_trial(A, B, 2);
    world.boot(B);
    let shown = status(&world);
    assert_eq!((&shown["confirmed"], &shown["failed"]), (&json!(false), &json!(null)));
    world.boot(A);
    world.on_trial(A, B, 0);
    let shown = status(&world);
    let id = crate::world::release(2).id().to_string();
    assert_eq!(shown["failed"], json!({"release": id, "slot": "b", "version": "13.2", "build": 2}));
    assert!(
        world.run(&["status"]).stdout.contains("failed      slot b  13.2: not installed again")
    );
}

#[test]
fn status_shows_the_next_poll() {
    let world = World::new();
    let at = now() + 7200;
    let timers = json!([{"next": at * 1_000_000, "unit": "etchaos-updater.timer"}]);
    world
        .program("systemctl", &format!("#!/bin/sh\n[ \"$1\" = list-timers ] && echo '{timers}'\n"));
    assert_eq!(status(&world)["nextPoll"], at);
    assert!(world.run(&["status"]).stdout.contains("UTC (in "));
    for broken in ["echo '{'", "exit 1", "echo null", "kill $$"] {
        world.program("systemctl", &format!("#!/bin/sh\n{broken}\n"));
        assert_eq!(status(&world)["nextPoll"], json!(null), "{broken}");
    }
}

#[test]
fn status_sanitises_records() {
    let world = World::new();
    let error = json!({"time": u64::MAX, "command": "\u{1b}[2J", "error": "a\nb"});
    world.write("host/run/etchaos-updater/error.json", error.to_string());
    world.write("host/run/etchaos-updater/poll.json", "[".repeat(60_000));
    world.write("host/run/etchaos-updater/health.json", vec![0xff; 100_000]);
    let text = world.run(&["status"]).ended(0).stdout;
    assert!(!text.contains('\u{1b}') && text.contains("a b, 9999-12-31"), "{text}");
    assert_eq!(status(&world)["lastPoll"], json!(null));
}

#[test]
fn status_and_verify_work_with_a_broken_configuration() {
    let world = World::new();
    world.run(&["check"]).ended(0);
    world.fill(B, 2, 2);
    fs::remove_file(world.esp("etchaos/b/initrd")).unwrap();
    world.write("esp/etchaos/config.json", r#"{"cnd": "x"}"#);
    world.run(&["check"]).ended(10);
    let ran = world.run(&["status", "--json"]);
    let shown = ran.json();
    ran.failed(&["`cnd`", "ESP etchaos/config.json"]);
    assert!(shown["problem"].as_str().unwrap().contains("`cnd`"), "{shown}");
    assert_eq!(shown["config"]["broken"][0]["source"], "ESP etchaos/config.json");
    assert_eq!(shown["reboot"]["policy"], "idle");
    assert_eq!((&shown["good"], &shown["running"]["build"]), (&json!("a"), &json!(0)));
    assert_eq!(shown["slots"]["a"]["state"], "complete");
    assert_eq!(shown["slots"]["b"]["problem"], "initrd is missing");
    assert_eq!(shown["lastPoll"]["outcome"], "repair");
    assert_eq!(shown["lastError"]["command"], "check");
    let text = world.run(&["status"]).stdout;
    for part in ["config      the configuration from ESP", "slot a      complete  13.1"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let ran = world.run(&["verify", "--json"]);
    let shown = ran.json();
    ran.failed(&["`cnd`", "ESP etchaos/config.json"]);
    assert_eq!(
        (&shown["whole"], &shown["slots"]["a"]["state"]),
        (&json!(false), &json!("complete"))
    );
    let problems: Vec<&str> =
        shown["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let [slot, config] = problems[..] else { panic!("{problems:?}") };
    assert!(slot.contains("slot b is damaged") && config.contains("`cnd`"), "{problems:?}");
    // A key may be missing, so the result is not certain and not recorded.
    assert_eq!(world.run(&["status", "--json"]).json()["verified"], json!(null));
    world.fill(B, 2, 2);
    let text = world.run(&["verify"]).ended(1).stdout;
    assert!(text.contains("slot b  complete") && text.contains("`cnd`"), "{text}");
    assert!(!text.contains("repairs"), "{text}");

    // With broken keys the slots cannot be verified.
    world.write("host/usr/lib/etchaos/keys", "x");
    let shown = world.run(&["status", "--json"]).ended(1).json();
    assert_eq!(shown["slots"]["a"]["state"], "damaged");
    let problem = shown["problem"].as_str().unwrap();
    assert!(problem.contains("`cnd`") && problem.contains("/usr/lib/etchaos/keys"), "{shown}");
    assert_eq!(shown["lastPoll"]["outcome"], "repair");
    world.run(&["verify"]).failed(&["`cnd`"]);
}

/// A partial slot has no result of `verify`, as an empty one has none.
#[test]
fn status_shows_how_much_of_a_partial_slot_is_there() {
    let world = World::new();
    world.fill(B, 2, 2);
    fs::rename(world.esp("etchaos/b/release.jwt"), world.esp("etchaos/b").join(PARTIAL)).unwrap();
    fs::write(world.esp("etchaos/b/initrd"), "12345").unwrap();
    world.run(&["verify"]).ended(0);
    let kernel = content(protocol::Role::Kernel, 2).len();
    let total = kernel + content(protocol::Role::Initrd, 2).len();
    let text = world.run(&["status"]).ended(0).stdout;
    let verified = text.lines().find(|line| line.starts_with("verified")).unwrap();
    let expected = format!("b partial ({} of {total} bytes)", kernel + 5);
    assert!(verified.contains("a complete") && verified.contains(&expected), "{verified}");
    let slot = text.lines().find(|line| line.starts_with("slot b")).unwrap();
    assert!(
        slot.contains("partial") && slot.contains(&format!("{} of {total}", kernel + 5)),
        "{slot}"
    );
    fs::remove_dir_all(world.esp("etchaos/b")).unwrap();
    assert!(world.run(&["status"]).stdout.contains("b empty"));
}

#[test]
fn the_log_level_can_be_set() {
    let world = World::new();
    let stderr = |filter: Option<&str>, arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env_remove("RUST_LOG").envs(filter.map(|filter| ("RUST_LOG", filter)));
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let command_line = "debug: running systemctl list-timers";
    assert_eq!(stderr(None, &["status"]), "");
    assert!(stderr(None, &["status", "--verbose"]).contains(command_line));
    for filter in ["debug", "updater=debug", "hyper=off,updater=trace"] {
        assert!(stderr(Some(filter), &["status"]).contains(command_line), "{filter}");
    }
    assert_eq!(stderr(Some("error"), &["status"]), "");
    let warning = stderr(Some("loud"), &["status"]);
    assert!(warning.starts_with("warning: ") || warning.starts_with("warn: "), "{warning}");
    assert!(warning.contains("RUST_LOG=\"loud\" is ignored"), "{warning}");
}

#[test]
fn status_hides_a_killed_download() {
    let world = World::new();
    let download = |time: u64| json!({"time": time, "role": "initrd", "done": 5, "total": 9});
    let record = |time: u64| {
        world.write("host/run/etchaos-updater/download.json", download(time).to_string());
    };
    let time = now();
    record(time);
    assert_eq!(status(&world)["download"], download(time));
    assert!(world.run(&["status"]).stdout.contains("download    initrd, 5 of 9 bytes, "));
    record(time - 600);
    assert_eq!(status(&world)["download"], json!(null));
}

#[test]
fn status_works_without_root() {
    let world = World::new();
    world.run(&["check"]).ended(0);
    world.write("host/proc/cmdline", "quiet etchaos.slot=a etchaos.esp=ABCD-1234\n");
    world.write("host/sys/class/block/vda1/dev", "254:1\n");
    world.write("host/sys/class/block/vda1/size", "2048\n");
    world.write("host/dev/vda1", "a disk");
    fs::set_permissions(world.path("host/dev/vda1"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(world.path("host/run/etchaos")).unwrap();
    fs::set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
    // Other users cannot read the build directory. With fs::copy, a process that another test forks at
    // that moment would keep the copy open for writing, and running it would fail ("Text file busy").
    let mut copy = std::process::Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_updater")).arg(world.path("updater"));
    assert!(copy.status().unwrap().success());
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(world.path("updater"));
        command.arg("--host-root").arg(world.path("host")).args(arguments).current_dir("/");
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["status"]);
    for part in
        ["running     slot a  13.1", "needs root: run this with sudo", "last poll   upToDate"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown: Value = serde_json::from_str(&run(&["status", "--json"])).unwrap();
    assert_eq!(shown["slots"], json!(null));
    assert!(shown["problem"].as_str().unwrap().contains("root"), "{shown}");
}

#[test]
fn status_describes_a_host_that_was_booted_from_the_network() {
    let world = World::new();
    world.write("host/proc/cmdline", "console=tty0\n");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_updater"));
        command.arg("--host-root").arg(world.path("host")).args(arguments);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["status"]);
    assert!(text.contains(", not from a slot"), "{text}");
    assert!(text.contains("was not booted from an EtchaOS disk"), "{text}");
    let shown: Value = serde_json::from_str(&run(&["status", "--json"])).unwrap();
    for key in ["running", "confirmed", "slots", "good", "trial"] {
        assert_eq!(shown[key], json!(null), "{key}");
    }
    assert!(shown["config"]["reboot"].is_object(), "{shown}");
}

#[test]
fn verify_finds_damage_that_status_does_not() {
    let world = World::new();
    world.fill(B, 2, 2);
    let ran = world.run(&["verify"]).ended(0);
    assert!(ran.stdout.contains("slot a  complete") && ran.stdout.contains("slot b  complete"));
    assert_eq!(world.run(&["verify", "--json"]).ended(0).json()["whole"], true);

    let mut bytes = content(protocol::Role::Initrd, 2);
    bytes[100] ^= 1;
    world.write("esp/etchaos/b/initrd", bytes);
    assert_eq!(status(&world)["slots"]["b"]["state"], "complete");
    let ran = world.run(&["verify"]).ended(1);
    for part in
        ["slot b  damaged", "initrd has the SHA-256", "run \"etchaos-updater update\" to repair"]
    {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    let json = world.run(&["verify", "--json"]).ended(1).json();
    assert_eq!((&json["whole"], &json["slots"]["b"]["state"]), (&json!(false), &json!("damaged")));
    let verified = &status(&world)["verified"];
    assert_eq!((&verified["a"], &verified["b"]), (&json!(true), &json!(false)));
    // The update repairs it.
    world.run(&["update"]).ended(0);
    world.run(&["verify"]).ended(0);
}

#[test]
fn progress_is_shown_only_on_terminals() {
    let world = World::new();
    assert_eq!(world.run(&["verify"]).ended(0).stderr, "");
    // script(1) runs the program on a terminal.
    let command = world.command(&["verify"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let ran = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output();
    let Ok(output) = ran else {
        assert!(std::env::var("CI").is_err(), "script is needed for this test");
        eprintln!("SKIPPED: script is not installed");
        return;
    };
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    for part in ["\rkernel  0.", " MiB  ", "%", "\rinitrd  0.", "\r\u{1b}[K", "slot a  complete"] {
        assert!(shown.contains(part), "{part:?}: {shown:?}");
    }
}

#[test]
fn verify_requires_the_good_slot_and_grubenv() {
    let world = World::new();
    // The spare slot may be empty; the good one and grubenv may not.
    world.run(&["verify"]).ended(0);
    fs::remove_file(world.esp("etchaos/grubenv")).unwrap();
    assert!(world.run(&["verify"]).ended(1).stdout.contains("grubenv is missing"));
    fs::remove_dir_all(world.esp("etchaos/a")).unwrap();
    let ran = world.run(&["verify"]).ended(1);
    assert!(
        ran.stdout.contains("slot a has no release, but the host boots from it"),
        "{}",
        ran.stdout
    );
}

#[test]
fn dry_run_writes_nothing() {
    let world = World::new();
    world.publish(2);
    world.fill(B, 7, 0);
    // The record of this poll must not change.
    world.run(&["check"]).ended(10);
    let before = (world.tree(), crate::world::tree(&world.path("host")));
    let ran = world.run(&["update", "--dry-run"]).ended(0);
    assert!(ran.stdout.contains("dry run: ") && ran.stdout.contains("to be installed in slot b"));
    let json = world.run(&["update", "--dry-run", "--json"]).ended(0).json();
    assert_eq!((&json["step"], &json["dryRun"]), (&json!("install"), &json!(true)));
    assert_eq!(before, (world.tree(), crate::world::tree(&world.path("host"))));
    assert_eq!(world.commands(), "");
    assert!(world.cdn.requests().iter().all(|request| request.ends_with(".jwt")));
    // It does not need the lock that another process holds.
    let other = fs::File::open(world.esp("")).unwrap();
    other.lock().unwrap();
    world.run(&["update", "--dry-run"]).ended(0);
}

/// A command that found the ESP locked changed nothing. The process that holds the lock may succeed.
#[test]
fn a_locked_esp_is_not_recorded_as_last_error() {
    let world = World::new();
    let path = world.path("etchaos.prom");
    world.write("esp/etchaos/config.json", json!({"metrics": path}).to_string());
    world.publish(2);
    world.run(&["status"]).ended(0);
    let other = fs::File::open(world.esp("")).unwrap();
    other.lock().unwrap();
    for command in ["update", "rollback"] {
        world.run(&[command]).failed(&["another etchaos-updater is writing to"]);
        assert_eq!(status(&world)["lastError"], json!(null), "{command}");
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("etchaos_last_error_timestamp_seconds"), "{text}");
    // Other errors are recorded.
    other.unlock().unwrap();
    world.run(&["rollback"]).failed(&["cannot roll back"]);
    assert_eq!(status(&world)["lastError"]["command"], "rollback");
}

#[test]
fn writes_metrics_if_configured() {
    let world = World::new();
    let directory = world.path("textfiles");
    let path = directory.join("etchaos.prom");
    let config = json!({"metrics": path, "reboot": "never"}).to_string();
    world.write("esp/etchaos/config.json", config);
    let has = |sample: &str| {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
    };
    world.run(&["status"]).ended(0);
    has("etchaos_reboot_outstanding 0");
    world.publish(2);
    world.run(&["check"]).ended(10);
    has("etchaos_update_available 1");
    world.run(&["update"]).ended(0);
    has("etchaos_reboot_outstanding 1");
    has("etchaos_trial_tries_left 3");
    world.run(&["verify"]).ended(0);
    has("etchaos_slot_whole{slot=\"b\"} 1");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);

    // Metrics also show errors.
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("etchaos_last_error_timestamp_seconds"), "{text}");
    world.publish(3);
    world.cdn.remove("/3.initrd");
    world.run(&["update"]).ended(1);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\netchaos_last_error_timestamp_seconds "), "{text}");
    world.publish(3);

    // A rollback updates the metrics at once.
    has("etchaos_failed_release 0");
    world.run(&["rollback", "--no-reboot"]).ended(0);
    has("etchaos_failed_release 1");
    has("etchaos_reboot_outstanding 0");
    assert!(!fs::read_to_string(&path).unwrap().contains("etchaos_trial_tries_left"));

    // An update succeeds even if the directory cannot be created.
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "a file").unwrap();
    let ran = world.run(&["update"]).ended(0);
    assert!(ran.stderr.contains("cannot write the metrics"), "{}", ran.stderr);
}

/// Two disks with the same ESP, and a grub.cfg that does not say which of them it was read from.
#[test]
fn refuses_copies_of_the_disk_that_was_booted() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root may read disks");
        assert!(std::env::var("CI").is_err(), "root is needed for this test");
        return;
    }
    let world = World::new();
    world.write("host/proc/cmdline", "quiet etchaos.slot=a etchaos.esp=ABCD-1234\n");
    let mut sector = [0; 512];
    sector[0x43..0x47].copy_from_slice(&[0x34, 0x12, 0xcd, 0xab]);
    sector[0x52..0x57].copy_from_slice(b"FAT32");
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    for (disk, number) in [("vda1", "254:1"), ("vdb1", "254:17")] {
        world.write(&format!("host/sys/class/block/{disk}/dev"), number);
        world.write(&format!("host/sys/class/block/{disk}/size"), "2048\n");
        world.write(&format!("host/dev/{disk}"), sector);
    }
    for command in
        ["status", "verify", "check", "update", "rollback", "confirm", "config", "started"]
    {
        let mut updater = std::process::Command::new(env!("CARGO_BIN_EXE_updater"));
        updater.arg("--host-root").arg(world.path("host")).arg(command);
        let output = updater.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for part in ["one of 2 disks", "/dev/vda1", "/dev/vdb1", "nothing is written"] {
            assert!(text.contains(part), "{command}: {text}");
        }
    }
    for disk in ["vda1", "vdb1"] {
        assert_eq!(fs::read(world.path(&format!("host/dev/{disk}"))).unwrap(), sector);
    }
}
