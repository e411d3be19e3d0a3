//! A QEMU machine whose GRUB runs grub.cfg once for each state and reports on the serial port.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use protocol::boot_order::{Attempt, Load, Outcome, Platform, Reason};
use protocol::esp::Slot;

use crate::disk::{Partitions, tool, with_files};
use crate::table::State;

const GRUB_CFG: &str = include_str!("../../variants/boot/grub.cfg");
const GRUB_MODULES: &str = "/usr/lib/grub/i386-pc";
/// The modules of this GRUB. It lacks linux, sleep and reboot, because [`FUNCTIONS`] replaces their
/// commands: GRUB calls a function only if there is no command of that name. It lacks probe and true, because
/// the signed GRUBs of some distributions do.
const MODULES: [&str; 11] = [
    "biosdisk",
    "part_gpt",
    "fat",
    "normal",
    "configfile",
    "loadenv",
    "test",
    "echo",
    "serial",
    "terminfo",
    "halt",
];
/// The size of the boot disk. SeaBIOS does not boot from a disk of less than a cylinder.
const BOOT_DISK: usize = 4 << 20;
/// GRUB becomes slower with each script that it has run, so a machine runs only a few.
const STATES_PER_MACHINE: usize = 20;
/// The timeout of a machine, which takes about two seconds.
const TIMEOUT: Duration = Duration::from_secs(100);

/// Stand-ins for commands that would end the run. After the outcome of a state (`finished`), they all fail
/// and `$env` names no file, so that grub.cfg runs to its end without another write.
const FUNCTIONS: &str = r#"
function linux {
  if [ -n "$finished" ]; then
    return 1
  fi
  echo "TEST linux $1 $2 $3 $4"
  echo "TEST esp $esp"
  if [ "$2" = etchaos.slot=a ]; then
    set load="$load_a"
  else
    set load="$load_b"
  fi
  if [ "$load" = KernelFails ]; then
    return 1
  fi
}
function initrd {
  if [ -n "$finished" -o "$load" = InitrdFails ]; then
    return 1
  fi
  echo "TEST boots $1"
  set finished=1
  set env=/none
}
function reboot {
  if [ -z "$finished" ]; then
    echo "TEST reboots"
    set finished=1
    set env=/none
  fi
}
function sleep {
  if [ -n "$finished" ]; then
    return 1
  fi
}
serial --unit=0 --speed=115200
terminfo -g 200x50 serial dumb
terminal_output serial
"#;

/// The observed behavior of GRUB in one state.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub attempts: Vec<Attempt>,
    pub outcome: Option<Outcome>,
    /// The environment block afterwards; `None` if there is none.
    pub grubenv: Option<Vec<u8>>,
    /// For each attempt to load a kernel, the tag of the disk on its command line.
    pub tags: Vec<Option<String>>,
    /// The lines of the console.
    pub transcript: Vec<String>,
}

/// Returns the programs and files that the test needs and this host does not have.
pub(crate) fn missing_programs() -> Vec<String> {
    let programs = ["grub-mkimage", "qemu-system-x86_64", "mkfs.vfat", "mmd", "mcopy", "mdel"]
        .map(String::from);
    let is_missing = |program: &String| Command::new(program).arg("--version").output().is_err();
    let mut missing: Vec<String> = programs.into_iter().filter(is_missing).collect();
    let module = format!("{GRUB_MODULES}/boot.img");
    if !Path::new(&module).exists() {
        missing.push(module);
    }
    missing
}

