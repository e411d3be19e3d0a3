//! Manifests. The input is the claims, which are signed here. Of what passes, names are safe as file
//! names, and what is fetched is below the manifest's directory, or from an origin that was allowed.

#![no_main]

use fuzz::{RING, SIGNER, with_claims};
use libfuzzer_sys::fuzz_target;
use protocol::compare::{differences, is_same_release};
use protocol::token::{sign, verify};
use protocol::url::{artifact_url, origin};
use protocol::{Manifest, Role, Verified};

const DIRECTORY: &str = "https://cdn.example/os/";
const ALLOWED: &str = "https://mirror.example:8443";

fuzz_target!(|claims: &[u8]| {
    let Ok(verified) = verify(&with_claims(claims), &RING) else { return };
    let Ok(manifest) = Verified::<Manifest>::try_from(verified) else { return };
    let release = &manifest.release;
    release.validate().expect("it was validated");
    assert_eq!(release.boot_artifacts().count(), Role::BOOT.len());
    for artifact in &release.artifacts {
        let name = artifact.name.as_bytes();
        assert!(
            !name.is_empty() && name[0] != b'.' && !name.iter().any(|b| b"/\\\0\n ".contains(b))
        );
        assert!(artifact.size > 0);
        let allowed = [ALLOWED.to_owned()];
        if let Ok(url) = artifact_url(&format!("{DIRECTORY}x.jwt"), &artifact.url, &allowed) {
            stays_at_home(&url);
        }
    }
    let times = [0, 1, 1_700_000_000, 1_800_000_000, u64::MAX];
    let valid: Vec<bool> = times.iter().map(|now| manifest.check_time(*now).is_ok()).collect();
    // From the beginning to the end, and not now and then.
    assert!(valid.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 2);
    assert!(is_same_release(release, release) && differences(release, release).is_empty());
    assert!(!release.is_older_than(release));

    // Without the variables, which may hold fractions: those are read to the last digit but one.
    let mut manifest = manifest.into_inner();
    manifest.claims.etcha_run_vars.clear();
    let token = sign(&SIGNER, &manifest.claims).expect("what was read can be written");
    let again = verify(&token, &RING).expect("and read again");
    assert_eq!(Verified::<Manifest>::try_from(again).expect("it is one").into_inner(), manifest);
});

fn stays_at_home(url: &str) {
    let origin = origin(url).expect("it has an origin");
    assert!(["https://cdn.example", ALLOWED].contains(&origin), "{url}");
    assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url:?}");
    // A relative one has no way up. An absolute one is followed as it was signed.
    if let Some(path) = url.strip_prefix(DIRECTORY) {
        let is_relative = !path.contains(['?', '#', '%']);
        assert!(!is_relative || path.split('/').all(|part| part != ".."), "{url}");
    }
}
