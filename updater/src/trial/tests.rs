use super::*;
use crate::plan;

const A: Slot = Slot::A;
const B: Slot = Slot::B;
const NOW: Option<BootId> = Some(BootId(7));

fn release(n: u8) -> Release {
    plan::tests::release(n.into(), n)
}

fn left(state: BootState, tries: u8) -> BootState {
    BootState { trial: state.trial.map(|trial| Trial { tries, ..trial }), ..state }
}

#[test]
fn a_trial_begins_with_all_tries_and_gives_what_failed_another_chance() {
    let failed = BootState { failed: Some(release(6).id()), ..BootState::settled(A) };
    let state = begun(&failed, B, &release(6), NOW);
    assert_eq!(state.failed, None);
    let trial = Trial { slot: B, tries: TRIES, release: Some(release(6).id()), since: NOW };
    assert_eq!(state.trial, Some(trial));
    assert_eq!(begun(&failed, B, &release(7), NOW).failed, failed.failed);
}

#[test]
fn a_trial_fails_when_no_try_is_left_and_it_does_not_run() {
    let state = begun(&BootState::settled(A), B, &release(6), NOW);
    let over = left(state.clone(), 0);
    let failed = BootState { failed: Some(release(6).id()), ..BootState::settled(A) };
    assert_eq!(settled(&over, Some(A)), failed);
    assert_eq!(settled(&over, None), failed);
    assert_eq!(settled(&over, Some(B)), over);
    for tries in 1..=TRIES {
        assert_eq!(settled(&left(state.clone(), tries), Some(A)), left(state.clone(), tries));
    }
}

#[test]
fn the_running_slot_is_good_and_the_other_ones_trial_goes_on() {
    let state = begun(&BootState::settled(A), B, &release(6), NOW);
    assert_eq!(confirmed(&left(state.clone(), 2), B), BootState::settled(B));
    assert_eq!(confirmed(&left(state.clone(), 0), B), BootState::settled(B));
    assert_eq!(confirmed(&state, A), state);
    assert_eq!(confirmed(&BootState::settled(A), B), BootState::settled(B));
    let failed = confirmed(&left(state, 0), A);
    assert_eq!(failed, BootState { failed: Some(release(6).id()), ..BootState::settled(A) });
    // It is remembered while the good slot is confirmed at every boot.
    assert_eq!(confirmed(&failed, A), failed);
}

#[test]
fn a_good_slot_that_is_lost_is_replaced_by_a_better_one() {
    let lost = Slots { a: Content::Empty, ..slots(5, 6) };
    let booted = |slot, on_trial| Booted { slot, on_trial, id: NOW };
    let here = booted(Some(A), false);
    let (good_a, good_b) = (BootState::settled(A), BootState::settled(B));
    // By a whole one that was confirmed before, whatever runs; also after a trial of it.
    for running in [None, Some(A), Some(B)] {
        assert_eq!(adopted(&good_a, booted(running, false), &lost, true), good_b);
    }
    assert_eq!(adopted(&good_a, here, &lost, false), good_a);
    let trial = begun(&good_a, B, &release(6), Some(BootId(6)));
    let over = left(trial.clone(), 0);
    assert_eq!(adopted(&over, booted(Some(B), false), &lost, true), good_b);
    // A trial is left alone, whether it goes on, begins, or is of what was written anew in this boot.
    assert_eq!(adopted(&over, booted(Some(B), true), &lost, true), over);
    assert_eq!(adopted(&trial, here, &lost, true), trial);
    let anew = begun(&good_a, B, &release(6), NOW);
    assert_eq!(adopted(&anew, booted(Some(B), false), &lost, true), anew);
    assert_eq!(adopted(&trial, booted(Some(B), false), &lost, true), good_b);
    // What is known to be bad, or is not whole, is only better if it runs.
    let failed = |state: &BootState| BootState { failed: Some(release(6).id()), ..state.clone() };
    assert_eq!(adopted(&failed(&good_a), here, &lost, true), failed(&good_a));
    assert_eq!(adopted(&failed(&good_a), booted(Some(B), false), &lost, false), failed(&good_b));
    let both = Slots { a: Content::Empty, b: Content::Empty };
    assert_eq!(adopted(&good_a, here, &both, true), good_a);
    assert_eq!(adopted(&good_a, booted(Some(B), false), &both, false), good_b);
    assert_eq!(adopted(&good_a, booted(Some(B), false), &slots(5, 6), true), good_a);
}

