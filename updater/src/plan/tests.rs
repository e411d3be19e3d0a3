use proptest::prelude::*;
use protocol::grubenv::BootId;
use protocol::release::SCHEMA;
use protocol::{Arch, Artifact, Role};

use super::*;
use crate::trial::{abandon, expire_trial, promote};

/// A release whose bytes are a function of `content`.
pub(crate) fn release(build: u64, content: u8) -> Release {
    let artifact = |role: Role| Artifact {
        role,
        name: format!("etchaos_deb_amd64.{}", role.extension()),
        size: 1,
        sha256: format!("{content:02x}").repeat(32),
        url: "x".into(),
    };
    Release {
        schema: SCHEMA,
        variant: "deb".parse().unwrap(),
        arch: Arch::Amd64,
        version: format!("13.{content}"),
        build,
        epoch: 1_000_000 + u64::from(content),
        kernel: "6.12".into(),
        recipe: "ab".repeat(32),
        artifacts: Role::BOOT.map(artifact).to_vec(),
        packages: Vec::new(),
        bootloader: Vec::new(),
    }
}

fn complete(n: u8) -> Content {
    Content::Complete(release(n.into(), n))
}

fn damaged(n: Option<u8>) -> Content {
    Content::Damaged { release: n.map(|n| release(n.into(), n)), problem: "gone".into() }
}

fn partial(n: u8) -> Content {
    Content::Partial { release: release(n.into(), n), bytes: 1 }
}

fn trial(good: Slot, slot: Slot, tries: u8) -> BootState {
    let release = Some(release(0, 99).id());
    let trial = Trial { slot, tries, release, since: Some(THEN) };
    BootState { trial: Some(trial), ..BootState::with_good(good) }
}

/// The release of this content is known to have failed.
fn failed(good: Slot, content: u8) -> BootState {
    BootState { failed: Some(release(0, content).id()), ..BootState::with_good(good) }
}

/// The other slot runs this, on trial, and was rolled back.
fn left(good: Slot, content: u8) -> BootState {
    abandon(&failed(good, content), good.other(), Some(THEN))
}

/// The boot in which trials begin.
const THEN: BootId = BootId(1);

const A: Slot = Slot::A;
const B: Slot = Slot::B;

/// As GRUB booted it: by this state.
fn booted(slot: Option<Slot>, state: &BootState, id: Option<BootId>) -> Booted {
    let counted = state.trial.filter(|trial| trial.slot != state.good && trial.tries < TRIES);
    let is_on_trial = |slot| counted.is_some_and(|trial| trial.slot == slot);
    Booted { slot, on_trial: slot.is_some_and(is_on_trial), id }
}

