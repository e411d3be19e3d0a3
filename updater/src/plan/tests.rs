use proptest::prelude::*;
use protocol::grubenv::BootId;
use protocol::release::SCHEMA;
use protocol::{Arch, Artifact, Claims, Release, Role};

use super::*;
use crate::trial::{abandon, expire_trial, promote};

/// Returns a release whose files are a function of `content`.
pub(crate) fn release(build: u64, content: u8) -> Release {
    let artifact = |role: Role| Artifact {
        role,
        name: format!("etchaos_deb_amd64.{}", role.extension()),
        size: 1,
        sha256: format!("{content:02x}").repeat(32),
        url: "x".into(),
        deltas: Vec::new(),
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
        documents: Vec::new(),
        secure_boot: true,
        toolchain: std::collections::BTreeMap::new(),
    }
}

/// Returns the manifest of [`release`]. It was signed after all packages were made, or is that of a disk
/// image if the build is 0.
pub(crate) fn manifest(build: u64, content: u8) -> Manifest {
    let iat = (build > 0).then_some(2_000_000 + build);
    Manifest { release: release(build, content), claims: Claims { iat, ..Claims::default() } }
}

fn complete(n: u8) -> Content {
    Content::Complete(manifest(n.into(), n))
}

fn damaged(n: Option<u8>) -> Content {
    Content::Damaged {
        manifest: n.map(|n| manifest(n.into(), n)),
        problem: "vmlinuz is missing".into(),
    }
}

fn partial(n: u8) -> Content {
    Content::Partial { release: release(n.into(), n), bytes: 1 }
}

pub(super) fn trial(good: Slot, slot: Slot, tries: u8) -> BootState {
    let release = Some(release(0, 99).id());
    let trial = Trial { slot, tries, release, since: Some(TRIAL_BOOT) };
    BootState { trial: Some(trial), ..BootState::with_good(good) }
}

/// Returns a state in which the release with this content is known to have failed.
fn failed(good: Slot, content: u8) -> BootState {
    BootState { failed: Some(release(0, content).id()), ..BootState::with_good(good) }
}

/// Returns a state in which this release was on trial in the other slot and was rolled back.
fn rolled_back(good: Slot, content: u8) -> BootState {
    abandon(&failed(good, content), good.other(), Some(TRIAL_BOOT))
}

/// The boot in which trials are started.
pub(super) const TRIAL_BOOT: BootId = BootId(1);

const A: Slot = Slot::A;
const B: Slot = Slot::B;

/// Returns how GRUB boots a slot in this state.
pub(super) fn booted(slot: Option<Slot>, state: &BootState, id: Option<BootId>) -> Booted {
    let counted = state.trial.filter(|trial| trial.slot != state.good && trial.tries < TRIES);
    let is_on_trial = |slot| counted.is_some_and(|trial| trial.slot == slot);
    Booted { slot, on_trial: slot.is_some_and(is_on_trial), id }
}

