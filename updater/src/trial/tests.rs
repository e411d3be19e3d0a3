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
    let failed = BootState { failed: Some(release(6).id()), ..BootState::with_good(A) };
    let state = start_trial(&failed, B, &release(6), NOW);
    assert_eq!(state.failed, None);
    let trial = Trial { slot: B, tries: TRIES, release: Some(release(6).id()), since: NOW };
    assert_eq!(state.trial, Some(trial));
    assert_eq!(start_trial(&failed, B, &release(7), NOW).failed, failed.failed);
}

#[test]
fn a_trial_fails_when_no_try_is_left_and_it_does_not_run() {
    let state = start_trial(&BootState::with_good(A), B, &release(6), NOW);
    let over = left(state.clone(), 0);
    let failed = BootState { failed: Some(release(6).id()), ..BootState::with_good(A) };
    assert_eq!(expire_trial(&over, Some(A)), failed);
    assert_eq!(expire_trial(&over, None), failed);
    assert_eq!(expire_trial(&over, Some(B)), over);
    for tries in 1..=TRIES {
        assert_eq!(expire_trial(&left(state.clone(), tries), Some(A)), left(state.clone(), tries));
    }
}

#[test]
fn the_running_slot_is_good_and_the_other_ones_trial_goes_on() {
    let state = start_trial(&BootState::with_good(A), B, &release(6), NOW);
    assert_eq!(mark_confirmed(&left(state.clone(), 2), B), BootState::with_good(B));
    assert_eq!(mark_confirmed(&left(state.clone(), 0), B), BootState::with_good(B));
    assert_eq!(mark_confirmed(&state, A), state);
    assert_eq!(mark_confirmed(&BootState::with_good(A), B), BootState::with_good(B));
    let failed = mark_confirmed(&left(state, 0), A);
    assert_eq!(failed, BootState { failed: Some(release(6).id()), ..BootState::with_good(A) });
    // It is remembered while the good slot is confirmed at every boot.
    assert_eq!(mark_confirmed(&failed, A), failed);
}

#[test]
fn a_good_slot_that_is_lost_is_replaced_by_a_better_one() {
    let lost = Slots { a: Content::Empty, ..slots(5, 6) };
    let booted = |slot, on_trial| Booted { slot, on_trial, id: NOW };
    let here = booted(Some(A), false);
    let (good_a, good_b) = (BootState::with_good(A), BootState::with_good(B));
    // By a whole one that was confirmed before, whatever runs; also after a trial of it.
    for running in [None, Some(A), Some(B)] {
        assert_eq!(promote(&good_a, booted(running, false), &lost, true), good_b);
    }
    assert_eq!(promote(&good_a, here, &lost, false), good_a);
    let trial = start_trial(&good_a, B, &release(6), Some(BootId(6)));
    let over = left(trial.clone(), 0);
    assert_eq!(promote(&over, booted(Some(B), false), &lost, true), good_b);
    // A trial is left alone, whether it goes on, begins, or is of what was written anew in this boot.
    assert_eq!(promote(&over, booted(Some(B), true), &lost, true), over);
    assert_eq!(promote(&trial, here, &lost, true), trial);
    let anew = start_trial(&good_a, B, &release(6), NOW);
    assert_eq!(promote(&anew, booted(Some(B), false), &lost, true), anew);
    assert_eq!(promote(&trial, booted(Some(B), false), &lost, true), good_b);
    // What is known to be bad, or is not whole, is only better if it runs.
    let failed = |state: &BootState| BootState { failed: Some(release(6).id()), ..state.clone() };
    assert_eq!(promote(&failed(&good_a), here, &lost, true), failed(&good_a));
    assert_eq!(promote(&failed(&good_a), booted(Some(B), false), &lost, false), failed(&good_b));
    let both = Slots { a: Content::Empty, b: Content::Empty };
    assert_eq!(promote(&good_a, here, &both, true), good_a);
    assert_eq!(promote(&good_a, booted(Some(B), false), &both, false), good_b);
    assert_eq!(promote(&good_a, booted(Some(B), false), &slots(5, 6), true), good_a);
}

