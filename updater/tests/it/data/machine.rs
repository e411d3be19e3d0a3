//! A host with real disks: loop devices in a mount namespace of the test's own.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{Ran, World};

/// Set in the namespace.
const CHILD: &str = "ETCHAOS_TEST_DATA";
/// What the tests need, in addition to the programs of every system.
const PROGRAMS: [&str; 6] =
    ["systemd-repart", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "sgdisk", "losetup"];
pub(super) const MIB: u64 = 1 << 20;
/// The size of a disk. XFS needs 300 MiB, and the host makes partitions of 512 MiB and more.
pub(super) const SIZE: u64 = 1200 * MIB;
/// The end of the ESP on a disk that was booted.
pub(super) const ESP_END: u64 = 130 * MIB;
/// The beginning of the data partition: an image has its backup table behind the ESP.
pub(super) const DATA_START: u64 = ESP_END + MIB;
const SECTOR: u64 = 512;
/// The type of the data partition, as sgdisk prints it.
const TYPE: &str = "7C3D1A4E-95F2-4B0C-8D6A-E7C4A05D11D8";

/// Runs a test as root in a mount namespace of its own, with which its mounts end. Returns whether this is the
/// parent, for which nothing is left to do. `test` is the path of the test in this program.
pub(super) fn is_done_in_namespace(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let missing = PROGRAMS.into_iter().find(|program| {
        !std::env::var("PATH")
            .unwrap_or_default()
            .split(':')
            .any(|path| Path::new(path).join(program).exists())
    });
    let problem = match missing {
        Some(program) => Some(format!("{program} is not installed")),
        None if !nix::unistd::geteuid().is_root() => Some("root is needed".to_owned()),
        None => None,
    };
    if let Some(problem) = problem {
        assert!(std::env::var("CI").is_err(), "this test needs loop devices: {problem}");
        eprintln!("SKIPPED: {problem}");
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--kill-child", "--fork"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
    let Output { status, stdout, stderr } = command.output().expect("unshare can be run");
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success() && text.contains("1 passed"), "{text}");
    // It may say that a part was skipped.
    print!("{text}");
    true
}

/// Runs a program and returns its output.
#[track_caller]
pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program} {arguments:?}: {text}");
    text.into_owned()
}

/// A loop device with a sparse file.
pub(super) struct Disk {
    pub(super) file: PathBuf,
    pub(super) node: String,
}

impl Disk {
    fn attach(file: PathBuf) -> Self {
        // Other tests look for a free device at the same time.
        let since = Instant::now();
        loop {
            let mut command = Command::new("losetup");
            let command = command.args(["--find", "--show", "--partscan"]).arg(&file);
            let Output { status, stdout, stderr } = command.output().unwrap();
            if status.success() {
                let node = String::from_utf8(stdout).unwrap().trim().to_owned();
                return Self { file, node };
            }
            let error = String::from_utf8_lossy(&stderr);
            assert!(since.elapsed() < Duration::from_secs(30), "losetup: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the name of the device, such as `loop0`.
    fn name(&self) -> &str {
        self.node.trim_start_matches("/dev/")
    }

    /// Returns the node of a partition.
    pub(super) fn partition(&self, number: u32) -> String {
        format!("{}p{number}", self.node)
    }

    /// Returns what sgdisk prints about a partition.
    pub(super) fn describe(&self, number: u32) -> String {
        run("sgdisk", &[&format!("--info={number}"), self.file.to_str().unwrap()])
    }

    /// Asserts that both copies of the table are valid, and that this partition is a finished data partition.
    #[track_caller]
    pub(super) fn assert_data_partition(&self, number: u32) {
        let verdict = run("sgdisk", &["--verify", self.file.to_str().unwrap()]);
        assert!(verdict.contains("No problems found"), "{verdict}");
        let text = self.describe(number);
        assert!(text.contains(TYPE) && text.contains("'etchaos-data'"), "{text}");
        assert!(text.contains("Attribute flags: 0000000000000000"), "{text}");
    }

    /// Returns the type or the UUID of a file system.
    pub(super) fn tag(&self, number: u32, tag: &str) -> String {
        let node = self.partition(number);
        run("blkid", &["--probe", "--output", "value", "--match-tag", tag, &node]).trim().to_owned()
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.node).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        file.sync_all().unwrap();
    }

    /// Returns the digest of the first and the last 4 MiB.
    pub(super) fn digest(&self) -> String {
        let file = File::open(&self.file).unwrap();
        let size = file.metadata().unwrap().len();
        let mut bytes = vec![0; 8 * MIB as usize];
        let (head, tail) = bytes.split_at_mut(4 * MIB as usize);
        file.read_exact_at(head, 0).unwrap();
        file.read_exact_at(tail, size - 4 * MIB).unwrap();
        crate::world::sha256(&bytes)
    }

    /// Makes the disk larger.
    pub(super) fn grow(&self, size: u64) {
        File::options().write(true).open(&self.file).unwrap().set_len(size).unwrap();
        run("losetup", &["--set-capacity", &self.node]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.node]).status();
    }
}

/// A host with a disk that was booted.
pub(super) struct Machine {
    pub(super) booted: Disk,
    pub(super) world: World,
    _turn: File,
}

impl Machine {
    /// Returns a host that was booted from a new disk, with this member `data` in its configuration.
    pub(super) fn new(data: Value) -> Self {
        Self::with(data, turn(false))
    }

