//! Decides which of several disks with the same ESP was booted, as a pure function.
//!
//! GRUB passes the tag of its disk to the kernel. It also counts each boot in grubenv, and passes the count:
//! until the host writes grubenv, only the disk that was booted has that count.

use protocol::boot_order::{GOOD_BOOTS, OTHER_BOOTS};
use protocol::esp::{ARG_BOOTS, ARG_DISK, ARG_TRIAL, Slot, argument};
use protocol::grubenv::{BOOTS, Block, DISK, DiskTag, TRIAL, TRIES, TRIES_LEFT};

/// What GRUB says on the kernel command line about the disk that it booted from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    tag: Option<DiskTag>,
    slot: Option<Slot>,
    tries: Option<u8>,
    boots: Option<u8>,
}

impl Told {
    pub(super) fn of(cmdline: &str) -> Self {
        let number = |name| argument(cmdline, name)?.parse().ok();
        Self {
            tag: argument(cmdline, ARG_DISK).and_then(|tag| tag.parse().ok()),
            slot: Slot::from_cmdline(cmdline),
            tries: number(ARG_TRIAL).filter(|tries| *tries < TRIES),
            boots: number(ARG_BOOTS).filter(|boots| (1..=GOOD_BOOTS + OTHER_BOOTS).contains(boots)),
        }
    }

    /// Returns whether GRUB says nothing: its grub.cfg is older, or it could not save.
    pub(super) fn is_nothing(&self) -> bool {
        self.tag.is_none() && !self.has_count()
    }

    /// Returns whether this grub.cfg passes the tag of its disk.
    pub(super) fn passes_tags(&self) -> bool {
        self.tag.is_some() || self.boots.is_some()
    }

    fn has_count(&self) -> bool {
        self.tries.is_some() || self.boots.is_some()
    }

    /// Returns whether grubenv has the count that GRUB saved in this boot.
    fn is_count_of(&self, found: &Found) -> bool {
        match (self.tries, self.boots) {
            (Some(tries), _) => self.slot.is_some() && found.trial == self.slot.zip(Some(tries)),
            (None, Some(boots)) => found.boots == boots,
            (None, None) => false,
        }
    }
}

/// What the grubenv of a disk says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) tag: Option<DiskTag>,
    trial: Option<(Slot, u8)>,
    boots: u8,
}

impl Found {
    /// Reads what GRUB reads from a grubenv, also from one that is too damaged for
    /// [`GrubenvFile`](crate::grubenv_file::GrubenvFile).
    pub(super) fn of(grubenv: &[u8]) -> Self {
        let Some(block) = Block::as_grub_reads(grubenv) else { return Self::default() };
        let number = |name| block.get(name)?.parse().ok();
        let trial: Option<Slot> = block.get(TRIAL).and_then(|slot| slot.parse().ok());
        Self {
            tag: block.get(DISK).and_then(|tag| tag.parse().ok()),
            trial: trial.zip(number(TRIES_LEFT)),
            boots: number(BOOTS).unwrap_or(0),
        }
    }
}

/// Which disk was booted. Disks are given by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This one.
    Booted(usize),
    /// Probably this one: no other disk has this ESP, or the tag. But the count of the boot is not on it, so
    /// GRUB's writes to the disk are lost, or the disk that was booted has not appeared yet.
    Probably(usize),
    /// None of these. The disk that was booted may still appear.
    None,
    /// One of these, or a disk that may still appear: none has the count of the boot.
    Undecided(Vec<usize>),
    /// One of these, which cannot be told apart.
    Copies(Vec<usize>),
}