#[test]
fn what_is_left_in_vain_takes_the_place_of_what_does_not_load() {
    let booted = |id, on_trial| Booted { slot: Some(B), on_trial, id: Some(BootId(id)) };
    let over = left(start_trial(&BootState::with_good(A), B, &release(6), None), 0);
    let state = abandon(&over, B, Some(BootId(1)));
    assert_eq!(state.failed, Some(release(6).id()));
    assert!(is_abandoned(&state, B) && !is_abandoned(&over, B) && !is_abandoned(&state, A));
    assert_eq!(abandon(&state, B, Some(BootId(1))), state);
    assert!(!return_failed(&state, booted(1, false)));
    assert!(return_failed(&state, booted(2, false)) && !return_failed(&state, booted(2, true)));
    assert_eq!(promote(&state, booted(1, false), &slots(5, 6), false), state);
    let expected = BootState { failed: state.failed, ..BootState::with_good(B) };
    assert_eq!(promote(&state, booted(2, false), &slots(5, 6), false), expected);
    // It was not in vain.
    let expected = BootState { failed: state.failed, ..BootState::with_good(A) };
    assert_eq!(expire_trial(&state, Some(A)), expected);
}

#[test]
fn only_a_slot_that_is_tried_is_left_by_a_reboot() {
    let state = left(start_trial(&BootState::with_good(A), B, &release(6), NOW), 1);
    assert!(is_on_trial(&state, B) && is_on_trial(&left(state.clone(), 0), B));
    assert!(!is_on_trial(&state, A));
    // GRUB's last resort: a reboot would lead back here.
    assert!(!is_on_trial(&BootState::with_good(A), B));
}

#[test]
fn the_newest_build_is_of_one_target_and_only_grows() {
    let newest = |state: &BootState| state.newest.clone().map(|newest| newest.build);
    let state = record_newest(&BootState::with_good(A), &release(6), false);
    assert_eq!(newest(&state), Some(6));
    assert_eq!(newest(&record_newest(&state, &release(5), false)), Some(6));
    assert_eq!(newest(&record_newest(&state, &release(7), false)), Some(7));
    assert_eq!(newest(&record_newest(&state, &release(5), true)), Some(5));
    let other = Release { variant: "ubu".parse().unwrap(), ..release(1) };
    assert_eq!(newest(&record_newest(&state, &other, false)), Some(1));
}

fn slots(a: u8, b: u8) -> Slots {
    Slots { a: Content::Complete(release(a)), b: Content::Complete(release(b)) }
}

#[test]
fn going_back_is_a_trial_of_the_other_slot_and_is_remembered() {
    let back = roll_back(&BootState::with_good(B), B, &slots(5, 6), NOW).unwrap();
    let Rollback::Reboot(state, A) = back else { panic!("{back:?}") };
    assert_eq!(state.failed, Some(release(6).id()));
    assert_eq!(state.trial.unwrap().release, Some(release(5).id()));
    assert_eq!(state.good, B);
    // Once it is confirmed, what was left is still not wanted.
    assert_eq!(mark_confirmed(&left(state, 2), A).failed, Some(release(6).id()));
}

#[test]
fn a_trial_is_rolled_back_to_what_is_good() {
    let state = start_trial(&BootState::with_good(A), B, &release(6), NOW);
    let expected = BootState { failed: Some(release(6).id()), ..BootState::with_good(A) };
    let back = |state: &BootState, running| roll_back(state, running, &slots(5, 6), NOW).unwrap();
    // It runs, and is not confirmed any more, but left at the next boot.
    let running = left(state.clone(), 2);
    let Rollback::Reboot(over, A) = back(&running, B) else { panic!("it is left") };
    assert!(is_abandoned(&over, B) && is_on_trial(&over, B));
    assert_eq!(expire_trial(&over, Some(A)), expected);
    assert_eq!(over.trial.unwrap().tries, 0);
    // It was not booted yet.
    assert_eq!(back(&state, A), Rollback::Stay(expected));
    // What is lost is nothing to go back to, nor to stay with.
    let lost = Slots { a: Content::Empty, ..slots(5, 6) };
    for (state, running) in [(left(state.clone(), 2), B), (state, A)] {
        let refused = roll_back(&state, running, &lost, NOW).unwrap_err().to_string();
        assert!(refused.contains("slot a is empty"), "{refused}");
    }
}

#[test]
fn there_is_not_always_a_way_back() {
    let settled = BootState::with_good(A);
    let refused =
        |state: &BootState, slots: &Slots| roll_back(state, A, slots, NOW).unwrap_err().to_string();
    let empty = Slots { b: Content::Empty, ..slots(5, 6) };
    assert!(refused(&settled, &empty).contains("slot b is empty"));
    let damaged = Content::Damaged { release: None, problem: "vmlinuz is missing".into() };
    let damaged = Slots { b: damaged, ..slots(5, 6) };
    assert!(refused(&settled, &damaged).contains("vmlinuz is missing"));
    assert!(refused(&settled, &slots(5, 5)).contains("both slots hold 13.5"));
    let failed = BootState { failed: Some(release(6).id()), ..settled };
    assert!(refused(&failed, &slots(5, 6)).contains("13.6 in slot b failed"));
}
