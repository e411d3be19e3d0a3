use super::*;
use crate::plan;

const A: Slot = Slot::A;
const B: Slot = Slot::B;
const NOW: Option<BootId> = Some(BootId(7));

fn release(n: u8) -> Release {
    plan::tests::release(n.into(), n)
}

fn with_tries(state: BootState, tries: u8) -> BootState {
    BootState { trial: state.trial.map(|trial| Trial { tries, ..trial }), ..state }
}

#[test]
fn starts_a_trial_with_all_tries_and_clears_its_failure() {
    let failed = BootState { failed: Some(release(6).id()), ..BootState::with_good(A) };
    let state = start_trial(&failed, B, &release(6), NOW);
    assert_eq!(state.failed, None);
    let trial = Trial { slot: B, tries: TRIES, release: Some(release(6).id()), since: NOW };
    assert_eq!(state.trial, Some(trial));
    assert_eq!(start_trial(&failed, B, &release(7), NOW).failed, failed.failed);
}

#[test]
fn expires_a_trial_without_tries_whose_slot_does_not_run() {
    let state = start_trial(&BootState::with_good(A), B, &release(6), NOW);
    let last_try = with_tries(state.clone(), 0);
    let failed = BootState { failed: Some(release(6).id()), ..BootState::with_good(A) };
    assert_eq!(expire_trial(&last_try, Some(A)), failed);
    assert_eq!(expire_trial(&last_try, None), failed);
    assert_eq!(expire_trial(&last_try, Some(B)), last_try);
    for tries in 1..=TRIES {
        assert_eq!(
            expire_trial(&with_tries(state.clone(), tries), Some(A)),
            with_tries(state.clone(), tries)
        );
    }
}

#[test]
fn confirms_the_running_slot_and_keeps_the_trial_of_the_other() {
    let state = start_trial(&BootState::with_good(A), B, &release(6), NOW);
    assert_eq!(mark_confirmed(&with_tries(state.clone(), 2), B), BootState::with_good(B));
    assert_eq!(mark_confirmed(&with_tries(state.clone(), 0), B), BootState::with_good(B));
    assert_eq!(mark_confirmed(&state, A), state);
    assert_eq!(mark_confirmed(&BootState::with_good(A), B), BootState::with_good(B));
    let failed = mark_confirmed(&with_tries(state, 0), A);
    assert_eq!(failed, BootState { failed: Some(release(6).id()), ..BootState::with_good(A) });
    // The failure stays recorded when the good slot is confirmed at later boots.
    assert_eq!(mark_confirmed(&failed, A), failed);
}

#[test]
fn promotes_the_other_slot_if_the_good_one_is_lost() {
    let lost = Slots { a: Content::Empty, ..slots(5, 6) };
    let booted = |slot, on_trial| Booted { slot, on_trial, id: NOW };
    let runs_a = booted(Some(A), false);
    let (good_a, good_b) = (BootState::with_good(A), BootState::with_good(B));
    // A complete slot with the mark is promoted whichever slot runs, also after its trial ended.
    for running in [None, Some(A), Some(B)] {
        assert_eq!(promote(&good_a, booted(running, false), &lost, true), good_b);
    }
    assert_eq!(promote(&good_a, runs_a, &lost, false), good_a);
    let trial = start_trial(&good_a, B, &release(6), Some(BootId(6)));
    let last_try = with_tries(trial.clone(), 0);
    assert_eq!(promote(&last_try, booted(Some(B), false), &lost, true), good_b);
    // A trial that runs, that has not started, or whose slot was rewritten in this boot is not touched.
    assert_eq!(promote(&last_try, booted(Some(B), true), &lost, true), last_try);
    assert_eq!(promote(&trial, runs_a, &lost, true), trial);
    let rewritten = start_trial(&good_a, B, &release(6), NOW);
    assert_eq!(promote(&rewritten, booted(Some(B), false), &lost, true), rewritten);
    assert_eq!(promote(&trial, booted(Some(B), false), &lost, true), good_b);
    // A slot with a failed release, or an incomplete slot, is promoted only if it runs.
    let failed = |state: &BootState| BootState { failed: Some(release(6).id()), ..state.clone() };
    assert_eq!(promote(&failed(&good_a), runs_a, &lost, true), failed(&good_a));
    assert_eq!(promote(&failed(&good_a), booted(Some(B), false), &lost, false), failed(&good_b));
    let none = Slots { a: Content::Empty, b: Content::Empty };
    assert_eq!(promote(&good_a, runs_a, &none, true), good_a);
    assert_eq!(promote(&good_a, booted(Some(B), false), &none, false), good_b);
    assert_eq!(promote(&good_a, booted(Some(B), false), &slots(5, 6), true), good_a);
}