#[test]
fn what_is_left_in_vain_takes_the_place_of_what_does_not_load() {
    let booted = |id, on_trial| Booted { slot: Some(B), on_trial, id: Some(BootId(id)) };
    let over = left(begun(&BootState::settled(A), B, &release(6), None), 0);
    let state = leave(&over, B, Some(BootId(1)));
    assert_eq!(state.failed, Some(release(6).id()));
    assert!(is_left(&state, B) && !is_left(&over, B) && !is_left(&state, A));
    assert_eq!(leave(&state, B, Some(BootId(1))), state);
    assert!(!is_left_in_vain(&state, booted(1, false)));
    assert!(is_left_in_vain(&state, booted(2, false)) && !is_left_in_vain(&state, booted(2, true)));
    assert_eq!(adopted(&state, booted(1, false), &slots(5, 6), false), state);
    let expected = BootState { failed: state.failed, ..BootState::settled(B) };
    assert_eq!(adopted(&state, booted(2, false), &slots(5, 6), false), expected);
    // It was not in vain.
    let expected = BootState { failed: state.failed, ..BootState::settled(A) };
    assert_eq!(settled(&state, Some(A)), expected);
}

#[test]
fn only_a_slot_that_is_tried_is_left_by_a_reboot() {
    let state = left(begun(&BootState::settled(A), B, &release(6), NOW), 1);
    assert!(is_tried(&state, B) && is_tried(&left(state.clone(), 0), B));
    assert!(!is_tried(&state, A));
    // GRUB's last resort: a reboot would lead back here.
    assert!(!is_tried(&BootState::settled(A), B));
}

#[test]
fn the_newest_build_is_of_one_target_and_only_grows() {
    let newest = |state: &BootState| state.newest.clone().map(|newest| newest.build);
    let state = offered(&BootState::settled(A), &release(6), false);
    assert_eq!(newest(&state), Some(6));
    assert_eq!(newest(&offered(&state, &release(5), false)), Some(6));
    assert_eq!(newest(&offered(&state, &release(7), false)), Some(7));
    assert_eq!(newest(&offered(&state, &release(5), true)), Some(5));
    let other = Release { variant: "ubu".parse().unwrap(), ..release(1) };
    assert_eq!(newest(&offered(&state, &other, false)), Some(1));
}

fn slots(a: u8, b: u8) -> Slots {
    Slots { a: Content::Complete(release(a)), b: Content::Complete(release(b)) }
}

#[test]
fn going_back_is_a_trial_of_the_other_slot_and_is_remembered() {
    let back = rolled_back(&BootState::settled(B), B, &slots(5, 6), NOW).unwrap();
    let Back::Reboot(state, A) = back else { panic!("{back:?}") };
    assert_eq!(state.failed, Some(release(6).id()));
    assert_eq!(state.trial.unwrap().release, Some(release(5).id()));
    assert_eq!(state.good, B);
    // Once it is confirmed, what was left is still not wanted.
    assert_eq!(confirmed(&left(state, 2), A).failed, Some(release(6).id()));
}

#[test]
fn a_trial_is_rolled_back_to_what_is_good() {
    let state = begun(&BootState::settled(A), B, &release(6), NOW);
    let expected = BootState { failed: Some(release(6).id()), ..BootState::settled(A) };
    let back = |state: &BootState, running| rolled_back(state, running, &slots(5, 6), NOW).unwrap();
    // It runs, and is not confirmed any more, but left at the next boot.
    let running = left(state.clone(), 2);
    let Back::Reboot(over, A) = back(&running, B) else { panic!("it is left") };
    assert!(is_left(&over, B) && is_tried(&over, B));
    assert_eq!(settled(&over, Some(A)), expected);
    assert_eq!(over.trial.unwrap().tries, 0);
    // It was not booted yet.
    assert_eq!(back(&state, A), Back::Stay(expected));
    // What is lost is nothing to go back to, nor to stay with.
    let lost = Slots { a: Content::Empty, ..slots(5, 6) };
    for (state, running) in [(left(state.clone(), 2), B), (state, A)] {
        let refused = rolled_back(&state, running, &lost, NOW).unwrap_err().to_string();
        assert!(refused.contains("slot a is empty"), "{refused}");
    }
}

#[test]
fn there_is_not_always_a_way_back() {
    let settled = BootState::settled(A);
    let refused = |state: &BootState, slots: &Slots| {
        rolled_back(state, A, slots, NOW).unwrap_err().to_string()
    };
    let empty = Slots { b: Content::Empty, ..slots(5, 6) };
    assert!(refused(&settled, &empty).contains("slot b is empty"));
    let damaged = Content::Damaged { release: None, problem: "vmlinuz is missing".into() };
    let damaged = Slots { b: damaged, ..slots(5, 6) };
    assert!(refused(&settled, &damaged).contains("vmlinuz is missing"));
    assert!(refused(&settled, &slots(5, 5)).contains("both slots hold 13.5"));
    let failed = BootState { failed: Some(release(6).id()), ..settled };
    assert!(refused(&failed, &slots(5, 6)).contains("13.6 in slot b failed"));
}
