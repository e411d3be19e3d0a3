//! Judges the partition table and the data partition of each state: firmware has to find a table with the same EFI
//! system partition, and a data partition that is finished has to have a file system that fsck.ext4 accepts.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::process::{Command, Stdio};

use crate::host::is_installed;
use crate::inspect::disk::Model;
use crate::inspect::gpt::partitions;

const PROGRAM: &str = "fsck.ext4";
/// The exit codes of fsck.ext4 from which on errors are left (e2fsck(8)).
const ERRORS_LEFT: i32 = 4;
/// One in this many contents of the data partition is checked.
const RATIO: u128 = 4;

/// Judges states.
pub(crate) struct DataJudge {
    /// The first sector of the EFI system partition.
    esp: u64,
    /// How many more contents of the data partition are checked.
    left: usize,
    done: usize,
    /// The contents that were visited.
    visited: HashSet<u128>,
}

impl DataJudge {
    /// Creates a judge that checks up to `checks` contents of the data partition. If fsck.ext4 is missing, logs a
    /// warning and checks none, or fails if `CI=true`.
    pub(crate) fn new(esp: u64, checks: usize) -> io::Result<Self> {
        let is_possible = is_installed(PROGRAM);
        if checks > 0 && !is_possible {
            let problem = format!("{PROGRAM} is missing: install the package e2fsprogs");
            if std::env::var("CI").as_deref() == Ok("true") {
                return Err(io::Error::other(problem));
            }
            log::warn!("the data partition is not checked: {problem}");
        }
        let left = if is_possible { checks } else { 0 };
        Ok(Self { esp, left, done: 0, visited: HashSet::new() })
    }

    /// Returns how many contents of the data partition were checked.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Judges a state. Returns what is wrong with it.
    pub(crate) fn judge(&mut self, model: &Model) -> io::Result<Result<(), String>> {
        let found = match partitions(model, model.len()) {
            Ok(found) => found,
            Err(problem) => return Ok(Err(problem)),
        };
        if found.esp.start != self.esp {
            let problem = format!("the EFI system partition begins at {}", found.esp.start);
            return Ok(Err(problem));
        }
        match found.data {
            Some(data) if self.is_selected(model, &data) => check(model, data),
            _ => Ok(Ok(())),
        }
    }

    fn is_selected(&mut self, model: &Model, data: &Range<u64>) -> bool {
        if self.left == 0 {
            return false;
        }
        let print = model.fingerprint(data.clone());
        let is_selected = self.visited.insert(print) && print.is_multiple_of(RATIO);
        self.left -= usize::from(is_selected);
        self.done += usize::from(is_selected);
        is_selected
    }
}

/// Runs fsck.ext4 on a copy of the data partition. It applies the journal, as the kernel does, and then checks
/// everything.
fn check(model: &Model, data: Range<u64>) -> io::Result<Result<(), String>> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("data.img");
    model.save(data, &image)?;
    let mut command = Command::new(PROGRAM);
    let output = command.args(["-f", "-p"]).arg(&image).stdin(Stdio::null()).output()?;
    match output.status.code() {
        Some(..ERRORS_LEFT) => Ok(Ok(())),
        _ => {
            let text =
                String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let text: Vec<&str> = text.split_whitespace().take(40).collect();
            Ok(Err(format!("the data partition is damaged: {}", text.join(" "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::disk::Contents;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const ESP: u64 = 2048;
    const DATA: u64 = 8192;
    const SIZE: u64 = 40 << 20;

    fn run(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }

    #[test]
    fn finds_damaged_file_systems_and_tables() {
        let tools = ["sgdisk", "mkfs.ext4", PROGRAM];
        if let Some(missing) = tools.iter().find(|tool| !is_installed(tool)) {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing} is missing");
            return eprintln!("SKIPPED: {missing} is missing");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        File::create_new(&path).unwrap().set_len(SIZE).unwrap();
        let disk = path.to_str().unwrap();
        let esp = format!("--new=1:{ESP}:+1M");
        let data = format!("--new=2:{DATA}:0");
        let kind = "--typecode=2:7c3d1a4e-95f2-4b0c-8d6a-e7c4a05d11d8";
        run("sgdisk", &[&esp, "--typecode=1:ef00", &data, kind, disk]);
        run("mkfs.ext4", &["-q", "-E", &format!("offset={}", DATA * 512), disk, "32M"]);
        let judge = |checks| {
            let model = Model::load(&path, Contents::default()).unwrap();
            // Only some contents are selected, so the test calls the check itself.
            let mut judge = DataJudge::new(ESP, checks).unwrap();
            judge.judge(&model).unwrap().and_then(|()| {
                let found = partitions(&model, model.len()).unwrap();
                check(&model, found.data.unwrap()).unwrap()
            })
        };
        assert_eq!(judge(10), Ok(()));
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xa5; 1 << 20], DATA * 512 + 2048).unwrap();
        assert!(judge(0).unwrap_err().contains("the data partition is damaged"));
        let model = Model::load(&path, Contents::default()).unwrap();
        let moved = DataJudge::new(ESP + 1, 0).unwrap().judge(&model).unwrap();
        assert!(moved.unwrap_err().contains("begins at 2048"));
        file.write_all_at(&[1], 600).unwrap();
        file.write_all_at(&[1], SIZE - 500).unwrap();
        assert!(judge(0).unwrap_err().contains("neither"));
    }
}
