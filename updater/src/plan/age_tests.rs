use protocol::Release;
use protocol::esp::Slot::{A, B};

use super::tests::{TRIAL_BOOT, booted, manifest, trial};
use super::*;

/// The epoch of the disk image.
const EPOCH: u64 = 1_000_000;

/// Returns the manifest inside a disk image.
fn image() -> Manifest {
    let mut image = manifest(0, 5);
    image.release.epoch = EPOCH;
    image
}

/// Returns a published manifest with this content and time of signing. Its release is without the newest
/// package of the image.
fn published(content: u8, iat: Option<u64>) -> Manifest {
    let mut published = manifest(6, content);
    published.release = Release { epoch: EPOCH - 100, ..published.release };
    published.claims.iat = iat;
    published
}

fn step(state: &BootState, slots: &Slots, candidate: &Manifest, downgrade: bool) -> Step {
    let allow = Permissions { downgrade, ..Permissions::default() };
    let booted = booted(Some(A), state, Some(TRIAL_BOOT));
    next(&Facts { booted, state, slots, candidate, allow })
}

#[test]
fn image_accepts_what_was_signed_after_its_epoch() {
    let slots = Slots { a: Content::Complete(image()), b: Content::Empty };
    let rows = [
        (Some(EPOCH + 1), Step::Install(B)),
        (Some(EPOCH), Step::Install(B)),
        (Some(EPOCH - 1), Step::Downgrade),
        (None, Step::Downgrade),
    ];
    for (iat, expected) in rows {
        let state = &BootState::with_good(A);
        assert_eq!(step(state, &slots, &published(6, iat), false), expected, "{iat:?}");
        assert_eq!(step(state, &slots, &published(6, iat), true), Step::Install(B), "{iat:?}");
        // The release that runs is never a downgrade.
        assert_eq!(step(state, &slots, &published(5, iat), false), Step::UpToDate, "{iat:?}");
    }
}

#[test]
fn image_keeps_only_a_trial_that_the_operator_asked_for() {
    let rejected = published(7, Some(EPOCH - 1));
    let on_trial = |iat| {
        let b = Content::Complete(published(6, Some(iat)));
        let slots = Slots { a: Content::Complete(image()), b };
        step(&trial(A, B, 3), &slots, &rejected, false)
    };
    assert_eq!(on_trial(EPOCH), Step::Withdraw(B));
    assert_eq!(on_trial(EPOCH - 1), Step::Downgrade);
}
