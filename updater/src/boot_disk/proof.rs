//! Decides which of several disks with the same ESP was booted, as a pure function.
//!
//! GRUB passes the tag of its disk to the kernel. It also counts each boot in grubenv, and passes the count:
//! until the host writes grubenv, only the disk that was booted has that count.

use protocol::esp::{ARG_BOOTS, ARG_DISK, ARG_TRIAL, Slot, argument};
use protocol::grubenv::{BOOTS, Block, DISK, DiskTag, TRIAL, TRIES_LEFT};

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
            tries: number(ARG_TRIAL),
            boots: number(ARG_BOOTS),
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
    /// Reads a block. A grubenv that cannot be read says nothing.
    pub(super) fn of(block: Option<&Block>) -> Self {
        let Some(block) = block else { return Self::default() };
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
    /// One of these, which cannot be told apart.
    Copies(Vec<usize>),
}

/// Returns which of the disks was booted.
pub(super) fn judge(told: &Told, found: &[Found]) -> Verdict {
    let all: Vec<usize> = (0..found.len()).collect();
    if told.is_nothing() {
        return match all[..] {
            [] => Verdict::None,
            [only] => Verdict::Booted(only),
            _ => Verdict::Copies(all),
        };
    }
    let has_tag = |index: &usize| found[*index].tag == told.tag;
    let same: Vec<usize> = all.iter().copied().filter(has_tag).collect();
    let counted: Vec<usize> =
        same.iter().copied().filter(|index| told.is_count_of(&found[*index])).collect();
    match (told.tag, &same[..], &counted[..]) {
        (Some(_), [], _) => Verdict::None,
        (_, _, [only]) => Verdict::Booted(*only),
        // A copy that has the tag, and appears before the disk that was booted, does not have the count.
        (Some(_), [only], []) if told.has_count() => Verdict::Probably(*only),
        (Some(_), [only], []) => Verdict::Booted(*only),
        (Some(_), ..) => Verdict::Copies(same),
        (None, _, [_, _, ..]) => Verdict::Copies(counted),
        // GRUB passes a tag that it can read, and it can read what it has saved.
        (None, [only], []) if found.len() == 1 => Verdict::Probably(*only),
        (None, [], []) if found.len() == 1 && told.boots.is_none() => Verdict::Probably(0),
        (None, _, []) => Verdict::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Option<DiskTag> = Some(DiskTag(1));
    const U: Option<DiskTag> = Some(DiskTag(2));

    fn found(tag: Option<DiskTag>, boots: u8) -> Found {
        Found { tag, trial: None, boots }
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
        let mut block = Block::default();
        block.set(DISK, "0000000000000001");
        block.set(TRIAL, "b");
        block.set(TRIES_LEFT, "2");
        let of_block = Found::of(Some(&block));
        assert_eq!(of_block, Found { tag: T, trial: Some((Slot::B, 2)), boots: 0 });
        assert!(told.is_count_of(&of_block) && !told.is_count_of(&Found::of(None)));
    }

    #[test]
    fn finds_the_disk_that_was_booted() {
        use Verdict::{Booted, Copies, Probably};
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
            (told(U, None), &[found(T, 1), found(U, 0)], Booted(1)),
            // A copy of a used disk.
            (told(T, Some(1)), &[found(T, 0), found(T, 1)], Booted(1)),
            (told(T, Some(1)), &[found(T, 1), found(T, 1)], Copies(vec![0, 1])),
            (told(T, Some(1)), &[found(T, 0), found(T, 0), found(U, 0)], Copies(vec![0, 1])),
            (told(T, None), &[found(T, 1), found(T, 1)], Copies(vec![0, 1])),
            (told(None, Some(2)), &[found(None, 2), found(None, 2)], Copies(vec![0, 1])),
            // The disk that was booted is missing.
            (told(T, Some(1)), &[found(U, 1)], Verdict::None),
            (told(T, Some(1)), &[found(None, 1)], Verdict::None),
            (told(None, Some(1)), &[found(T, 1)], Verdict::None),
            (told(None, Some(1)), &[found(T, 1), found(None, 0)], Verdict::None),
            (told(T, Some(1)), &[], Verdict::None),
            // The only disk, on which GRUB's writes are lost.
            (told(None, Some(1)), &[found(None, 0)], Probably(0)),
            // An older grub.cfg.
            (Told::default(), &[found(T, 0)], Booted(0)),
            (Told::default(), &[found(None, 0), found(None, 0)], Copies(vec![0, 1])),
            (Told::default(), &[], Verdict::None),
        ] {
            assert_eq!(judge(&told, disks), expected, "{told:?} {disks:?}");
        }
    }

    #[test]
    fn finds_the_disk_of_a_trial_by_its_tries() {
        let on_trial = |tag| Told { tag, slot: Some(Slot::B), tries: Some(2), boots: None };
        let disk = |tag, trial| Found { tag, trial, boots: 0 };
        for (told, disks, expected) in [
            (
                on_trial(None),
                [disk(None, None), disk(None, Some((Slot::B, 2)))],
                Verdict::Booted(1),
            ),
            (
                on_trial(T),
                [disk(T, Some((Slot::B, 2))), disk(T, Some((Slot::B, 3)))],
                Verdict::Booted(0),
            ),
            (
                on_trial(T),
                [disk(T, Some((Slot::A, 2))), disk(T, Some((Slot::A, 2)))],
                Verdict::Copies(vec![0, 1]),
            ),
            (on_trial(None), [disk(None, None), disk(None, None)], Verdict::None),
        ] {
            assert_eq!(judge(&told, &disks), expected, "{told:?} {disks:?}");
        }
    }
}