/// Each row: name, running slot, boot state, slot a, slot b, candidate, expected step.
#[test]
fn chooses_the_step_for_each_state() {
    use Content::Empty;
    let stable = BootState::with_good;
    // One row per line.
    #[rustfmt::skip]
    let rows = [
        // Updates of a host that runs its good slot.
        ("same release", Some(A), stable(A), complete(5), Empty, 5, Step::UpToDate),
        ("newer release", Some(A), stable(A), complete(5), Empty, 6, Step::Install(B)),
        ("newer release, b runs", Some(B), stable(B), complete(4), complete(5), 6, Step::Install(A)),
        ("newer release, b holds an older one", Some(A), stable(A), complete(5), complete(4), 6, Step::Install(B)),
        ("installed, not booted yet", Some(A), trial(A, B, 3), complete(5), complete(6), 6, Step::Pending(B)),
        ("installed, trial not started", Some(A), stable(A), complete(5), complete(6), 6, Step::Activate(B)),
        ("newer than the release on trial", Some(A), trial(A, B, 3), complete(5), complete(6), 7, Step::Install(B)),
        ("slot on trial is damaged", Some(A), trial(A, B, 3), complete(5), damaged(Some(6)), 6, Step::Install(B)),
        // The other slot runs.
        ("trial runs, newer release", Some(B), trial(A, B, 2), complete(5), complete(6), 7, Step::Unconfirmed { running: B, good: A }),
        ("trial runs, same release", Some(B), trial(A, B, 2), complete(5), complete(6), 6, Step::UpToDate),
        ("last try runs, same release", Some(B), trial(A, B, 0), complete(5), complete(6), 6, Step::UpToDate),
        ("trial runs, its slot is damaged", Some(B), trial(A, B, 2), complete(5), damaged(Some(6)), 6, Step::Unconfirmed { running: B, good: A }),
        ("b runs because a is damaged", Some(B), stable(A), damaged(Some(5)), complete(4), 5, Step::Install(A)),
        ("b runs because GRUB could not count the try", Some(B), trial(A, B, 3), complete(5), complete(6), 7, Step::Install(B)),
        ("b runs, a holds the candidate", Some(B), stable(A), complete(5), complete(4), 5, Step::Return(A)),
        ("b runs, a holds an older release", Some(B), stable(A), complete(5), complete(6), 7, Step::Return(A)),
        ("b runs, both slots are damaged", Some(B), stable(A), damaged(None), damaged(None), 5, Step::Install(A)),
        // Rolled back, failed or withdrawn.
        ("rolled back, still runs", Some(B), rolled_back(A, 6), complete(5), complete(6), 6, Step::Return(A)),
        ("rolled back, still runs, newer release", Some(B), rolled_back(A, 6), complete(5), complete(6), 7, Step::Return(A)),
        ("candidate failed", Some(A), failed(A, 6), complete(5), complete(6), 6, Step::FailedBefore),
        ("candidate failed, its slot is damaged", Some(A), failed(A, 6), complete(5), damaged(Some(6)), 6, Step::FailedBefore),
        ("newer than the failed release", Some(A), failed(A, 6), complete(5), complete(6), 7, Step::Install(B)),
        ("failed release withdrawn", Some(A), failed(A, 6), complete(5), complete(6), 5, Step::UpToDate),
        ("failed release withdrawn, its slot is damaged", Some(A), failed(A, 6), complete(5), damaged(Some(6)), 5, Step::Repair(B)),
        ("candidate failed, spare slot is damaged", Some(A), failed(A, 6), complete(5), damaged(None), 6, Step::FailedBefore),
        ("release on trial withdrawn before it was booted", Some(A), trial(A, B, 3), complete(5), complete(6), 5, Step::Withdraw(B)),
        ("release on trial withdrawn, candidate failed", Some(A), BootState { trial: trial(A, B, 3).trial, ..failed(A, 4) }, complete(5), complete(6), 4, Step::Withdraw(B)),
        ("release on trial withdrawn, candidate is older", Some(A), trial(A, B, 3), complete(5), complete(6), 4, Step::Withdraw(B)),
        // Downgrades.
        ("older release is on trial already", Some(A), trial(A, B, 3), complete(5), complete(4), 4, Step::Pending(B)),
        ("another older release is on trial", Some(A), trial(A, B, 3), complete(5), complete(3), 4, Step::Downgrade),
        ("older release", Some(A), stable(A), complete(5), Empty, 4, Step::Downgrade),
        ("older release, good slot is damaged", Some(A), stable(A), damaged(Some(5)), Empty, 4, Step::Downgrade),
        ("older release, b holds it", Some(A), stable(A), complete(5), complete(4), 4, Step::Downgrade),
        // Repairs.
        ("good slot is damaged", Some(A), stable(A), damaged(Some(5)), Empty, 5, Step::Install(B)),
        ("good slot is damaged, release unknown", Some(A), stable(A), damaged(None), Empty, 5, Step::Install(B)),
        ("good slot is empty", Some(A), stable(A), Empty, Empty, 5, Step::Install(B)),
        ("good slot is damaged, b is complete", Some(A), stable(A), damaged(None), complete(4), 5, Step::Install(A)),
        ("b was promoted, a is damaged", Some(A), stable(B), damaged(None), complete(4), 5, Step::Install(A)),
        ("b was promoted, a is partial", Some(A), stable(B), partial(5), complete(4), 5, Step::Install(A)),
        ("b was promoted, a is rewritten", Some(A), stable(B), complete(5), complete(4), 5, Step::Return(B)),
        ("b was promoted, a is on trial", Some(A), trial(B, A, 3), complete(5), complete(4), 5, Step::Pending(A)),
        ("b was promoted, newer than the trial of a", Some(A), trial(B, A, 3), complete(5), complete(4), 6, Step::Install(A)),
        ("only the slot on trial is complete", Some(A), trial(A, B, 3), damaged(None), complete(4), 5, Step::Pending(B)),
        ("only the failed release is complete", Some(A), failed(A, 6), damaged(Some(5)), complete(6), 7, Step::Install(B)),
        ("installed beside a damaged good slot", Some(A), trial(A, B, 3), damaged(Some(5)), complete(5), 5, Step::Pending(B)),
        ("spare slot is damaged after confirmation", Some(B), stable(B), damaged(Some(5)), complete(5), 5, Step::Repair(A)),
        ("partial download of the candidate", Some(A), stable(A), complete(5), partial(6), 6, Step::Install(B)),
        ("partial download of an older release", Some(A), stable(A), complete(5), partial(6), 7, Step::Install(B)),
        ("partial download in the slot on trial", Some(A), trial(A, B, 3), complete(5), partial(6), 6, Step::Install(B)),
        ("partial download of a withdrawn release", Some(A), stable(A), complete(5), partial(6), 5, Step::Repair(B)),
        ("partial download of the good release", Some(A), stable(A), complete(5), partial(5), 5, Step::Repair(B)),
        ("spare slot is damaged", Some(A), stable(A), complete(5), damaged(None), 5, Step::Repair(B)),
        ("spare slot is damaged, newer release", Some(A), stable(A), complete(5), damaged(None), 6, Step::Install(B)),
        ("failed release withdrawn, its manifest is damaged", Some(A), failed(A, 6), complete(5), damaged(None), 5, Step::Repair(B)),
        // The host was not booted from this ESP.
        ("not booted, newer release", None, stable(A), complete(5), Empty, 6, Step::Install(B)),
        ("not booted, same release", None, stable(B), Empty, complete(5), 5, Step::UpToDate),
        ("not booted, on trial", None, trial(A, B, 3), complete(5), complete(6), 6, Step::Pending(B)),
        // An inconsistent grubenv: a trial of the good slot is ignored.
        ("good slot is on trial", Some(A), trial(A, A, 0), complete(5), Empty, 6, Step::Install(B)),
    ];
    for (name, running, state, a, b, candidate, expected) in rows {
        let (slots, candidate) = (Slots { a, b }, manifest(candidate, candidate as u8));
        let (allow, booted) = (Permissions::default(), booted(running, &state, Some(TRIAL_BOOT)));
        let state = &promote(&state, booted, &slots, true);
        let facts = Facts { booted, state, slots: &slots, candidate: &candidate, allow };
        assert_eq!(next(&facts), expected, "{name}");
    }
}

