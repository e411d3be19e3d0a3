//! Manifests. The input is the claims, which the target signs. In every accepted manifest, names are
//! safe as file names, and URLs are below the directory of the manifest or have an allowed origin.

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
    release.validate().expect("a manifest has a valid release");
    assert_eq!(release.boot_artifacts().count(), Role::BOOT.len());
    for artifact in &release.artifacts {
        let name = artifact.name.as_bytes();
        assert!(
            !name.is_empty() && name[0] != b'.' && !name.iter().any(|b| b"/\\\0\n ".contains(b))
        );
        assert!(artifact.size > 0);
        let allowed = [ALLOWED.to_owned()];
        if let Ok(url) = artifact_url(&format!("{DIRECTORY}x.jwt"), &artifact.url, &allowed) {
            assert_allowed(&url, &artifact.url);
        }
    }
    let times = [0, 1, 1_700_000_000, 1_800_000_000, u64::MAX];
    let valid: Vec<bool> = times.iter().map(|now| manifest.check_time(*now).is_ok()).collect();
    // A manifest is valid during one continuous period.
    assert!(valid.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 2);
    assert!(is_same_release(release, release) && differences(release, release).is_empty());
    assert!(!manifest.is_older_than(&manifest));

    // The variables are removed because fractions in them may change in the last digit.
    let mut manifest = manifest.into_inner();
    manifest.claims.etcha_run_vars.clear();
    let token = sign(&SIGNER, &manifest.claims).expect("claims that were read can be signed");
    let again = verify(&token, &RING).expect("the new token verifies");
    assert_eq!(
        Verified::<Manifest>::try_from(again)
            .expect("the claims are those of a manifest")
            .into_inner(),
        manifest
    );
});

/// Checks the URL that `artifact_url` made of `signed`, the URL in the manifest.
fn assert_allowed(url: &str, signed: &str) {
    let origin = origin(url).expect("an accepted URL has an origin");
    assert!(["https://cdn.example", ALLOWED].contains(&origin), "{url}");
    assert!(url.bytes().all(|byte| byte.is_ascii_graphic()), "{url:?}");
    // A relative URL must not leave the directory. An absolute URL keeps the path that was signed.
    if signed.contains("://") {
        assert!(signed.ends_with(&url[origin.len()..]), "{url} {signed}");
    } else {
        let path = url.strip_prefix(DIRECTORY).expect("a relative URL is below the directory");
        assert!(path.split('/').all(|part| part != ".."), "{url}");
    }
}
