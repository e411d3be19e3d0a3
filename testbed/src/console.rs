//! The serial console of a VM. Its log file is followed, and its last lines are kept and searched for
//! fatal errors.

mod clean;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::clean::Cleaner;

pub(crate) use self::clean::ConsoleFilter;

/// Time between two reads of the file.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The number of lines that are kept in memory. The file contains all lines.
const LINES_MAX: usize = 400;
/// The length at which a line is split, because firmware may never end a line.
const LINE_MAX: usize = 500;

/// Console output that means a fatal error, and the explanation of each.
const PROBLEMS: [(&str, &str); 10] = [
    ("Kernel panic - not syncing", "the kernel panicked"),
    ("etchaos: FAILED to", "the early init failed"),
    ("EtchaOS: nothing boots", "the boot loader found no slot that boots"),
    ("Reached target emergency.target", "systemd entered emergency mode"),
    // The last boot option of the firmware for arm64 is its shell, which Secure Boot rejects and which
    // otherwise waits for input.
    ("EFI Internal Shell", "the firmware found nothing else to boot"),
    ("bad shim signature", "shim rejected the signature of the boot loader or the kernel"),
    ("Security Violation", "the firmware or shim rejected a signature"),
    ("BdsDxe: No bootable option or device was found", "the firmware found nothing to boot"),
    ("grub rescue>", "the boot loader did not find its files"),
    // Printed by UEFI firmware for arm64.
    ("Synchronous Exception at 0x", "the firmware or the boot loader crashed"),
];

/// Output of a firmware that starts a boot loader: UEFI, and SeaBIOS.
const BOOT_LOADER_STARTS: [&str; 2] = ["BdsDxe: starting ", "Booting from 0000:7c00"];

/// A callback that receives the bytes of a console as they arrive.
pub(crate) type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// A console whose log file is followed by a thread.
pub(crate) struct Console {
    path: PathBuf,
    memory: Arc<Mutex<Memory>>,
    /// Ends the thread when dropped.
    stop: Option<mpsc::Sender<()>>,
    follower: Option<JoinHandle<()>>,
}

impl Console {
    /// Follows the file at `path`, which may not exist yet, and passes its bytes to `sink`.
    pub(crate) fn follow(path: &Path, mut sink: Option<Sink>) -> io::Result<Self> {
        let memory = Arc::new(Mutex::new(Memory::new()));
        let (stop, stopped) = mpsc::channel::<()>();
        let (file, shared) = (path.to_owned(), Arc::clone(&memory));
        let follower = thread::Builder::new().name("console".into()).spawn(move || {
            let mut open: Option<File> = None;
            loop {
                let ending =
                    stopped.recv_timeout(POLL_INTERVAL) != Err(mpsc::RecvTimeoutError::Timeout);
                open = open.or_else(|| File::open(&file).ok());
                if let Some(file) = &mut open {
                    drain(file, &shared, &mut sink);
                }
                if ending {
                    return;
                }
            }
        })?;
        Ok(Self { path: path.into(), memory, stop: Some(stop), follower: Some(follower) })
    }