/// Running slot, grubenv, slot a, slot b, candidate → step.
#[test]
fn the_table() {
    use Content::Empty;
    let settled = BootState::with_good;
    let rows = [
        // The ordinary way.
        ("same", Some(A), settled(A), complete(5), Empty, 5, Step::UpToDate),
        ("newer", Some(A), settled(A), complete(5), Empty, 6, Step::Install(B)),
        ("newer, from b", Some(B), settled(B), complete(4), complete(5), 6, Step::Install(A)),
        ("over an old one", Some(A), settled(A), complete(5), complete(4), 6, Step::Install(B)),
        ("installed", Some(A), trial(A, B, 3), complete(5), complete(6), 6, Step::Pending(B)),
        ("not yet pointed to", Some(A), settled(A), complete(5), complete(6), 6, Step::Activate(B)),
        ("newer still", Some(A), trial(A, B, 3), complete(5), complete(6), 7, Step::Install(B)),
        (
            "trial damaged",
            Some(A),
            trial(A, B, 3),
            complete(5),
            damaged(Some(6)),
            6,
            Step::Install(B),
        ),
        // On trial.
        (
            "on trial, newer",
            Some(B),
            trial(A, B, 2),
            complete(5),
            complete(6),
            7,
            Step::Unconfirmed { running: B, good: A },
        ),
        ("on trial, same", Some(B), trial(A, B, 2), complete(5), complete(6), 6, Step::UpToDate),
        ("last try runs", Some(B), trial(A, B, 0), complete(5), complete(6), 6, Step::UpToDate),
        (
            "on trial, own files gone",
            Some(B),
            trial(A, B, 2),
            complete(5),
            damaged(Some(6)),
            6,
            Step::Unconfirmed { running: B, good: A },
        ),
        (
            "b booted because a did not load",
            Some(B),
            settled(A),
            damaged(Some(5)),
            complete(4),
            5,
            Step::Install(A),
        ),
        (
            "GRUB could not count",
            Some(B),
            trial(A, B, 3),
            complete(5),
            complete(6),
            7,
            Step::Install(B),
        ),
        ("and a has the same", Some(B), settled(A), complete(5), complete(4), 5, Step::Return(A)),
        ("or an older one", Some(B), settled(A), complete(5), complete(6), 7, Step::Return(A)),
        (
            "and both are lost",
            Some(B),
            settled(A),
            damaged(None),
            damaged(None),
            5,
            Step::Install(A),
        ),
        // Rolled back.
        ("from a trial", Some(B), left(A, 6), complete(5), complete(6), 6, Step::Return(A)),
        ("and a newer one", Some(B), left(A, 6), complete(5), complete(6), 7, Step::Return(A)),
        ("failed", Some(A), failed(A, 6), complete(5), complete(6), 6, Step::FailedBefore),
        (
            "failed, damaged",
            Some(A),
            failed(A, 6),
            complete(5),
            damaged(Some(6)),
            6,
            Step::FailedBefore,
        ),
        (
            "failed, then a newer one",
            Some(A),
            failed(A, 6),
            complete(5),
            complete(6),
            7,
            Step::Install(B),
        ),
        (
            "failed, then withdrawn",
            Some(A),
            failed(A, 6),
            complete(5),
            complete(6),
            5,
            Step::UpToDate,
        ),
        (
            "failed, withdrawn and damaged",
            Some(A),
            failed(A, 6),
            complete(5),
            damaged(Some(6)),
            5,
            Step::Repair(B),
        ),
        (
            "failed, and something newer was half written since",
            Some(A),
            failed(A, 6),
            complete(5),
            damaged(None),
            6,
            Step::FailedBefore,
        ),
        (
            "withdrawn before it was tried",
            Some(A),
            trial(A, B, 3),
            complete(5),
            complete(6),
            5,
            Step::Withdraw(B),
        ),
        (
            "withdrawn for one that failed",
            Some(A),
            BootState { trial: trial(A, B, 3).trial, ..failed(A, 4) },
            complete(5),
            complete(6),
            4,
            Step::Withdraw(B),
        ),
        (
            "withdrawn for one that is older",
            Some(A),
            trial(A, B, 3),
            complete(5),
            complete(6),
            4,
            Step::Withdraw(B),
        ),
        // Age.
        ("allowed before", Some(A), trial(A, B, 3), complete(5), complete(4), 4, Step::Pending(B)),
        ("another one was", Some(A), trial(A, B, 3), complete(5), complete(3), 4, Step::Downgrade),
        ("older", Some(A), settled(A), complete(5), Empty, 4, Step::Downgrade),
        ("older, own files gone", Some(A), settled(A), damaged(Some(5)), Empty, 4, Step::Downgrade),
        ("older, and b has it", Some(A), settled(A), complete(5), complete(4), 4, Step::Downgrade),
        // Healing.
        ("own files gone", Some(A), settled(A), damaged(Some(5)), Empty, 5, Step::Install(B)),
        ("all of them", Some(A), settled(A), damaged(None), Empty, 5, Step::Install(B)),
        ("an empty slot runs", Some(A), settled(A), Empty, Empty, 5, Step::Install(B)),
        (
            "the other is whole",
            Some(A),
            settled(A),
            damaged(None),
            complete(4),
            5,
            Step::Install(A),
        ),
        ("and is made good", Some(A), settled(B), damaged(None), complete(4), 5, Step::Install(A)),
        ("half written again", Some(A), settled(B), partial(5), complete(4), 5, Step::Install(A)),
        ("and whole", Some(A), settled(B), complete(5), complete(4), 5, Step::Return(B)),
        ("and to be tried", Some(A), trial(B, A, 3), complete(5), complete(4), 5, Step::Pending(A)),
        ("and overtaken", Some(A), trial(B, A, 3), complete(5), complete(4), 6, Step::Install(A)),
        (
            "what is whole is tried",
            Some(A),
            trial(A, B, 3),
            damaged(None),
            complete(4),
            5,
            Step::Pending(B),
        ),
        (
            "the other is whole, and bad",
            Some(A),
            failed(A, 6),
            damaged(Some(5)),
            complete(6),
            7,
            Step::Install(B),
        ),
        (
            "healed, not booted",
            Some(A),
            trial(A, B, 3),
            damaged(Some(5)),
            complete(5),
            5,
            Step::Pending(B),
        ),
        (
            "healed, confirmed",
            Some(B),
            settled(B),
            damaged(Some(5)),
            complete(5),
            5,
            Step::Repair(A),
        ),
        ("a beginning of it", Some(A), settled(A), complete(5), partial(6), 6, Step::Install(B)),
        ("of an older one", Some(A), settled(A), complete(5), partial(6), 7, Step::Install(B)),
        ("on trial before", Some(A), trial(A, B, 3), complete(5), partial(6), 6, Step::Install(B)),
        ("of one withdrawn", Some(A), settled(A), complete(5), partial(6), 5, Step::Repair(B)),
        ("of what runs", Some(A), settled(A), complete(5), partial(5), 5, Step::Repair(B)),
        ("half written", Some(A), settled(A), complete(5), damaged(None), 5, Step::Repair(B)),
        (
            "half written, newer",
            Some(A),
            settled(A),
            complete(5),
            damaged(None),
            6,
            Step::Install(B),
        ),
        (
            "failed, then wiped",
            Some(A),
            failed(A, 6),
            complete(5),
            damaged(None),
            5,
            Step::Repair(B),
        ),
        // A plain directory.
        ("directory, newer", None, settled(A), complete(5), Empty, 6, Step::Install(B)),
        ("directory, same", None, settled(B), Empty, complete(5), 5, Step::UpToDate),
        (
            "directory, on trial",
            None,
            trial(A, B, 3),
            complete(5),
            complete(6),
            6,
            Step::Pending(B),
        ),
        // Nonsense: the good slot on trial is not on trial.
        ("good on trial", Some(A), trial(A, A, 0), complete(5), Empty, 6, Step::Install(B)),
    ];
    for (name, running, state, a, b, candidate, expected) in rows {
        let (slots, candidate) = (Slots { a, b }, release(candidate, candidate as u8));
        let (allow, booted) = (Permissions::default(), booted(running, &state, Some(THEN)));
        let state = &promote(&state, booted, &slots, true);
        let facts = Facts { booted, state, slots: &slots, candidate: &candidate, allow };
        assert_eq!(next(&facts), expected, "{name}");
    }
}

