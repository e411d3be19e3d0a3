//! What GRUB makes of a grubenv: its reader of environment blocks, and the decision of
//! `builder/variants/boot/grub.cfg`, both written again from what they do. The updater's codec is not
//! used here: it may be what is wrong.

use std::fmt;

use protocol::esp::Slot;

/// The first line, without which GRUB refuses the file.
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// What grub.cfg reads; what is missing is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `etchaos_good`
    pub good: String,
    /// `etchaos_trial`
    pub trial: String,
    /// `etchaos_tries`
    pub tries: String,
}

impl Environment {
    /// Reads a file as `load_env` does: leniently. A file that is none of GRUB's has no variables.
    pub fn read(file: &[u8]) -> Self {
        let mut environment = Self::default();
        let Some(mut rest) = file.strip_prefix(SIGNATURE) else { return environment };
        while !rest.is_empty() {
            if rest[0] != b'#' {
                let Some(equals) = rest.iter().position(|byte| *byte == b'=') else { break };
                let (name, value) = (&rest[..equals], unescaped(&rest[equals + 1..]));
                match name {
                    b"etchaos_good" => environment.good = value,
                    b"etchaos_trial" => environment.trial = value,
                    b"etchaos_tries" => environment.tries = value,
                    _ => {}
                }
                rest = &rest[equals + 1..];
            }
            rest = &rest[line_length(rest)..];
        }
        environment
    }

    /// As grub.cfg goes on: where no slot is said to be good, the first one is that has a manifest and
    /// the mark `good`, or else the first one with a manifest. `has` says whether a slot has a file.
    pub fn completed(mut self, has: impl Fn(Slot, &str) -> bool) -> Self {
        if !matches!(self.good.as_str(), "a" | "b") {
            let released = || Slot::ALL.into_iter().filter(|slot| has(*slot, "release.jwt"));
            let marked = released().find(|slot| has(*slot, "good"));
            let good = marked.or(released().next());
            self.good = good.map_or(String::new(), |slot| slot.to_string());
        }
        self
    }

    /// The slots that grub.cfg tries to boot, in its order.
    pub fn order(&self) -> Vec<(Slot, Why)> {
        let good = self.good();
        let mut order = Vec::new();
        if let (Ok(trial), "1" | "2" | "3") = (self.trial.parse(), self.tries.as_str()) {
            order.push((trial, Why::Trial));
        }
        order.extend([(good, Why::Good), (good.other(), Why::Fallback)]);
        order
    }

    /// The slot that was confirmed last.
    pub fn good(&self) -> Slot {
        if self.good == "b" { Slot::B } else { Slot::A }
    }

    /// Whether this slot is good, and is not on trial.
    pub fn is_confirmed(&self, slot: Slot) -> bool {
        self.good == slot.to_string() && self.trial != slot.to_string()
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "good {}", if self.good.is_empty() { "-" } else { &self.good })?;
        match self.trial.as_str() {
            "" => Ok(()),
            trial => write!(f, ", trial {trial} ({} tries)", self.tries),
        }
    }
}

/// Why grub.cfg boots a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is on trial.
    Trial,
    /// It was confirmed last.
    Good,
    /// The good one does not boot.
    Fallback,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trial => "on trial",
            Self::Good => "last confirmed",
            Self::Fallback => "because the good one does not boot",
        })
    }
}

/// A value up to the end of its line; a backslash takes the special meaning from what follows.
fn unescaped(text: &[u8]) -> String {
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

/// The length of a line, with its end and with what is escaped in it.
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
    use protocol::grubenv::{BootState, Trial};

    fn block(lines: &str) -> Vec<u8> {
        let mut bytes = [SIGNATURE, lines.as_bytes()].concat();
        bytes.resize(1024, b'#');
        bytes
    }

    #[test]
    fn what_the_updater_writes_is_read() {
        let trial = Trial { slot: Slot::B, tries: 3, release: None, since: None };
        let state = BootState { trial: Some(trial), ..BootState::with_good(Slot::A) };
        let read = Environment::read(&state.to_bytes());
        assert_eq!(read.to_string(), "good a, trial b (3 tries)");
        assert_eq!(
            read.order(),
            [(Slot::B, Why::Trial), (Slot::A, Why::Good), (Slot::B, Why::Fallback)]
        );
        let settled = Environment::read(&BootState::with_good(Slot::B).to_bytes());
        assert_eq!(settled.order(), [(Slot::B, Why::Good), (Slot::A, Why::Fallback)]);
        assert!(settled.is_confirmed(Slot::B) && !settled.is_confirmed(Slot::A));
    }

    #[test]
    fn what_makes_no_sense_is_slot_a_and_no_trial() {
        let a = [(Slot::A, Why::Good), (Slot::B, Why::Fallback)];
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
            assert_eq!(Environment::read(&file).order(), a);
        }
    }

    #[test]
    fn a_slot_without_a_manifest_is_not_taken_for_good() {
        // A slot with a manifest, and whether it has the mark.
        let good = |lines: &str, slots: &[(Slot, bool)]| {
            let has = |slot: Slot, name: &str| match name {
                "good" => slots.contains(&(slot, true)),
                _ => slots.iter().any(|(has, _)| *has == slot),
            };
            Environment::read(&block(lines)).completed(has).good()
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
            assert_eq!(good(lines, slots), expected, "{lines:?} {slots:?}");
        }
    }

    #[test]
    fn escapes_and_foreign_variables_are_stepped_over() {
        let read = Environment::read(&block("x=\\\netchaos_good=a\netchaos_good=b\n"));
        assert_eq!(read.good(), Slot::B);
        assert_eq!(Environment::read(&block("x=1\\")).good(), Slot::A);
    }
}