    /// Returns the same while there is no other machine.
    pub(super) fn alone(data: Value) -> Self {
        Self::with(data, turn(true))
    }

    fn with(data: Value, turn: File) -> Self {
        let world = World::new();
        let booted = Disk::attach(installed(&world.path("booted.raw")));
        // A kernel may be built without support for GPT.
        run("partx", &["--update", &booted.node]);
        let machine = Self { booted, world, _turn: turn };
        machine.configure(data);
        for directory in ["sys", "dev"] {
            symlink(format!("/{directory}"), machine.world.path("host").join(directory)).unwrap();
        }
        machine.world.write("host/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        machine.boot();
        machine
    }

    /// Sets the member `data` of the configuration; null for none.
    pub(super) fn configure(&self, data: Value) {
        let config = if data.is_null() { json!({}) } else { json!({"data": data}) };
        self.world.write("esp/etchaos/config.json", config.to_string());
    }

    /// Records which disk was booted, as the first command of a boot does.
    pub(super) fn boot(&self) {
        self.world.write("host/proc/cmdline", "quiet etchaos.slot=a etchaos.esp=ABCD-1234\n");
        let name = self.booted.name();
        let read = |path: String| fs::read_to_string(path).unwrap().trim().to_owned();
        let record = json!({
            "name": format!("{name}p2"),
            "number": read(format!("/sys/class/block/{name}p2/dev")),
            "sequence": read(format!("/sys/class/block/{name}/diskseq")),
            "serial": null,
            "tag": null,
            "needs_tag": false,
        });
        self.world.write("host/run/etchaos/disk.json", record.to_string());
    }

    /// Changes the table of the disk that was booted with sgdisk. If sgdisk wrote to the device, a kernel that has
    /// no support for GPT would forget all partitions.
    pub(super) fn change_table(&self, arguments: &[&str]) {
        run("sgdisk", &[arguments, &[self.booted.file.to_str().unwrap()]].concat());
        run("partx", &["--update", &self.booted.node]);
        // The partitions may have got other numbers.
        self.boot();
    }

    /// Attaches another disk of this size, which is empty.
    pub(super) fn attach(&self, name: &str, size: u64) -> Disk {
        let path = self.world.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        Disk::attach(path)
    }

    /// Runs the command of the unit.
    pub(super) fn start(&self) -> Ran {
        self.world.run(&["data"])
    }

    /// Unmounts the data, as at shutdown.
    #[track_caller]
    pub(super) fn stop(&self) {
        self.world.run(&["data", "--stop"]).ended(0);
        assert!(!self.is_mounted("lib/etchaos/data") && !self.is_mounted("lib/docker"));
    }

    /// Returns a path below /var.
    pub(super) fn var(&self, path: &str) -> PathBuf {
        self.world.path("host/var").join(path)
    }

    pub(super) fn is_mounted(&self, path: &str) -> bool {
        Command::new("mountpoint").arg("-q").arg(self.var(path)).status().unwrap().success()
    }

    /// Returns the data partition in the status.
    pub(super) fn status(&self) -> Value {
        // There is no disk with this ESP, but --esp gives a directory.
        self.world.run(&["status", "--json"]).json()["data"].clone()
    }

    /// Asserts that there is no data, that Docker does not start, and that `status` says why.
    #[track_caller]
    pub(super) fn assert_refused(&self, reason: &str) {
        self.start().failed(&[reason, "Docker does not start"]);
        assert!(!self.is_mounted("lib/etchaos/data") && !self.is_mounted("lib/docker"));
        assert!(self.is_docker_stopped());
        let status = self.status();
        assert_eq!(status["mounted"], false, "{status}");
        assert!(status["problems"][0].as_str().unwrap().contains(reason), "{status}");
        let table = self.world.run(&["status"]).stdout;
        assert!(table.contains("not mounted, so Docker does not start"), "{table}");
    }

    /// Returns whether the units of Docker refuse to start.
    pub(super) fn is_docker_stopped(&self) -> bool {
        self.world.path("host/run/etchaos/data-missing").exists()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.world.run(&["data", "--stop"]);
    }
}

/// Waits until this test may use the name of the decrypted device, which is the same for all machines. A test that
/// may unlock a partition runs alone.
fn turn(alone: bool) -> File {
    let path = std::env::temp_dir().join("etchaos-test-data.lock");
    let file = File::options().create(true).append(true).open(path).unwrap();
    if alone { file.lock() } else { file.lock_shared() }.unwrap();
    file
}

/// Creates the file of a disk as the builder partitions it, on which there is space behind the image.
fn installed(path: &Path) -> PathBuf {
    File::create(path).unwrap().set_len(DATA_START).unwrap();
    let (start, end) = (2 * MIB / SECTOR, ESP_END / SECTOR - 1);
    let arguments = [
        "--new=1:2048:4095".to_owned(),
        "--typecode=1:ef02".to_owned(),
        format!("--new=2:{start}:{end}"),
        "--typecode=2:ef00".to_owned(),
    ];
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push(path.to_str().unwrap());
    run("sgdisk", &arguments);
    File::options().write(true).open(path).unwrap().set_len(SIZE).unwrap();
    path.to_owned()
}