#[test]
fn the_operator_may_allow_more() {
    let slots = Slots { a: complete(5), b: complete(6) };
    let step = |candidate: u8, state: BootState, allow| {
        let (candidate, state) = (release(candidate.into(), candidate), &state);
        let booted = booted(Some(A), state, Some(THEN));
        next(&Facts { booted, state, slots: &slots, candidate: &candidate, allow })
    };
    let downgrade = Permissions { downgrade: true, ..Permissions::default() };
    let retry = Permissions { retry_failed: true, ..Permissions::default() };
    assert_eq!(step(4, BootState::with_good(A), downgrade), Step::Install(B));
    assert_eq!(step(4, BootState::with_good(A), retry), Step::Downgrade);
    assert_eq!(step(6, failed(A, 6), retry), Step::Activate(B));
    assert_eq!(step(6, failed(A, 6), downgrade), Step::FailedBefore);
}

#[test]
fn what_alone_is_whole_and_was_never_confirmed_is_tried() {
    let slots = Slots { a: damaged(Some(5)), b: complete(6) };
    let step = |state: BootState, candidate: u8| {
        let booted = Booted { slot: Some(A), on_trial: false, id: Some(THEN) };
        let state = &promote(&state, booted, &slots, false);
        let (candidate, allow) = (release(candidate.into(), candidate), Permissions::default());
        next(&Facts { booted, state, slots: &slots, candidate: &candidate, allow })
    };
    assert_eq!(step(BootState::with_good(A), 7), Step::Activate(B));
    assert_eq!(step(trial(A, B, 3), 7), Step::Pending(B));
    assert_eq!(step(failed(A, 6), 7), Step::Install(B));
}

