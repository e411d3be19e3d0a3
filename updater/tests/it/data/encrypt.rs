//! A data partition that is encrypted: real LUKS on loop devices, and a TPM that is emulated.
//!
//! cryptsetup finds only a TPM of the machine, and the kernel may have no device mapper. So the partition stays
//! locked here; `testbed data` unlocks it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::machine::{Machine, is_done_in_namespace, run};

/// The first data partition of a machine.
const NUMBER: u32 = 3;
/// A recovery key.
const KEY: &str = "correct horse battery staple";
const WRONG: &str = "incorrect horse battery staple";

/// Returns whether the test is done, or cannot be done here.
fn is_done(name: &str) -> bool {
    let missing = ["cryptsetup", "systemd-cryptenroll", "swtpm", "tpm2"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    let problem = match missing {
        Some(program) => format!("{program} is not installed"),
        None if has_tpm() => "this machine has a TPM, which the test must not change".to_owned(),
        None => return is_done_in_namespace(&format!("data::encrypt::{name}")),
    };
    assert!(missing.is_none() || std::env::var("CI").is_err(), "{problem}");
    eprintln!("SKIPPED: {problem}");
    true
}

fn has_tpm() -> bool {
    fs::read_dir("/sys/class/tpmrm").is_ok_and(|mut entries| entries.next().is_some())
}

/// An emulated TPM.
struct Tpm {
    process: Child,
    socket: PathBuf,
}

impl Tpm {
    fn start(directory: &Path) -> Self {
        let (state, socket) = (directory.join("tpm"), directory.join("tpm.sock"));
        fs::create_dir(&state).unwrap();
        let control = directory.join("tpm.sock.ctrl");
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &format!("type=unixio,path={}", socket.display())])
            .args(["--ctrl", &format!("type=unixio,path={}", control.display())])
            .spawn()
            .unwrap();
        let since = Instant::now();
        while !socket.exists() || !control.exists() {
            assert!(since.elapsed() < Duration::from_secs(30), "swtpm does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, socket }
    }

    /// Runs a command on a host that has this TPM. Returns what it printed and logged.
    fn run(&self, machine: &Machine, arguments: &[&str], input: &str) -> String {
        let mut command = machine.world.command(arguments);
        command.env("SYSTEMD_TPM2_DEVICE", format!("swtpm:path={}", self.socket.display()));
        run_with_input(command, input).1
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a command with a text in standard input. Returns its exit code, and what it printed and logged.
fn run_with_input(mut command: Command, input: &str) -> (Option<i32>, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // The command may end before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), text.concat())
}

/// Runs a command that fails with these texts. It must not show the key.
#[track_caller]
fn fails(machine: &Machine, arguments: &[&str], key: &str, expected: &[&str]) {
    let (code, text) = run_with_input(machine.world.command(arguments), key);
    assert_eq!(code, Some(1), "{text}");
    expected.iter().for_each(|expected| assert!(text.contains(expected), "{text}"));
    assert!(key.trim().is_empty() || !text.contains(key.trim()), "{text}");
}

fn header(machine: &Machine) -> Value {
    let node = machine.booted.partition(NUMBER);
    let json = run("cryptsetup", &["luksDump", "--dump-json-metadata", &node]);
    serde_json::from_str(&json).unwrap()
}

fn is_unfinished(machine: &Machine) -> bool {
    machine.booted.describe(NUMBER).contains("Attribute flags: 0001000000000000")
}

/// Puts an encrypted partition with this key in the place of the data partition.
fn encrypt(machine: &Machine, key: &str) {
    machine.world.write("key", key);
    let (file, node) = (machine.world.path("key"), machine.booted.partition(NUMBER));
    let arguments = ["luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"];
    let more = ["--pbkdf-force-iterations", "1000", "--key-file", file.to_str().unwrap(), &node];
    run("cryptsetup", &[&arguments[..], &more[..]].concat());
}

#[test]
fn without_a_tpm_nothing_is_stored_in_clear() {
    if is_done("without_a_tpm_nothing_is_stored_in_clear") {
        return;
    }
    let machine = Machine::alone(json!({"encrypt": "tpm"}));
    machine.assert_refused("needs a TPM 2.0");
    assert!(is_unfinished(&machine));
    let node = machine.booted.partition(NUMBER);
    let probed = Command::new("blkid").args(["--probe", &node]).output().unwrap();
    assert!(!String::from_utf8_lossy(&probed.stdout).contains(" TYPE="), "{probed:?}");
    fails(&machine, &["data", "unlock"], KEY, &["is not encrypted, so it has no keys"]);
    // The operator changes their mind.
    machine.configure(json!({}));
    machine.start().ended(0);
    let status = machine.status();
    assert_eq!((&status["encrypted"], &status["recoveryKey"]), (&json!(false), &Value::Null));
}

#[test]
fn only_the_tpm_unlocks_a_new_partition() {
    if is_done("only_the_tpm_unlocks_a_new_partition") {
        return;
    }
    let machine = Machine::alone(json!({"encrypt": "tpm"}));
    let tpm = Tpm::start(&machine.world.path("host"));
    let log = tpm.run(&machine, &["data"], "");
    assert!(log.contains("the TPM does not unlock it"), "{log}");
    let first = header(&machine);
    let slots: Vec<&String> = first["keyslots"].as_object().unwrap().keys().collect();
    let token = &first["tokens"]["0"];
    assert_eq!(token["type"], "systemd-tpm2", "{first}");
    assert_eq!((&token["keyslots"], &token["tpm2-pcrs"]), (&json!(slots), &json!([7])));
    assert_eq!(slots.len(), 1, "the random key is not removed: {first}");
    // The partition has no file system yet, so the next boot starts again.
    assert!(is_unfinished(&machine));
    tpm.run(&machine, &["data"], "");
    assert_ne!(header(&machine)["digests"], first["digests"]);
    // Without encryption, no copy of the LUKS header remains.
    machine.configure(json!({}));
    machine.start().ended(0);
    assert_eq!(machine.booted.tag(NUMBER, "TYPE"), "ext4");
    machine.stop();
    machine.start().ended(0);
}

#[test]
fn a_partition_in_clear_stays_as_it_is_and_is_not_used() {
    if is_done("a_partition_in_clear_stays_as_it_is_and_is_not_used") {
        return;
    }
    let machine = Machine::alone(json!({}));
    machine.start().ended(0);
    machine.stop();
    let uuid = machine.booted.tag(NUMBER, "UUID");
    machine.configure(json!({"encrypt": "tpm"}));
    machine.assert_refused("is not encrypted although \"data.encrypt\" is set");
    fails(&machine, &["data", "unlock"], KEY, &["is not encrypted, so it has no keys"]);
    assert_eq!(machine.booted.tag(NUMBER, "UUID"), uuid);
}

#[test]
fn says_that_the_partition_is_locked_and_takes_only_the_right_key() {
    if is_done("says_that_the_partition_is_locked_and_takes_only_the_right_key") {
        return;
    }
    let machine = Machine::alone(json!({"encrypt": "tpm"}));
    fails(&machine, &["data", "unlock"], KEY, &["has no data partition"]);
    machine.configure(json!({}));
    machine.start().ended(0);
    machine.stop();
    encrypt(&machine, KEY);
    let digest = machine.booted.digest();
    let before = header(&machine);
    // A partition that is encrypted is never used in clear, whatever the configuration says.
    for configured in [json!({}), json!({"encrypt": "tpm"})] {
        machine.configure(configured);
        machine.assert_refused("run \"etchaos-updater data unlock\" with the recovery key");
    }
    fails(&machine, &["data", "unlock"], WRONG, &["the recovery key does not unlock"]);
    fails(&machine, &["data", "unlock"], "short", &["5 bytes, expected 20"]);
    fails(&machine, &["data", "unlock"], "", &["0 bytes, expected 20"]);
    // Only the TPM may change keys.
    fails(&machine, &["data", "recovery-key"], WRONG, &["no TPM 2.0 was found"]);
    // The right key: there is no device mapper, or there is no TPM for the next boot.
    let command = machine.world.command(&["data", "unlock"]);
    let (code, text) = run_with_input(command, &format!("{KEY}\n"));
    assert_eq!(code, Some(1), "{text}");
    let is_expected =
        text.contains("cryptsetup open --disable-external-tokens") || text.contains("needs a TPM");
    assert!(is_expected && !text.contains("does not unlock") && !text.contains(KEY), "{text}");
    assert_eq!((machine.booted.digest(), header(&machine)), (digest, before));
    close();
}

#[test]
fn the_recovery_key_lets_another_tpm_unlock_the_partition() {
    if is_done("the_recovery_key_lets_another_tpm_unlock_the_partition") {
        return;
    }
    let machine = Machine::alone(json!({}));
    machine.start().ended(0);
    machine.stop();
    encrypt(&machine, KEY);
    let mut blobs = Vec::new();
    for name in ["first", "second", "third"] {
        let directory = machine.world.path(name);
        fs::create_dir(&directory).unwrap();
        let tpm = Tpm::start(&directory);
        // Registers of all these TPMs have the same values. The wrong key changes nothing.
        let before = header(&machine);
        tpm.run(&machine, &["data", "unlock"], WRONG);
        assert_eq!(header(&machine), before);
        let text = tpm.run(&machine, &["data", "unlock"], KEY);
        assert!(!text.contains("the TPM will not unlock") && !text.contains(KEY), "{text}");
        let after = header(&machine);
        let slots = after["keyslots"].as_object().unwrap().len();
        let tokens: Vec<&Value> = after["tokens"].as_object().unwrap().values().collect();
        assert_eq!((slots, tokens.len()), (2, 1), "{after}");
        blobs.push(tokens[0]["tpm2-blob"].to_string());
        close();
    }
    blobs.dedup();
    assert_eq!(blobs.len(), 3, "an earlier TPM still unlocks the partition");
}

/// cryptsetup asks the tokens of a partition before it looks at a key. The program here stands for one with a TPM of
/// the machine, which unlocks the partition whatever the key is.
#[test]
fn a_wrong_key_changes_nothing_while_the_tpm_unlocks_the_partition() {
    if is_done("a_wrong_key_changes_nothing_while_the_tpm_unlocks_the_partition") {
        return;
    }
    let machine = Machine::alone(json!({}));
    machine.start().ended(0);
    machine.stop();
    encrypt(&machine, KEY);
    let tpm = Tpm::start(&machine.world.path("host"));
    tpm.run(&machine, &["data", "unlock"], KEY);
    let before = header(&machine);
    assert_eq!(before["tokens"].as_object().unwrap().len(), 1, "{before}");
    let program = "#!/bin/sh\ncase \"$*\" in\n*--disable-external-tokens*) ;;\nopen*) exit 0 ;;\nesac\nPATH=${PATH#*:} exec cryptsetup \"$@\"\n";
    machine.world.program("cryptsetup", program);
    let text = tpm.run(&machine, &["data", "unlock"], WRONG);
    assert!(text.contains("the recovery key does not unlock"), "{text}");
    assert_eq!(header(&machine), before);
    close();
}

fn close() {
    let _ = Command::new("cryptsetup").args(["close", "etchaos-data"]).output();
}
