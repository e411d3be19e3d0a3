//! The states that GRUB is tested with.

use std::fmt;

use protocol::boot_order::{Environment, Load, Platform, Save, SlotFiles};
use protocol::esp::Slot;
use protocol::grubenv::{BOOTS, DISK, GOOD, SIZE, TRIAL, TRIES_LEFT};

use crate::slot_files;

const SIGNATURE: &str = "# GRUB Environment Block\n";
const ALL_FILES: SlotFiles =
    SlotFiles { manifest: true, mark: true, started: true, kernel: true, initrd: true };
const PLATFORMS: [Platform; 2] = [Platform::Bios, Platform::Uefi];

/// One state of an ESP, and the results of loading its slots.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The content of grubenv; `None` without the file.
    pub grubenv: Option<Vec<u8>>,
    /// The variables that GRUB reads from it.
    pub environment: Environment,
    /// The tag of the disk.
    pub tag: Option<&'static str>,
    /// Whether the disk refuses writes.
    pub is_read_only: bool,
    /// The result of `save_env`.
    pub save: Save,
    files: [SlotFiles; 2],
    loads: [Load; 2],
    pub platform: Platform,
}

impl State {
    /// Returns a state in which both slots are complete and load. A variable that is `None` is not in
    /// grubenv.
    fn new(good: Option<&str>, trial: Option<&str>, tries: Option<&str>) -> Self {
        Self::with([(GOOD, good), (TRIAL, trial), (TRIES_LEFT, tries), (BOOTS, None)])
    }

    fn with(variables: [(&str, Option<&str>); 4]) -> Self {
        let [good, trial, tries, boots] = variables.map(|(_, value)| value);
        let lines = variables
            .map(|(name, value)| value.map_or(String::new(), |value| format!("{name}={value}\n")));
        let value = |value: Option<&str>| value.unwrap_or_default().to_owned();
        Self {
            grubenv: Some(block(&lines.concat())),
            environment: Environment {
                good: value(good),
                trial: value(trial),
                tries: value(tries),
                boots: value(boots),
            },
            tag: None,
            is_read_only: false,
            save: Save::Stored,
            files: [ALL_FILES; 2],
            loads: [Load::Works; 2],
            // Under BIOS, grub.cfg also writes to the screen. That takes most of the time of a run.
            platform: Platform::Uefi,
        }
    }

    /// Returns a state whose grubenv is missing, or contains no variable that GRUB reads. GRUB saves only to
    /// a file with the first line, and appends only after the end of a line.
    fn unreadable(grubenv: Option<&[u8]>) -> Self {
        let is_writable = |block: &[u8]| {
            let used = block.iter().rposition(|byte| *byte != b'#');
            block.starts_with(SIGNATURE.as_bytes()) && used.is_some_and(|last| block[last] == b'\n')
        };
        let save = if grubenv.is_some_and(is_writable) { Save::Stored } else { Save::Failed };
        Self { grubenv: grubenv.map(<[u8]>::to_vec), save, ..Self::new(None, None, None) }
    }

    /// Returns the files of a slot and the result of loading it.
    pub(crate) fn slot(&self, slot: Slot) -> (&SlotFiles, &Load) {
        let index = usize::from(slot == Slot::B);
        (&self.files[index], &self.loads[index])
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Environment { good, trial, tries, boots } = &self.environment;
        write!(f, "state: good {good:?}, trial {trial:?}, tries {tries:?}, boots {boots:?}")?;
        write!(f, ", save {:?}, {:?}", self.save, self.platform)?;
        for slot in Slot::ALL {
            let (files, load) = self.slot(slot);
            let names = slot_files(*files).map(|(name, exists)| if exists { name } else { "-" });
            write!(f, "; slot {slot}: {} ({load:?})", names.join(" "))?;
        }
        Ok(())
    }
}

/// Returns all states.
pub(crate) fn states() -> Vec<State> {
    let mut states = variables();
    states.extend(damaged());
    states.extend(files());
    states.extend(loads());
    states.extend(boots());
    states.extend(saves());
    states
}

/// Returns every combination of valid, missing and invalid variables.
fn variables() -> Vec<State> {
    let mut states = Vec::new();
    for good in [None, Some(""), Some("a"), Some("b"), Some("c")] {
        for trial in [None, Some(""), Some("a"), Some("b"), Some("c")] {
            for tries in [None, Some(""), Some("0"), Some("1"), Some("2"), Some("3"), Some("4")] {
                states.push(State::new(good, trial, tries));
            }
        }
    }
    for tries in ["x", "03", "1 ", "-1"] {
        states.push(State::new(Some("a"), Some("b"), Some(tries)));
    }
    states
}

/// Returns every form of a grubenv that cannot be used, with every combination of manifests and marks.
fn damaged() -> Vec<State> {
    let valid = State::new(Some("b"), Some("b"), Some("3")).grubenv.unwrap();
    let mut no_signature = valid.clone();
    no_signature[0] = b'X';
    let blocks = [
        None,
        Some(vec![0; SIZE]),
        Some(vec![b'#'; SIZE]),
        Some(no_signature),
        Some(block("")),
        Some(block("no equals sign")),
    ];
    let mut states = Vec::new();
    for grubenv in blocks {
        for files in pairs(&manifests_and_marks()) {
            states.push(State { files, ..State::unreadable(grubenv.as_deref()) });
        }
    }
    states
}

