use super::*;
use crate::grubenv::Trial;

const ALL: SlotFiles =
    SlotFiles { manifest: true, mark: true, started: true, kernel: true, initrd: true };

fn environment(good: &str, trial: &str, tries: &str) -> Environment {
    let boots = String::new();
    Environment { good: good.into(), trial: trial.into(), tries: tries.into(), boots }
}

fn order(decision: &Decision) -> Vec<(Slot, Reason)> {
    decision.attempts.iter().map(|attempt| (attempt.slot, attempt.reason)).collect()
}

#[test]
fn tries_the_trial_then_the_good_slot_then_the_other_slot() {
    let trial = Trial { slot: Slot::B, tries: 3, release: None, since: None };
    let state = BootState { trial: Some(trial), ..BootState::with_good(Slot::A) };
    let decision = Environment::from(&state).decide(|_| ALL, Save::Stored);
    let expected = [(Slot::B, Reason::Trial), (Slot::A, Reason::Good), (Slot::B, Reason::Fallback)];
    assert_eq!(order(&decision), expected);
    assert_eq!((decision.saves, decision.attempts[0].trial), (Some(2), Some(2)));
    for save in [Save::Failed, Save::ReadsBackDifferent] {
        let decision = Environment::from(&state).decide(|_| ALL, save);
        assert_eq!(order(&decision), expected[1..], "{save:?}");
        assert_eq!(decision.saves, Some(2), "{save:?}");
    }
}

#[test]
fn ignores_variables_that_are_not_valid() {
    let expected = [(Slot::A, Reason::Good), (Slot::B, Reason::Fallback)];
    for (good, trial, tries) in
        [("", "", ""), ("c", "", ""), ("a", "b", "0"), ("a", "b", "4"), ("a", "x", "3")]
    {
        let decision = environment(good, trial, tries).decide(|_| ALL, Save::Stored);
        assert_eq!(order(&decision), expected, "{good:?} {trial:?} {tries:?}");
        assert_eq!(decision.saves, None);
    }
}

#[test]
fn takes_a_slot_with_mark_or_manifest_for_good_if_the_block_names_none() {
    // Per slot: whether it has a manifest, and the mark.
    let (none, unmarked, marked) = ((false, false), (true, false), (true, true));
    for (named, a, b, expected) in [
        ("", none, unmarked, Slot::B),
        ("c", none, unmarked, Slot::B),
        ("", unmarked, unmarked, Slot::A),
        ("", unmarked, marked, Slot::B),
        ("", marked, marked, Slot::A),
        ("", unmarked, none, Slot::A),
        ("", none, none, Slot::A),
        // A mark without a manifest is ignored.
        ("", (false, true), unmarked, Slot::B),
        ("a", none, marked, Slot::A),
        ("b", marked, none, Slot::B),
    ] {
        let files = |slot| {
            let (manifest, mark) = if slot == Slot::A { a } else { b };
            SlotFiles { manifest, mark, ..ALL }
        };
        let decision = environment(named, "", "").decide(files, Save::Stored);
        assert_eq!(decision.good, expected, "{named:?} {a:?} {b:?}");
    }
}

#[test]
fn falls_back_unless_an_initrd_fails_under_bios() {
    let decision = environment("a", "b", "1").decide(|_| ALL, Save::Stored);
    let outcome = |platform, of_b| {
        let load = |slot| if slot == Slot::B { of_b } else { Load::Works };
        decision.outcome(platform, |_| ALL, load)
    };
    for platform in [Platform::Bios, Platform::Uefi] {
        let [trial, good, _] = decision.attempts[..] else { panic!("three attempts") };
        assert_eq!(outcome(platform, Load::Works), Outcome::Boots(trial));
        assert_eq!(outcome(platform, Load::KernelFails), Outcome::Boots(good));
        let fails = decision.outcome(platform, |_| ALL, |_| Load::KernelFails);
        assert_eq!(fails, Outcome::NothingBoots);
        let empty = decision.outcome(platform, |_| SlotFiles::default(), |_| Load::Works);
        assert_eq!(empty, Outcome::NothingBoots);
    }
    let [trial, good, _] = decision.attempts[..] else { panic!("three attempts") };
    assert_eq!(outcome(Platform::Bios, Load::InitrdFails), Outcome::Reboots(trial));
    assert_eq!(outcome(Platform::Uefi, Load::InitrdFails), Outcome::Boots(good));
}