/// Returns which of the disks was booted. A disk that cannot be read, perhaps because another process writes
/// to it, is `None`.
pub(super) fn judge(told: &Told, found: &[Option<Found>]) -> Verdict {
    let all: Vec<usize> = (0..found.len()).collect();
    if told.is_nothing() {
        return match all[..] {
            [] => Verdict::None,
            [only] => Verdict::Booted(only),
            _ => Verdict::Copies(all),
        };
    }
    let those = |matches: &dyn Fn(&Found) -> bool| -> Vec<usize> {
        let is_one = |index: &usize| found[*index].as_ref().is_some_and(matches);
        all.iter().copied().filter(is_one).collect()
    };
    // A grub.cfg that counts boots also passes the tag of its disk, so a disk with another tag was not booted.
    // An older grub.cfg passes no tag, so the tag says nothing.
    let has_tag = |found: &Found| found.tag == told.tag;
    let is_any = told.tag.is_none() && told.boots.is_none() && those(&has_tag).is_empty();
    let is_same = |found: &Found| is_any || has_tag(found);
    let counted = those(&|found| is_same(found) && told.is_count_of(found));
    match counted[..] {
        [] => {}
        [only] => return Verdict::Booted(only),
        _ => return Verdict::Copies(counted),
    }
    // A copy with the tag, or without one, may appear before the disk that was booted.
    let is_possible = |index: &usize| found[*index].as_ref().is_none_or(is_same);
    let possible: Vec<usize> = all.iter().copied().filter(is_possible).collect();
    match possible[..] {
        [] => Verdict::None,
        [only] if told.tag.is_some() || found.len() == 1 => Verdict::Probably(only),
        [_] => Verdict::None,
        _ => Verdict::Undecided(possible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Option<DiskTag> = Some(DiskTag(1));
    const U: Option<DiskTag> = Some(DiskTag(2));

    /// A disk that cannot be read.
    const UNREADABLE: Option<Found> = None;

    fn found(tag: Option<DiskTag>, boots: u8) -> Option<Found> {
        Some(Found { tag, trial: None, boots })
    }

    fn told(tag: Option<DiskTag>, boots: Option<u8>) -> Told {
        Told { tag, slot: Some(Slot::A), tries: None, boots }
    }

    #[test]
    fn reads_command_line_and_grubenv() {
        let cmdline = "etchaos.slot=b etchaos.trial=2 etchaos.disk=0000000000000001 etchaos.esp=x";
        let told = Told::of(cmdline);
        assert_eq!(told, Told { tag: T, slot: Some(Slot::B), tries: Some(2), boots: None });
        assert!(Told::of("etchaos.slot=a etchaos.disk= etchaos.boots=x").is_nothing());
        let grubenv = "etchaos_disk=0000000000000001\netchaos_trial=b\netchaos_tries=2\n";
        let of_block = Found::of(format!("# GRUB Environment Block\n{grubenv}").as_bytes());
        assert_eq!(of_block, Found { tag: T, trial: Some((Slot::B, 2)), boots: 0 });
        assert!(told.is_count_of(&of_block) && !told.is_count_of(&Found::of(b"")));
    }

    /// Numbers that GRUB never passes would match a disk on which nothing was counted.
    #[test]
    fn ignores_values_that_grub_does_not_pass() {
        for cmdline in [
            "etchaos.slot=a etchaos.boots=0 etchaos.disk=0",
            "etchaos.boots=9 etchaos.trial=3 etchaos.disk=000000000000000g",
            "etchaos.boots=-1 etchaos.trial= etchaos.disk=00000000000000001",
            "etchaos.boots=256 etchaos.trial=1.0",
        ] {
            assert!(Told::of(cmdline).is_nothing(), "{cmdline}");
        }
    }

    #[test]
    fn finds_the_disk_that_was_booted() {
        use Verdict::{Booted, Copies, Probably, Undecided};
        for (told, disks, expected) in [
            // Two fresh copies, in both orders.
            (told(None, Some(1)), &[found(None, 1), found(None, 0)][..], Booted(0)),
            (told(None, Some(1)), &[found(None, 0), found(None, 1)], Booted(1)),
            // A fresh copy beside a used disk, and the reverse.
            (told(None, Some(1)), &[found(T, 1), found(None, 1)], Booted(1)),
            (told(T, Some(1)), &[found(T, 1), found(None, 1)], Booted(0)),
            // Two used disks.
            (told(U, Some(1)), &[found(T, 1), found(U, 1)], Booted(1)),
            // The tag decides, unless a copy with the same tag may appear that has the count.
            (told(U, Some(1)), &[found(T, 1), found(U, 0)], Probably(1)),
            (told(U, None), &[found(T, 1), found(U, 0)], Probably(1)),
            // A copy of a used disk.
            (told(T, Some(1)), &[found(T, 0), found(T, 1)], Booted(1)),
            (told(T, Some(1)), &[found(T, 1), found(T, 1)], Copies(vec![0, 1])),
            (told(T, Some(1)), &[found(T, 0), found(T, 0), found(U, 0)], Undecided(vec![0, 1])),
            (told(T, None), &[found(T, 1), found(T, 1)], Undecided(vec![0, 1])),
            (told(None, Some(2)), &[found(None, 2), found(None, 2)], Copies(vec![0, 1])),
            (told(None, Some(2)), &[found(None, 1), found(None, 0)], Undecided(vec![0, 1])),
            // Three copies.
            (told(T, Some(2)), &[found(T, 0), found(T, 1), found(T, 2)], Booted(2)),
            (told(T, Some(2)), &[found(T, 2), found(T, 1), found(T, 2)], Copies(vec![0, 2])),
            // The disk that was booted is missing.
            (told(T, Some(1)), &[found(U, 1)], Verdict::None),
            (told(T, Some(1)), &[found(None, 1)], Verdict::None),
            (told(None, Some(1)), &[found(T, 1)], Verdict::None),
            (told(None, Some(1)), &[found(T, 1), found(None, 0)], Verdict::None),
            (told(T, Some(1)), &[], Verdict::None),
            // The only disk, on which GRUB's writes are lost.
            (told(None, Some(1)), &[found(None, 0)], Probably(0)),
            (told(T, None), &[found(T, 0)], Probably(0)),
            // A disk that cannot be read.
            (told(T, Some(1)), &[UNREADABLE], Probably(0)),
            (told(None, Some(1)), &[UNREADABLE], Probably(0)),
            (told(T, Some(1)), &[UNREADABLE, found(T, 1)], Booted(1)),
            (told(T, Some(1)), &[UNREADABLE, found(T, 0)], Undecided(vec![0, 1])),
            (told(T, None), &[UNREADABLE, found(T, 0)], Undecided(vec![0, 1])),
            (told(T, Some(1)), &[UNREADABLE, found(U, 1)], Probably(0)),
            (told(None, Some(1)), &[UNREADABLE, found(None, 0)], Undecided(vec![0, 1])),
            // An older grub.cfg.
            (Told::default(), &[found(T, 0)], Booted(0)),
            (Told::default(), &[UNREADABLE], Booted(0)),
            (Told::default(), &[found(None, 0), found(None, 0)], Copies(vec![0, 1])),
            (Told::default(), &[], Verdict::None),
        ] {
            // In both orders.
            let backwards: Vec<Option<Found>> = disks.iter().rev().copied().collect();
            let turn = |index: usize| disks.len() - 1 - index;
            let turn_all = |indexes: &[usize]| indexes.iter().rev().map(|i| turn(*i)).collect();
            let expected_backwards = match &expected {
                Booted(index) => Booted(turn(*index)),
                Probably(index) => Probably(turn(*index)),
                Verdict::None => Verdict::None,
                Undecided(indexes) => Undecided(turn_all(indexes)),
                Copies(indexes) => Copies(turn_all(indexes)),
            };
            assert_eq!(judge(&told, &backwards), expected_backwards, "{told:?} {backwards:?}");
            assert_eq!(judge(&told, disks), expected, "{told:?} {disks:?}");
        }
    }

    #[test]
    fn finds_the_disk_of_a_trial_by_its_tries() {
        let on_trial = |tag| Told { tag, slot: Some(Slot::B), tries: Some(2), boots: None };
        let disk = |tag, trial| Some(Found { tag, trial, boots: 0 });
        let tries = |tries| Some((Slot::B, tries));
        for (told, disks, expected) in [
            (on_trial(None), [disk(None, None), disk(None, tries(2))], Verdict::Booted(1)),
            (on_trial(T), [disk(T, tries(2)), disk(T, tries(3))], Verdict::Booted(0)),
            (on_trial(T), [disk(T, tries(2)), disk(T, tries(2))], Verdict::Copies(vec![0, 1])),
            (
                on_trial(T),
                [disk(T, Some((Slot::A, 2))), disk(T, Some((Slot::A, 2)))],
                Verdict::Undecided(vec![0, 1]),
            ),
            (on_trial(None), [disk(None, None), disk(None, None)], Verdict::Undecided(vec![0, 1])),
            // A grub.cfg that passes no tag, on disks that had another one before.
            (on_trial(None), [disk(T, tries(2)), disk(U, tries(1))], Verdict::Booted(0)),
            (on_trial(None), [disk(T, tries(2)), disk(None, tries(2))], Verdict::Booted(1)),
        ] {
            assert_eq!(judge(&told, &disks), expected, "{told:?} {disks:?}");
        }
    }
}