#[test]
fn what_grub_did_not_try_is_not_rebooted_into_again_and_again() {
    let slots = Slots { a: complete(5), b: complete(6) };
    let of = |running, tries, boot: Option<u32>, retry_failed| {
        let (candidate, state) = (release(6, 6), &trial(A, B, tries));
        let allow = Permissions { retry_failed, ..Permissions::default() };
        let booted = Booted { slot: running, ..booted(Some(A), state, boot.map(BootId)) };
        next(&Facts { booted, state, slots: &slots, candidate: &candidate, allow })
    };
    let step = |tries, boot, retry_failed| of(Some(A), tries, boot, retry_failed);
    // From a rescue system nothing is known of boots.
    assert_eq!(of(None, 3, Some(2), false), Step::Pending(B));
    assert_eq!(step(3, Some(THEN.0), false), Step::Pending(B));
    assert_eq!(step(3, Some(2), false), Step::NotTried(B));
    assert_eq!(step(3, Some(2), true), Step::Pending(B));
    // A try was counted, and GRUB came back to a: the files did not load. That ends after three.
    assert_eq!(step(2, Some(2), false), Step::Pending(B));
    assert_eq!(step(3, None, false), Step::Pending(B));
}

#[test]
fn another_variant_is_neither_older_nor_newer() {
    let slots = Slots { a: complete(5), b: Content::Empty };
    let candidate = Release { variant: "ubu".parse().unwrap(), ..release(1, 1) };
    let (state, allow) = (&BootState::with_good(A), Permissions::default());
    let booted = booted(Some(A), state, Some(THEN));
    let facts = Facts { booted, state, slots: &slots, candidate: &candidate, allow };
    assert_eq!(next(&facts), Step::Install(B));
}

#[test]
fn the_same_bytes_under_an_older_number_are_no_downgrade() {
    let slots = Slots { a: damaged(Some(5)), b: Content::Empty };
    let candidate = release(4, 5);
    let facts = Facts {
        booted: Booted { slot: Some(A), on_trial: false, id: Some(THEN) },
        state: &BootState::with_good(A),
        slots: &slots,
        candidate: &candidate,
        allow: Permissions::default(),
    };
    assert_eq!(next(&facts), Step::Install(B));
}

fn any_slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(A), Just(B)]
}

fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Empty),
        (0u8..4).prop_map(complete),
        (0u8..4).prop_map(partial),
        proptest::option::of(0u8..4).prop_map(damaged),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_good_slot_and_what_is_whole_are_never_touched(
        running in proptest::option::of(any_slot()),
        on_trial: bool,
        has_confirmed_mark: bool,
        good in any_slot(),
        tried in proptest::option::of((any_slot(), 0u8..=3)),
        was_failed in proptest::option::of(0u8..4),
        boot in 1u32..3,
        (a, b) in (any_content(), any_content()),
        candidate in 0u8..4,
        downgrade: bool,
        retry_failed: bool,
    ) {
        let state = match tried {
            Some((slot, tries)) => trial(good, slot, tries),
            None => BootState::with_good(good),
        };
        let state = BootState { failed: was_failed.map(|n| release(0, n).id()), ..state };
        let booted = Booted { slot: running, on_trial, id: Some(BootId(boot)) };
        let (slots, candidate) = (Slots { a, b }, release(candidate.into(), candidate));
        let state = &promote(&expire_trial(&state, running), booted, &slots, has_confirmed_mark);
        let good = state.good;
        let allow = Permissions { downgrade, retry_failed };
        let facts = Facts { booted, state, slots: &slots, candidate: &candidate, allow };
        let step = next(&facts);
        if let Some(slot) = step.writes() {
            prop_assert_ne!(slot, good);
            // What is whole is only written over if what is good is whole, too, or if it is bad.
            let release = slots.get(slot).release().filter(|_| slots.get(slot).is_complete());
            let is_bad = release.is_some_and(|release| state.failed == Some(release.id()));
            prop_assert!(slots.get(good).is_complete() || release.is_none() || is_bad);
            if Some(slot) == running {
                prop_assert!(!on_trial && slots.get(good).is_complete());
                // Or it is not what runs any more.
                let since = state.trial.and_then(|trial| trial.since);
                prop_assert!(release.is_none() || since == booted.id);
            }
        }
        if let Step::Install(slot) | Step::Activate(slot) = step {
            prop_assert_ne!(slot, good);
            prop_assert!(running.is_none_or(|running| running == good) || slots.get(good).is_complete());
        }
        if let Step::Return(slot) = step {
            prop_assert!(slot == good && slots.get(good).is_complete() && running == Some(good.other()));
        }
        if let Step::Activate(slot) | Step::Pending(slot) = step {
            // Or the operator goes back to what is there; or it alone is whole.
            let is_bad = slots.get(good).release().is_some_and(|r| state.failed == Some(r.id()));
            let back = is_bad || !slots.get(good).is_complete();
            let held = slots.get(slot);
            prop_assert!(held.holds(candidate.id()) || back && held.is_complete());
        }
    }
}
