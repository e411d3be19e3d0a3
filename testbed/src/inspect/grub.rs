//! A reader of GRUB's environment block that follows GRUB's own (`grub-core/lib/envblk.c`).
//!
//! It shares no code with the updater's codec, [`protocol::grubenv::Block`], so that it can reveal a fault of
//! the codec. [`protocol::boot_order`] describes how grub.cfg uses the variables.

use protocol::boot_order::Environment;
use protocol::grubenv::{BOOTS, GOOD, TRIAL, TRIES_LEFT};

/// The first line. GRUB rejects a file without it.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// Reads a file as leniently as `load_env` does. A file without GRUB's first line has no variables, and of
/// two values of a variable the last one counts.
pub(crate) fn read_environment(file: &[u8]) -> Environment {
    let mut environment = Environment::default();
    let Some(mut rest) = file.strip_prefix(SIGNATURE) else { return environment };
    while !rest.is_empty() {
        if rest[0] != b'#' {
            let Some(equals) = rest.iter().position(|byte| *byte == b'=') else { break };
            let (name, value) = (&rest[..equals], unescape(&rest[equals + 1..]));
            match str::from_utf8(name) {
                Ok(GOOD) => environment.good = value,
                Ok(TRIAL) => environment.trial = value,
                Ok(TRIES_LEFT) => environment.tries = value,
                Ok(BOOTS) => environment.boots = value,
                _ => {}
            }
            rest = &rest[equals + 1..];
        }
        rest = &rest[line_length(rest)..];
    }
    environment
}

/// Returns the value at the beginning of `text`, which extends to the end of the line. A backslash escapes
/// the next character.
fn unescape(text: &[u8]) -> String {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\n' => break,
            b'\\' => value.extend(bytes.next()),
            byte => value.push(*byte),
        }
    }
    String::from_utf8_lossy(&value).into_owned()
}

/// Returns the length of the first line, including its end. An escaped line end does not end the line.
fn line_length(text: &[u8]) -> usize {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\n' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::boot_order::{Reason, Save, SlotFiles};
    use protocol::esp::Slot;
    use protocol::grubenv::{BootState, Trial};

    fn block(lines: &str) -> Vec<u8> {
        let mut bytes = [SIGNATURE, lines.as_bytes()].concat();
        bytes.resize(1024, b'#');
        bytes
    }

    /// Returns the order in which GRUB boots the slots if both contain these files.
    fn order(environment: &Environment, files: SlotFiles) -> Vec<(Slot, Reason)> {
        let attempts = environment.decide(|_| files, Save::Stored).attempts;
        attempts.into_iter().map(|attempt| (attempt.slot, attempt.reason)).collect()
    }

    #[test]
    fn reads_the_block_of_the_updater() {
        let trial = Trial { slot: Slot::B, tries: 3, release: None, since: None };
        let state = BootState { trial: Some(trial), ..BootState::with_good(Slot::A) };
        let read = read_environment(&state.to_bytes());
        assert_eq!(read, Environment::from(&state));
        assert_eq!(read.to_string(), "good a, trial b (3 tries)");
        let none = SlotFiles::default();
        assert_eq!(
            order(&read, none),
            [(Slot::B, Reason::Trial), (Slot::A, Reason::Good), (Slot::B, Reason::Fallback)]
        );
        let confirmed = read_environment(&BootState::with_good(Slot::B).to_bytes());
        assert_eq!(order(&confirmed, none), [(Slot::B, Reason::Good), (Slot::A, Reason::Fallback)]);
        assert!(confirmed.is_confirmed(Slot::B) && !confirmed.is_confirmed(Slot::A));
    }

    #[test]
    fn boots_slot_a_without_a_trial_if_the_block_is_damaged() {
        let a = [(Slot::A, Reason::Good), (Slot::B, Reason::Fallback)];
        for file in [
            Vec::new(),
            vec![0; 1024],
            vec![b'#'; 1024],
            block(""),
            block("etchaos_good=c\n"),
            block("etchaos_good=a\netchaos_trial=b\netchaos_tries=0\n"),
            block("etchaos_good=a\netchaos_trial=b\netchaos_tries=4\n"),
            block("etchaos_good=a\netchaos_trial=x\netchaos_tries=3\n"),
            block("no equals sign"),
        ] {
            assert_eq!(order(&read_environment(&file), SlotFiles::default()), a);
        }
    }

    #[test]
    fn ignores_slots_without_a_manifest_for_the_default() {
        // `slots` are the slots with a manifest, each with whether it has the mark.
        let good_slot = |lines: &str, slots: &[(Slot, bool)]| {
            let files = |slot: Slot| SlotFiles {
                manifest: slots.iter().any(|(found, _)| *found == slot),
                mark: slots.contains(&(slot, true)),
                ..SlotFiles::default()
            };
            read_environment(&block(lines)).decide(files, Save::Stored).good
        };
        for (lines, slots, expected) in [
            ("", &[(Slot::B, false)][..], Slot::B),
            ("etchaos_good=c\n", &[(Slot::B, false)], Slot::B),
            ("", &[(Slot::A, false), (Slot::B, false)], Slot::A),
            ("", &[(Slot::A, false), (Slot::B, true)], Slot::B),
            ("", &[(Slot::A, true), (Slot::B, true)], Slot::A),
            ("", &[(Slot::A, false)], Slot::A),
            ("", &[], Slot::A),
            ("etchaos_good=a\n", &[(Slot::B, true)], Slot::A),
            ("etchaos_good=b\n", &[(Slot::A, true)], Slot::B),
        ] {
            assert_eq!(good_slot(lines, slots), expected, "{lines:?} {slots:?}");
        }
    }

    #[test]
    fn skips_escapes_and_other_variables() {
        let read = read_environment(&block("x=\\\netchaos_good=a\netchaos_good=b\n"));
        assert_eq!(read.good, "b");
        assert_eq!(read_environment(&block("x=1\\")), Environment::default());
    }
}
