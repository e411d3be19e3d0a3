//! Runs the real grub.cfg in a real GRUB over a table of states, and compares what GRUB does with the
//! model in [`protocol::boot_order`].
//!
//! QEMU machines with BIOS run dozens of states each: a state is a FAT partition with its own environment
//! block and slots. `load_env`, `save_env`, `test` and the script language are GRUB's. Four commands are
//! missing in this GRUB, and functions replace them: `linux` and `initrd` fail where the state says
//! so, `reboot` and a successful `initrd` end a run, and `sleep` does not sleep. `probe` and `true` are
//! missing too, as in the signed GRUBs of some distributions.

mod disk;
#[path = "../judge/mod.rs"]
mod judge;
mod machine;
mod table;

use protocol::Role;
use protocol::boot_order::{Attempt, Outcome, Save, SlotFiles};
use protocol::esp::{CONFIRMED, MANIFEST, STARTED, Slot, slot_file};
use protocol::grubenv::{BOOTS, Block, SIZE, TRIES_LEFT};

use judge::skip;
use machine::Run;
use table::State;

/// The maximum number of mismatches that a failure shows.
const MISMATCHES_SHOWN: usize = 12;

/// The behavior of GRUB or of the model in one state.
#[derive(Debug, PartialEq, Eq)]
struct Behavior {
    /// The slots that GRUB tries to boot before the outcome.
    attempts: Vec<Attempt>,
    outcome: Option<Outcome>,
    /// The environment block afterwards; `None` if there is none.
    grubenv: Option<Vec<u8>>,
}

#[test]
fn grub_boots_the_slots_that_the_model_predicts() {
    let missing = machine::missing_programs();
    if !missing.is_empty() {
        skip(&format!("GRUB cannot be run: missing {}", missing.join(", ")));
        return;
    }
    let states = table::states();
    let runs = machine::run(&states);
    assert_eq!(runs.len(), states.len());
    let mismatches: Vec<String> =
        states.iter().zip(runs).filter_map(|(state, run)| mismatch(state, run)).collect();
    let shown = mismatches.iter().take(MISMATCHES_SHOWN).cloned().collect::<Vec<_>>().join("\n");
    let (count, total) = (mismatches.len(), states.len());
    assert!(count == 0, "GRUB and the model differ in {count} of {total} states:\n{shown}");
}

/// Returns a description of the difference between a run and the model, if there is one.
fn mismatch(state: &State, run: Run) -> Option<String> {
    let expected = model(state);
    let is_tagged = |tag: &Option<String>| tag.as_deref() == state.tag;
    assert!(run.tags.iter().all(is_tagged), "{state}: tags {:?}", run.tags);
    let actual = Behavior { attempts: run.attempts, outcome: run.outcome, grubenv: run.grubenv };
    (actual != expected).then(|| {
        let transcript = run.transcript.join("\n    | ");
        let [actual, expected] = [&actual, &expected].map(describe);
        format!("{state}\n  GRUB:  {actual}\n  model: {expected}\n  console:\n    | {transcript}")
    })
}

/// Returns the behavior of the model in a state.
fn model(state: &State) -> Behavior {
    let files = |slot| *state.slot(slot).0;
    let decision = state.environment.decide(files, state.save);
    let outcome = decision.outcome(state.platform, files, |slot| *state.slot(slot).1);
    let is_last = |attempt: &Attempt| match outcome {
        Outcome::Boots(last) | Outcome::Reboots(last) => *attempt == last,
        Outcome::NothingBoots => false,
    };
    let mut attempts = decision.attempts.clone();
    if let Some(last) = attempts.iter().position(is_last) {
        attempts.truncate(last + 1);
    }
    // The count shows on the kernel's command line only.
    for attempt in &mut attempts {
        let SlotFiles { kernel, initrd, .. } = files(attempt.slot);
        attempt.boots = attempt.boots.filter(|_| kernel && initrd);
    }
    let mut grubenv = state.grubenv.clone();
    if state.save != Save::Failed {
        let saves = [(TRIES_LEFT, decision.saves), (BOOTS, decision.saves_boots(outcome))];
        for (name, value) in saves {
            grubenv = grubenv.map(|block| value.map_or(block.clone(), |v| save(&block, name, v)));
        }
    }
    Behavior { attempts, outcome: Some(outcome), grubenv }
}

/// Returns the block after `save_env`, which replaces the first value of the variable or appends a line
/// (`grub_envblk_set` in grub-core/lib/envblk.c).
fn save(block: &[u8], name: &str, value: u8) -> Vec<u8> {
    let text = str::from_utf8(block).unwrap().trim_end_matches('#');
    let line = format!("{name}={value}");
    let text = match text.find(&format!("\n{name}=")) {
        Some(before) => {
            let at = before + 1;
            let end = at + text[at..].find('\n').unwrap();
            format!("{}{line}{}", &text[..at], &text[end..])
        }
        None => format!("{text}{line}\n"),
    };
    let mut block = text.into_bytes();
    block.resize(SIZE, b'#');
    block
}

fn describe(behavior: &Behavior) -> String {
    let attempts: Vec<String> = behavior
        .attempts
        .iter()
        .map(|Attempt { slot, reason, trial, boots }| {
            let trial = trial.map_or(String::new(), |left| format!(", etchaos.trial={left}"));
            let boots = boots.map_or(String::new(), |boots| format!(", etchaos.boots={boots}"));
            format!("{slot} ({reason}{trial}{boots})")
        })
        .collect();
    let outcome = match behavior.outcome {
        Some(Outcome::Boots(attempt)) => format!("boots slot {}", attempt.slot),
        Some(Outcome::Reboots(attempt)) => {
            format!("reboots because of the initrd of slot {}", attempt.slot)
        }
        Some(Outcome::NothingBoots) => "nothing boots".to_owned(),
        None => "no outcome".to_owned(),
    };
    let grubenv = match &behavior.grubenv {
        None => "no file".to_owned(),
        Some(bytes) => match Block::parse(bytes) {
            Ok(block) => {
                let value = |name| format!("{name}={:?}", block.get(name));
                [TRIES_LEFT, BOOTS].map(value).join(", ")
            }
            Err(error) => error.to_string(),
        },
    };
    format!("attempts {}; {outcome}; grubenv: {grubenv}", attempts.join(", "))
}

/// Returns the files of a slot, and for each whether it exists in this state.
fn slot_files(files: SlotFiles) -> [(&'static str, bool); 5] {
    [
        (MANIFEST, files.manifest),
        (CONFIRMED, files.mark),
        (STARTED, files.started),
        (slot_file(Role::Kernel).unwrap(), files.kernel),
        (slot_file(Role::Initrd).unwrap(), files.initrd),
    ]
}

/// Returns the path on the ESP of a file in a slot.
fn path(slot: Slot, name: &str) -> String {
    format!("{}/{name}", slot.directory())
}