/// Runs grub.cfg in each of these states, and returns the runs in the same order.
pub(crate) fn run(states: &[State]) -> Vec<Run> {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path();
    let boot = boot_disk(directory);
    let mut partitions = Partitions::new(directory);
    let machines: Vec<Machine<'_>> = states
        .chunk_by(|one, next| one.is_read_only == next.is_read_only)
        .flat_map(|group| group.chunks(STATES_PER_MACHINE))
        .enumerate()
        .map(|(number, states)| {
            let directory = directory.join(number.to_string());
            Machine::new(directory, boot.clone(), states, &mut partitions)
        })
        .collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = machines
            .chunks(machines.len().div_ceil(threads))
            .map(|machines| {
                let partitions = &partitions;
                scope.spawn(move || {
                    machines.iter().flat_map(|machine| machine.run(partitions)).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// A machine for some of the states. The disk is either writable or read-only in all of them.
struct Machine<'a> {
    directory: PathBuf,
    boot: PathBuf,
    states: &'a [State],
}

impl<'a> Machine<'a> {
    /// Writes the disks of the machine.
    fn new(
        directory: PathBuf,
        boot: PathBuf,
        states: &'a [State],
        partitions: &mut Partitions<'_>,
    ) -> Self {
        fs::create_dir(&directory).unwrap();
        let script = script(states);
        let files = [("run.cfg", script.as_bytes()), ("grub.cfg", GRUB_CFG.as_bytes())];
        fs::write(directory.join("scripts"), with_files(&directory, &files)).unwrap();
        fs::write(directory.join("states"), partitions.disk(states)).unwrap();
        Self { directory, boot, states }
    }

    /// Runs the machine.
    fn run(&self, partitions: &Partitions<'_>) -> Vec<Run> {
        let states_disk = self.directory.join("states");
        let is_read_only = self.states[0].is_read_only;
        let console = emulate(
            &self.directory.join("console"),
            [
                (&self.boot, true),
                (&self.directory.join("scripts"), true),
                (&states_disk, is_read_only),
            ],
        );
        let mut runs = read_console(&console, self.states.len());
        let disk = fs::read(states_disk).unwrap();
        for (index, (run, state)) in runs.iter_mut().zip(self.states).enumerate() {
            run.grubenv = state.grubenv.is_some().then(|| partitions.grubenv(&disk, index));
        }
        runs
    }
}

/// Returns the script that runs grub.cfg for all states. GRUB numbers the disks in their order in the
/// machine: hd0 is the boot disk, hd1 has the scripts, and hd2 has the states.
fn script(states: &[State]) -> String {
    let mut script = FUNCTIONS.to_owned();
    for (index, state) in states.iter().enumerate() {
        let [a, b]: [&Load; 2] = Slot::ALL.map(|slot| state.slot(slot).1);
        let platform = if state.platform == Platform::Bios { "pc" } else { "efi" };
        let partition = index + 1;
        writeln!(
            script,
            "echo \"TEST state {index}\"\nset root=hd2,gpt{partition}\n\
             set grub_platform={platform}\nset load_a={a:?}\nset load_b={b:?}\nset finished=\"\"\n\
             source (hd1,gpt1)/grub.cfg"
        )
        .unwrap();
    }
    script + "echo \"TEST end\"\nhalt\n"
}

/// Creates a disk that boots GRUB: the boot sector, followed by the core image. The boot sector reads the
/// core image from there unless an installer changes the position.
fn boot_disk(directory: &Path) -> PathBuf {
    let (config, core) = (directory.join("early.cfg"), directory.join("core.img"));
    fs::write(&config, "set root=hd1,gpt1\nnormal (hd1,gpt1)/run.cfg\n").unwrap();
    tool(
        Command::new("grub-mkimage")
            .args(["--format=i386-pc", "--directory", GRUB_MODULES, "--prefix=/none", "--config"])
            .arg(&config)
            .arg("--output")
            .arg(&core)
            .args(MODULES),
    );
    let sector = fs::read(format!("{GRUB_MODULES}/boot.img")).unwrap();
    let mut disk = [sector, fs::read(core).unwrap()].concat();
    disk.resize(BOOT_DISK, 0);
    let path = directory.join("hd0.img");
    fs::write(&path, disk).unwrap();
    path
}

/// Runs a machine with these drives until it halts, and returns what it wrote to its serial port.
fn emulate(console: &Path, drives: [(&PathBuf, bool); 3]) -> String {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-nodefaults", "-no-reboot", "-display", "none", "-serial"]);
    command.arg(format!("file:{}", console.display()));
    for (index, (path, is_read_only)) in drives.into_iter().enumerate() {
        let read_only = if is_read_only { "on" } else { "off" };
        let path = path.display();
        command.arg("-drive").arg(format!(
            "if=none,id=d{index},format=raw,cache=unsafe,readonly={read_only},file={path}"
        ));
        command.arg("-device").arg(format!("virtio-blk-pci,drive=d{index},bootindex={index}"));
    }
    let mut machine = command.stdin(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        match machine.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > TIMEOUT => break None,
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    if status.is_none() {
        machine.kill().unwrap();
        machine.wait().unwrap();
    }
    let console = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
    let tail =
        console[console.floor_char_boundary(console.len().saturating_sub(1000))..].to_owned();
    assert!(
        status.is_some_and(|status| status.success()) && console.contains("TEST end"),
        "GRUB did not run all states within {TIMEOUT:?}: QEMU {status:?}; console tail:\n{tail}"
    );
    console
}

/// Splits the console output into the runs of the states.
fn read_console(console: &str, states: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for line in console.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line == "TEST end" {
            break;
        }
        if let Some(index) = line.strip_prefix("TEST state ") {
            assert_eq!(index, runs.len().to_string(), "states are in order");
            runs.push(Run::default());
        } else if let Some(run) = runs.last_mut()
            && run.outcome.is_none()
        {
            run.transcript.push(line.to_owned());
            read_line(run, line);
        }
    }
    assert_eq!(runs.len(), states, "every state has its line on the console");
    runs
}

/// Interprets one line: a message of grub.cfg, or of [`FUNCTIONS`].
fn read_line(run: &mut Run, line: &str) {
    let last = |run: &Run| *run.attempts.last().expect("an attempt precedes this line");
    if let Some(rest) = line.strip_prefix("EtchaOS: booting slot ") {
        let (slot, why) = rest.split_once(" (").expect("the reason is in parentheses");
        let reason = match why {
            why if why.starts_with("on trial") => Reason::Trial,
            why if why.starts_with("last confirmed") => Reason::Good,
            why if why.contains("does not boot") => Reason::Fallback,
            why if why.contains("failed to boot several times") => Reason::GoodFails,
            why => panic!("unknown reason {why:?}"),
        };
        let left = why.split_once("tries left: ").map(|(_, left)| left.trim_end_matches(')'));
        let trial = left.map(|left| left.parse().expect("a number of tries"));
        let slot = slot.parse().expect("a slot");
        run.attempts.push(Attempt { slot, reason, trial, boots: None });
    } else if let Some(arguments) = line.strip_prefix("TEST linux ") {
        // The kernel's command line is what counts, not the message.
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let attempt = last(run);
        let slot: Slot =
            arguments[1].strip_prefix("etchaos.slot=").unwrap().parse().expect("a slot");
        assert_eq!(arguments[0], format!("/{}/vmlinuz", slot.directory()));
        let trial = arguments[2].strip_prefix("etchaos.trial=").map(|left| left.parse().unwrap());
        let mut values = arguments.iter().map(|argument| argument.strip_prefix("etchaos.disk="));
        run.tags.push(values.find_map(|value| value.map(str::to_owned)));
        let boots = arguments[2].strip_prefix("etchaos.boots=").map(|boots| boots.parse().unwrap());
        *run.attempts.last_mut().unwrap() = Attempt { slot, trial, boots, ..attempt };
    } else if let Some(esp) = line.strip_prefix("TEST esp ") {
        assert_eq!(esp, "@ESP_UUID@", "the number that the builder writes is used without probe");
    } else if let Some(initrd) = line.strip_prefix("TEST boots ") {
        let attempt = last(run);
        assert_eq!(initrd, format!("/{}/initrd", attempt.slot.directory()));
        run.outcome = Some(Outcome::Boots(attempt));
    } else if line == "TEST reboots" {
        let says = |text: &str| run.transcript.iter().any(|line| line.contains(text));
        run.outcome = Some(if says("EtchaOS: nothing boots") {
            Outcome::NothingBoots
        } else {
            assert!(says("EtchaOS: cannot load the initrd of slot"), "{:?}", run.transcript);
            Outcome::Reboots(last(run))
        });
    }
}