/// Returns every combination of files, with and without a good slot and a trial in grubenv.
fn files() -> Vec<State> {
    let all: Vec<SlotFiles> = (0..16)
        .map(|bits| SlotFiles {
            manifest: bits & 1 != 0,
            mark: bits & 2 != 0,
            kernel: bits & 4 != 0,
            initrd: bits & 8 != 0,
            ..ALL_FILES
        })
        .collect();
    let mut states = Vec::new();
    for files in pairs(&all) {
        for state in [State::unreadable(None), State::new(Some("a"), Some("b"), Some("1"))] {
            states.push(State { files, ..state });
        }
    }
    states
}

/// Returns every combination of failures to load a slot.
fn loads() -> Vec<State> {
    let mut states = Vec::new();
    for platform in PLATFORMS {
        for loads in pairs(&[Load::Works, Load::KernelFails, Load::InitrdFails]) {
            for (good, trial, tries) in [
                ("a", "", "0"),
                ("b", "", "0"),
                ("a", "b", "3"),
                ("a", "a", "2"),
                ("b", "a", "1"),
                ("b", "b", "0"),
            ] {
                let state = State::new(Some(good), Some(trial), Some(tries));
                states.push(State { loads, platform, ..state });
            }
        }
    }
    states
}

/// Returns every boot counter, valid or not, with a good slot that loads or does not, and slots that lack a
/// file or not.
fn boots() -> Vec<State> {
    let values = ["", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "x", "05", "-1"];
    let mut others = vec![ALL_FILES];
    others.extend([
        SlotFiles { manifest: false, ..ALL_FILES },
        SlotFiles { mark: false, ..ALL_FILES },
        SlotFiles { kernel: false, ..ALL_FILES },
        SlotFiles { initrd: false, ..ALL_FILES },
    ]);
    let mut states = Vec::new();
    for boots in [None].into_iter().chain(values.map(Some)) {
        for good in ["a", "b"] {
            let variables = [(GOOD, Some(good)), (TRIAL, None), (TRIES_LEFT, None), (BOOTS, boots)];
            for other in &others {
                let files = if good == "a" { [ALL_FILES, *other] } else { [*other, ALL_FILES] };
                states.push(State { files, ..State::with(variables) });
            }
            // Only the good slot has to have reset the boot counter.
            let not = SlotFiles { started: false, ..ALL_FILES };
            for files in [[not, ALL_FILES], [ALL_FILES, not]] {
                states.push(State { files, ..State::with(variables) });
            }
        }
        for loads in pairs(&[Load::Works, Load::KernelFails]) {
            let trial = [(TRIAL, Some("b")), (TRIES_LEFT, Some("1"))];
            let state = State::with([(GOOD, Some("a")), trial[0], trial[1], (BOOTS, boots)]);
            states.push(State { loads, ..state });
        }
    }
    // The tag of the disk precedes the other arguments.
    let mut tagged = State::new(Some("a"), None, None);
    tagged.tag = Some("0123456789abcdef");
    tagged.grubenv = Some(block(&format!("{DISK}=0123456789abcdef\n{GOOD}=a\n")));
    states.push(tagged);
    states
}

/// Returns states in which the counts of tries and boots cannot be saved, or read back different.
fn saves() -> Vec<State> {
    let mut states = Vec::new();
    let mut read_only = Vec::new();
    for good in ["a", "b"] {
        for trial in ["a", "b", "c"] {
            // After five boots without a reset of the counter, GRUB would boot the other slot.
            for (tries, boots) in
                [("0", ""), ("1", ""), ("2", ""), ("3", ""), ("0", "5"), ("1", "5")]
            {
                let state = State::with([
                    (GOOD, Some(good)),
                    (TRIAL, Some(trial)),
                    (TRIES_LEFT, Some(tries)),
                    (BOOTS, Some(boots)),
                ]);
                read_only.push(State { is_read_only: true, save: Save::Failed, ..state.clone() });
                // save_env replaces the first value, and load_env returns the last.
                let counts = format!("{TRIES_LEFT}={tries}\n{BOOTS}={boots}\n");
                let twice = format!("{GOOD}={good}\n{TRIAL}={trial}\n{counts}x=1\n{counts}");
                let grubenv = Some(block(&twice));
                states.push(State { grubenv, save: Save::ReadsBackDifferent, ..state });
            }
        }
    }
    states.extend(read_only);
    states
}

fn manifests_and_marks() -> [SlotFiles; 4] {
    [(false, false), (false, true), (true, false), (true, true)].map(|(manifest, mark)| SlotFiles {
        manifest,
        mark,
        ..ALL_FILES
    })
}

/// Returns every pair of two values.
fn pairs<T: Copy>(values: &[T]) -> Vec<[T; 2]> {
    values.iter().flat_map(|a| values.iter().map(|b| [*a, *b])).collect()
}

fn block(lines: &str) -> Vec<u8> {
    let mut bytes = format!("{SIGNATURE}{lines}").into_bytes();
    bytes.resize(SIZE, b'#');
    bytes
}