    /// Returns the path of the log file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the last `count` lines that are not blank.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        self.memory().tail(count)
    }

    /// Returns the last line that is not blank.
    pub(crate) fn last_line(&self) -> Option<String> {
        self.tail(1).pop()
    }

    /// Returns the time since the last output.
    pub(crate) fn silent_for(&self) -> Duration {
        self.memory().last_output.elapsed()
    }

    /// Returns the first fatal error since the last [`Console::expect_boot`]: an explanation and the
    /// line.
    pub(crate) fn problem(&self) -> Option<String> {
        self.memory().problem.clone()
    }

    /// Forgets the fatal error and restarts the measurement of silence, because another boot begins.
    pub(crate) fn expect_boot(&self) {
        let mut memory = self.memory();
        memory.problem = None;
        memory.last_output = Instant::now();
    }

    /// Returns the time of the first output that shows that the firmware starts a boot loader.
    pub(crate) fn boot_loader_start(&self) -> Option<Instant> {
        self.memory().boot_loader_start
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(follower) = self.follower.take() {
            // A panic of the thread has already been printed.
            let _ = follower.join();
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the new bytes of the file.
fn drain(file: &mut File, memory: &Mutex<Memory>, sink: &mut Option<Sink>) {
    let mut bytes = [0; 16 * 1024];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) => {
                lock(memory).add(&bytes[..count]);
                if let Some(sink) = sink {
                    sink(&bytes[..count]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return log::error!("cannot read the console: {error}"),
        }
    }
}

struct Memory {
    lines: VecDeque<String>,
    line: Vec<u8>,
    cleaner: Cleaner,
    last_output: Instant,
    problem: Option<String>,
    boot_loader_start: Option<Instant>,
}

impl Memory {
    fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            line: Vec::new(),
            cleaner: Cleaner::default(),
            last_output: Instant::now(),
            problem: None,
            boot_loader_start: None,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.last_output = Instant::now();
        for byte in bytes {
            match self.cleaner.clean(*byte) {
                Some(b'\n') => self.end_line(),
                Some(byte) => {
                    self.line.push(byte);
                    if self.line.len() >= LINE_MAX {
                        self.end_line();
                    }
                }
                None => {}
            }
        }
        // A prompt is not followed by a line end.
        self.search_line();
    }

    fn end_line(&mut self) {
        self.search_line();
        let line = text(&self.line);
        self.line.clear();
        if !line.is_empty() {
            // Keep one frame of an animation only. Otherwise the frames push out all other lines.
            if is_animation(&line) && self.lines.back().is_some_and(|last| is_animation(last)) {
                self.lines.pop_back();
            }
            self.lines.push_back(line);
        }
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    /// Searches the current line for fatal errors and for the start of a boot loader.
    fn search_line(&mut self) {
        let line = text(&self.line);
        if self.problem.is_none() {
            let found = PROBLEMS.iter().find(|(output, _)| line.contains(output));
            self.problem = found.map(|(_, explanation)| format!("{explanation}: {line:?}"));
        }
        if self.boot_loader_start.is_none()
            && BOOT_LOADER_STARTS.iter().any(|output| line.contains(output))
        {
            self.boot_loader_start = Some(self.last_output);
        }
    }

    fn tail(&self, count: usize) -> Vec<String> {
        let unfinished = Some(text(&self.line)).filter(|line| !line.is_empty());
        let lines: Vec<String> = self.lines.iter().cloned().chain(unfinished).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

/// Returns whether `line` is a frame of systemd's animation, such as
/// `[ ***  ] Job docker.service/start running`. systemd prints several frames per second.
fn is_animation(line: &str) -> bool {
    let frame = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    frame.is_some_and(|(stars, _)| stars.contains('*') && stars.trim_matches([' ', '*']).is_empty())
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn memory(text: &[u8]) -> Memory {
        let mut memory = Memory::new();
        memory.add(text);
        memory
    }

    #[test]
    fn removes_escape_sequences() {
        let output =
            b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: starting\r\n\r\n\x1b[0;32m  OK  \x1b[0m unit\n> ";
        assert_eq!(memory(output).tail(9), ["BdsDxe: starting", "  OK   unit", ">"]);
    }

    #[test]
    fn joins_sequences_and_characters_split_between_two_reads() {
        let mut memory = memory("a\x1b[3".as_bytes());
        memory.add("1mü".as_bytes().split_last().unwrap().1);
        memory.add(&["ü".as_bytes()[1]]);
        assert_eq!(memory.tail(1), ["aü"]);
    }

    #[test]
    fn limits_number_and_length_of_lines() {
        let mut memory = memory(&vec![b'x'; 10 * LINE_MAX]);
        assert_eq!(memory.tail(1)[0].len(), LINE_MAX);
        for _ in 0..2 * LINES_MAX {
            memory.add(b"line\n");
        }
        assert_eq!(memory.tail(usize::MAX).len(), LINES_MAX);
        assert_eq!(memory.tail(3).len(), 3);
    }

    #[test]
    fn keeps_one_line_of_an_animation() {
        let output =
            b"[  OK  ] a\n[***   ] Job x (1s)\n[ ***  ] Job x (2s)\n[  OK  ] b\n[*     ] y\n";
        assert_eq!(
            memory(output).tail(9),
            ["[  OK  ] a", "[ ***  ] Job x (2s)", "[  OK  ] b", "[*     ] y"]
        );
    }

    #[test]
    fn explains_problems_on_the_console() {
        for (output, explanation) in PROBLEMS {
            let problem = memory(format!("[ 1.0] {output} x").as_bytes()).problem.unwrap();
            assert!(problem.starts_with(explanation) && problem.contains(output), "{problem}");
        }
        let split = {
            let mut memory = memory(b"[ 1.0] Kernel pan");
            memory.add(b"ic - not syncing: VFS\n");
            memory.problem.unwrap()
        };
        assert!(split.ends_with("syncing: VFS\""), "{split}");
        assert_eq!(memory(b"reboot: panic=10 is set\n").problem, None);
    }

    #[test]
    fn notes_first_start_of_a_boot_loader() {
        let mut memory = memory(b"\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001 \"x\"\r\n");
        assert_eq!(memory.boot_loader_start, None);
        memory.add(b"BdsDxe: starting Boot0001 \"x\" from PciRoot(0x0)\r\n");
        let first = memory.boot_loader_start.unwrap();
        memory.add(b"BdsDxe: starting Boot0001 \"x\" from PciRoot(0x0)\r\n");
        assert_eq!(memory.boot_loader_start, Some(first));
        // SeaBIOS ends its last line only after the boot loader has returned.
        let mut memory = Memory::new();
        memory.add(b"Booting from Hard Disk...\nBooting from 0000:7c00");
        assert!(memory.boot_loader_start.is_some());
    }

    #[test]
    fn follows_file_from_before_creation_to_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (sender, received) = mpsc::channel();
        let sink: Sink = Box::new(move |bytes| sender.send(bytes.to_vec()).unwrap());
        let console = Console::follow(&path, Some(sink)).unwrap();
        assert_eq!(console.last_line(), None);
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntwo").unwrap();
        assert_eq!(received.recv().unwrap(), b"one\ntwo");
        assert_eq!(console.last_line().as_deref(), Some("two"));
        assert!(console.silent_for() < Duration::from_secs(60));
        file.write_all(b"\nKernel panic - not syncing").unwrap();
        received.recv().unwrap();
        assert!(console.problem().is_some());
        console.expect_boot();
        assert_eq!(console.problem(), None);
        file.write_all(b" last words").unwrap();
        drop(console);
        assert_eq!(received.recv().unwrap(), b" last words");
    }
}