#[test]
fn promotes_an_abandoned_slot_if_the_good_one_does_not_load() {
    let booted = |id, on_trial| Booted { slot: Some(B), on_trial, id: Some(BootId(id)) };
    let last_try = with_tries(start_trial(&BootState::with_good(A), B, &release(6), None), 0);
    let state = abandon(&last_try, B, Some(BootId(1)));
    assert_eq!(state.failed, Some(release(6).id()));
    assert!(is_abandoned(&state, B) && !is_abandoned(&last_try, B) && !is_abandoned(&state, A));
    assert_eq!(abandon(&state, B, Some(BootId(1))), state);
    assert!(!return_failed(&state, booted(1, false)));
    assert!(return_failed(&state, booted(2, false)) && !return_failed(&state, booted(2, true)));
    assert_eq!(promote(&state, booted(1, false), &slots(5, 6), false), state);
    let expected = BootState { failed: state.failed, ..BootState::with_good(B) };
    assert_eq!(promote(&state, booted(2, false), &slots(5, 6), false), expected);
    // GRUB did load the good slot.
    let expected = BootState { failed: state.failed, ..BootState::with_good(A) };
    assert_eq!(expire_trial(&state, Some(A)), expected);
}

#[test]
fn only_a_slot_with_a_trial_is_on_trial() {
    let state = with_tries(start_trial(&BootState::with_good(A), B, &release(6), NOW), 1);
    assert!(is_on_trial(&state, B) && is_on_trial(&with_tries(state.clone(), 0), B));
    assert!(!is_on_trial(&state, A));
    // GRUB booted slot b as its last resort, and a reboot would boot it again.
    assert!(!is_on_trial(&BootState::with_good(A), B));
}

#[test]
fn records_the_newest_build_of_one_target() {
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
    let complete = |n: u8| Content::Complete(plan::tests::manifest(n.into(), n));
    Slots { a: complete(a), b: complete(b) }
}

#[test]
fn rollback_puts_the_other_slot_on_trial_and_records_the_failure() {
    let rollback = roll_back(&BootState::with_good(B), B, &slots(5, 6), NOW).unwrap();
    let Rollback::Reboot(state, A) = rollback else { panic!("{rollback:?}") };
    assert_eq!(state.failed, Some(release(6).id()));
    assert_eq!(state.trial.unwrap().release, Some(release(5).id()));
    assert_eq!(state.good, B);
    // The failure stays recorded after the other slot is confirmed.
    assert_eq!(mark_confirmed(&with_tries(state, 2), A).failed, Some(release(6).id()));
}

#[test]
fn rollback_of_a_trial_returns_to_the_good_slot() {
    let state = start_trial(&BootState::with_good(A), B, &release(6), NOW);
    let expected = BootState { failed: Some(release(6).id()), ..BootState::with_good(A) };
    let rollback =
        |state: &BootState, running| roll_back(state, running, &slots(5, 6), NOW).unwrap();
    // The slot on trial runs: it is abandoned, and the next boot returns to the good slot.
    let running = with_tries(state.clone(), 2);
    let Rollback::Reboot(abandoned, A) = rollback(&running, B) else {
        panic!("expected a reboot into slot a")
    };
    assert!(is_abandoned(&abandoned, B) && is_on_trial(&abandoned, B));
    assert_eq!(expire_trial(&abandoned, Some(A)), expected);
    assert_eq!(abandoned.trial.unwrap().tries, 0);
    // The slot on trial was not booted yet.
    assert_eq!(rollback(&state, A), Rollback::Stay(expected));
    // If slot a is lost, the host can neither return to it nor stay with it.
    let lost = Slots { a: Content::Empty, ..slots(5, 6) };
    for (state, running) in [(with_tries(state.clone(), 2), B), (state, A)] {
        let error = roll_back(&state, running, &lost, NOW).unwrap_err().to_string();
        assert!(error.contains("slot a is empty"), "{error}");
    }
}

#[test]
fn rejects_a_rollback_to_an_unusable_release() {
    let settled = BootState::with_good(A);
    let error =
        |state: &BootState, slots: &Slots| roll_back(state, A, slots, NOW).unwrap_err().to_string();
    let empty = Slots { b: Content::Empty, ..slots(5, 6) };
    assert!(error(&settled, &empty).contains("slot b is empty"));
    let damaged = Content::Damaged { manifest: None, problem: "vmlinuz is missing".into() };
    let damaged = Slots { b: damaged, ..slots(5, 6) };
    assert!(error(&settled, &damaged).contains("vmlinuz is missing"));
    assert!(error(&settled, &slots(5, 5)).contains("both slots hold 13.5"));
    let failed = BootState { failed: Some(release(6).id()), ..settled };
    assert!(error(&failed, &slots(5, 6)).contains("13.6 in slot b failed"));
}