#[test]
fn gives_the_other_slot_its_turn_if_the_good_slot_does_not_come_up() {
    let mut environment = environment("a", "", "0");
    let mut booted = Vec::new();
    for _ in 0..10 {
        let decision = environment.decide(|_| ALL, Save::Stored);
        let Outcome::Boots(attempt) = decision.outcome(Platform::Bios, |_| ALL, |_| Load::Works)
        else {
            panic!("a slot boots")
        };
        let boots = decision.saves_boots(Outcome::Boots(attempt));
        assert_eq!(attempt.boots, boots);
        environment.boots = boots.unwrap().to_string();
        booted.push(attempt.slot.to_string());
    }
    assert_eq!(booted.concat(), "aaaaabbbaa");
}

#[test]
fn boots_the_good_slot_if_the_other_one_was_never_confirmed_or_nothing_is_counted() {
    let fifth = Environment { boots: GOOD_BOOTS.to_string(), ..environment("a", "", "0") };
    let first = |files: SlotFiles, save| {
        let files = |slot| if slot == Slot::A { ALL } else { files };
        fifth.decide(files, save).attempts[0]
    };
    let [a, b] = Slot::ALL.map(|slot| {
        let reason = if slot == Slot::A { Reason::Good } else { Reason::GoodFails };
        Attempt { slot, reason, trial: None, boots: Some(GOOD_BOOTS + 1) }
    });
    assert_eq!(first(ALL, Save::Stored), b);
    for files in [
        SlotFiles { manifest: false, ..ALL },
        SlotFiles { mark: false, ..ALL },
        SlotFiles { kernel: false, ..ALL },
        SlotFiles { initrd: false, ..ALL },
    ] {
        assert_eq!(first(files, Save::Stored), a, "{files:?}");
    }
    for save in [Save::Failed, Save::ReadsBackDifferent] {
        assert_eq!(first(ALL, save), Attempt { boots: None, ..a }, "{save:?}");
    }
    for boots in ["", "x", "9", "05", "+5", "-1", "8"] {
        let environment = Environment { boots: boots.into(), ..environment("a", "", "0") };
        let attempt = environment.decide(|_| ALL, Save::Stored).attempts[0];
        assert_eq!(attempt, Attempt { boots: Some(1), ..a }, "{boots:?}");
    }
}

/// An older release does not reset the boot counter, and hosts that run it are not disturbed.
#[test]
fn boots_the_good_slot_if_its_release_never_reset_the_boot_counter() {
    let never = |good| move |slot| SlotFiles { started: slot != good, ..ALL };
    for good in Slot::ALL {
        let mut environment = environment(&good.to_string(), "", "0");
        for boot in 0..10_u8 {
            let decision = environment.decide(never(good), Save::Stored);
            let [first, second] = decision.attempts[..] else { panic!("two attempts") };
            assert_eq!((first.slot, first.reason), (good, Reason::Good));
            // The count itself goes on, because it tells copies of a disk apart.
            assert_eq!((first.boots, second.boots), (Some(boot % 8 + 1), Some(boot % 8 + 1)));
            environment.boots = (boot % 8 + 1).to_string();
        }
    }
    // The other slot need not have ended it.
    let fifth = Environment { boots: GOOD_BOOTS.to_string(), ..environment("a", "", "0") };
    let decision = fifth.decide(never(Slot::B), Save::Stored);
    assert_eq!(order(&decision)[0], (Slot::B, Reason::GoodFails));
}

#[test]
fn counts_only_boots_without_a_trial() {
    let decision = environment("a", "b", "3").decide(|_| ALL, Save::Stored);
    let outcome = |of_b| {
        let load = |slot| if slot == Slot::B { of_b } else { Load::Works };
        decision.outcome(Platform::Bios, |_| ALL, load)
    };
    for (of_b, boots) in
        [(Load::Works, None), (Load::InitrdFails, None), (Load::KernelFails, Some(1))]
    {
        assert_eq!(decision.saves_boots(outcome(of_b)), boots, "{of_b:?}");
    }
}