#[test]
fn permissions_allow_downgrades_and_retries() {
    let slots = Slots { a: complete(5), b: complete(6) };
    let step = |candidate: u8, state: BootState, allow| {
        let (candidate, state) = (manifest(candidate.into(), candidate), &state);
        let booted = booted(Some(A), state, Some(TRIAL_BOOT));
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
fn tries_the_only_complete_slot() {
    let slots = Slots { a: damaged(Some(5)), b: complete(6) };
    let step = |state: BootState, candidate: u8| {
        let booted = Booted { slot: Some(A), on_trial: false, id: Some(TRIAL_BOOT) };
        let state = &promote(&state, booted, &slots, false);
        let (candidate, allow) = (manifest(candidate.into(), candidate), Permissions::default());
        next(&Facts { booted, state, slots: &slots, candidate: &candidate, allow })
    };
    assert_eq!(step(BootState::with_good(A), 7), Step::Activate(B));
    assert_eq!(step(trial(A, B, 3), 7), Step::Pending(B));
    assert_eq!(step(failed(A, 6), 7), Step::Install(B));
}

#[test]
fn does_not_reboot_again_if_grub_counts_no_try() {
    let slots = Slots { a: complete(5), b: complete(6) };
    let step_of = |running, tries, boot: Option<u32>, retry_failed| {
        let (candidate, state) = (manifest(6, 6), &trial(A, B, tries));
        let allow = Permissions { retry_failed, ..Permissions::default() };
        let booted = Booted { slot: running, ..booted(Some(A), state, boot.map(BootId)) };
        next(&Facts { booted, state, slots: &slots, candidate: &candidate, allow })
    };
    let step = |tries, boot, retry_failed| step_of(Some(A), tries, boot, retry_failed);
    // A rescue system does not know how the host was booted.
    assert_eq!(step_of(None, 3, Some(2), false), Step::Pending(B));
    assert_eq!(step(3, Some(TRIAL_BOOT.0), false), Step::Pending(B));
    assert_eq!(step(3, Some(2), false), Step::NotTried(B));
    assert_eq!(step(3, Some(2), true), Step::Pending(B));
    // A try was counted and a runs, so the files of b did not load. This ends after three tries.
    assert_eq!(step(2, Some(2), false), Step::Pending(B));
    assert_eq!(step(3, None, false), Step::Pending(B));
}

#[test]
fn does_not_compare_builds_of_different_variants() {
    let slots = Slots { a: complete(5), b: Content::Empty };
    let mut candidate = manifest(1, 1);
    candidate.release.variant = "ubu".parse().unwrap();
    let (state, allow) = (&BootState::with_good(A), Permissions::default());
    let booted = booted(Some(A), state, Some(TRIAL_BOOT));
    let facts = Facts { booted, state, slots: &slots, candidate: &candidate, allow };
    assert_eq!(next(&facts), Step::Install(B));
}

#[test]
fn same_content_with_older_build_is_no_downgrade() {
    let slots = Slots { a: damaged(Some(5)), b: Content::Empty };
    let candidate = manifest(4, 5);
    let facts = Facts {
        booted: Booted { slot: Some(A), on_trial: false, id: Some(TRIAL_BOOT) },
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
    fn never_writes_the_good_slot_or_the_only_complete_one(
        running in proptest::option::of(any_slot()),
        on_trial: bool,
        has_confirmed_mark: bool,
        good in any_slot(),
        on_trial_slot in proptest::option::of((any_slot(), 0u8..=3)),
        failed_content in proptest::option::of(0u8..4),
        boot in 1u32..3,
        (a, b) in (any_content(), any_content()),
        candidate in 0u8..4,
        downgrade: bool,
        retry_failed: bool,
    ) {
        let state = match on_trial_slot {
            Some((slot, tries)) => trial(good, slot, tries),
            None => BootState::with_good(good),
        };
        let state = BootState { failed: failed_content.map(|n| release(0, n).id()), ..state };
        let booted = Booted { slot: running, on_trial, id: Some(BootId(boot)) };
        let (slots, candidate) = (Slots { a, b }, manifest(candidate.into(), candidate));
        let state = &promote(&expire_trial(&state, running), booted, &slots, has_confirmed_mark);
        let good = state.good;
        let allow = Permissions { downgrade, retry_failed };
        let facts = Facts { booted, state, slots: &slots, candidate: &candidate, allow };
        let step = next(&facts);
        if let Some(slot) = step.writes() {
            prop_assert_ne!(slot, good);
            // A complete slot is written only if the good slot is complete as well, or if its release failed.
            let release = slots.get(slot).release().filter(|_| slots.get(slot).is_complete());
            let is_bad = release.is_some_and(|release| state.failed == Some(release.id()));
            prop_assert!(slots.get(good).is_complete() || release.is_none() || is_bad);
            if Some(slot) == running {
                prop_assert!(!on_trial && slots.get(good).is_complete());
                // The running slot is written if it is damaged, or was rewritten in this boot.
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
            // The slot holds the candidate, or the good slot is damaged or holds a failed release.
            let is_bad = slots.get(good).release().is_some_and(|r| state.failed == Some(r.id()));
            let is_good_lost = is_bad || !slots.get(good).is_complete();
            let held = slots.get(slot);
            prop_assert!(held.holds(candidate.release.id()) || is_good_lost && held.is_complete());
        }
    }
}
