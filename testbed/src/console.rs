//! The serial console of a VM: followed, cleaned, remembered, and watched for what cannot end well.

mod clean;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::clean::Cleaner;

pub use self::clean::Cleaned;

/// How often the file is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How many lines are remembered. The file has them all.
const LINES_MAX: usize = 400;
/// Longer lines are cut: firmware may print without ever ending a line.
const LINE_MAX: usize = 500;

/// What a console says when nothing good will come any more, and what it means.
const PROBLEMS: [(&str, &str); 8] = [
    ("Kernel panic - not syncing", "the kernel panicked"),
    ("etchaos: FAILED to", "the early init failed"),
    ("EtchaOS: nothing boots", "the boot loader found no slot that boots"),
    ("Reached target emergency.target", "systemd gave up: emergency mode"),
    ("bad shim signature", "the boot loader's or kernel's signature was refused"),
    ("Security Violation", "the firmware or shim refused a signature"),
    ("BdsDxe: No bootable option or device was found", "the firmware found nothing to boot"),
    ("grub rescue>", "the boot loader did not find its files"),
];

/// Where the bytes of a console go besides, as they come.
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

/// A console that is being followed.
pub struct Console {
    path: PathBuf,
    memory: Arc<Mutex<Memory>>,
    /// Dropping it tells the thread to end.
    stop: Option<mpsc::Sender<()>>,
    follower: Option<JoinHandle<()>>,
}

impl Console {
    /// Follows the file at `path`, which need not exist yet.
    pub fn follow(path: &Path, mut sink: Option<Sink>) -> io::Result<Self> {
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

    /// The file with everything that was said.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last lines, without blank ones.
    pub fn tail(&self, count: usize) -> Vec<String> {
        self.memory().tail(count)
    }

    /// The last line that is not blank.
    pub fn last_line(&self) -> Option<String> {
        self.tail(1).pop()
    }

    /// For how long nothing was said.
    pub fn silent_for(&self) -> Duration {
        self.memory().last_output.elapsed()
    }

    /// What was said that cannot end well, since [`Console::expect_boot`]: what it means, and the
    /// line.
    pub fn problem(&self) -> Option<String> {
        self.memory().problem.clone()
    }

    /// From here on, another boot speaks.
    pub fn expect_boot(&self) {
        let mut memory = self.memory();
        memory.problem = None;
        memory.last_output = Instant::now();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(follower) = self.follower.take() {
            // A panic there has been printed; there is nobody left to tell.
            let _ = follower.join();
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads what is new.
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
}

impl Memory {
    fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            line: Vec::new(),
            cleaner: Cleaner::default(),
            last_output: Instant::now(),
            problem: None,
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
        // A prompt never ends its line.
        self.find_problem();
    }

    fn end_line(&mut self) {
        self.find_problem();
        let line = text(&self.line);
        self.line.clear();
        if !line.is_empty() {
            // One frame of an animation is enough, or it would drive out what matters.
            if is_animation(&line) && self.lines.back().is_some_and(|last| is_animation(last)) {
                self.lines.pop_back();
            }
            self.lines.push_back(line);
        }
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    fn find_problem(&mut self) {
        if self.problem.is_none() {
            let line = text(&self.line);
            let found = PROBLEMS.iter().find(|(said, _)| line.contains(said));
            self.problem = found.map(|(_, meaning)| format!("{meaning}: {line:?}"));
        }
    }

    fn tail(&self, count: usize) -> Vec<String> {
        let unfinished = Some(text(&self.line)).filter(|line| !line.is_empty());
        let lines: Vec<String> = self.lines.iter().cloned().chain(unfinished).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

/// systemd's `[ ***  ] Job docker.service/start running`, several times a second.
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
    fn escape_sequences_are_no_text() {
        let said =
            b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: starting\r\n\r\n\x1b[0;32m  OK  \x1b[0m unit\n> ";
        assert_eq!(memory(said).tail(9), ["BdsDxe: starting", "  OK   unit", ">"]);
    }

    #[test]
    fn sequences_and_characters_may_be_cut_between_two_reads() {
        let mut memory = memory("a\x1b[3".as_bytes());
        memory.add("1mü".as_bytes().split_last().unwrap().1);
        memory.add(&["ü".as_bytes()[1]]);
        assert_eq!(memory.tail(1), ["aü"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = memory(&vec![b'x'; 10 * LINE_MAX]);
        assert_eq!(memory.tail(1)[0].len(), LINE_MAX);
        for _ in 0..2 * LINES_MAX {
            memory.add(b"line\n");
        }
        assert_eq!(memory.tail(usize::MAX).len(), LINES_MAX);
        assert_eq!(memory.tail(3).len(), 3);
    }

    #[test]
    fn an_animation_is_one_line() {
        let said =
            b"[  OK  ] a\n[***   ] Job x (1s)\n[ ***  ] Job x (2s)\n[  OK  ] b\n[*     ] y\n";
        assert_eq!(
            memory(said).tail(9),
            ["[  OK  ] a", "[ ***  ] Job x (2s)", "[  OK  ] b", "[*     ] y"]
        );
    }

    #[test]
    fn explains_problems_on_the_console() {
        for (said, meaning) in PROBLEMS {
            let problem = memory(format!("[ 1.0] {said} x").as_bytes()).problem.unwrap();
            assert!(problem.starts_with(meaning) && problem.contains(said), "{problem}");
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
    fn a_file_is_followed_from_before_it_exists_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (send, received) = mpsc::channel();
        let sink: Sink = Box::new(move |bytes| send.send(bytes.to_vec()).unwrap());
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
