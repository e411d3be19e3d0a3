//! User data of a machine. The line `#etchaos` makes every text a configuration, base64 of a configuration
//! is the same one, and no reason shows a part of the data.

#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use updater::config::{Fragment, UserData};

/// The text that represents a secret in the corpus.
const SECRET: &str = "SECRET";
/// The maximum size of what data contains: the limit of user data and one byte more, and a half more, because
/// UTF-8 takes three bytes for some characters of two bytes in UTF-16.
const SIZE_MAX: usize = ((1 << 20) + 1) * 3 / 2;

fuzz_target!(|data: &[u8]| {
    let found = UserData::classify(data);
    match &found {
        UserData::Config(text) => {
            assert!(text.len() <= SIZE_MAX);
            let _ = Fragment::from_json(text);
        }
        UserData::Broken { reason, text } => {
            assert!(text.len() <= SIZE_MAX);
            assert!(!reason.contains(SECRET), "{reason}");
        }
        UserData::Foreign(reason) => assert!(!reason.contains(SECRET), "{reason}"),
    }
    // Foreign, if there are too many encodings around it, or if it is not text.
    match (UserData::classify(STANDARD.encode(data).as_bytes()), found) {
        (UserData::Foreign(_), _) => {}
        (encoded, found) => assert_eq!(encoded, found),
    }
    let headed = [b"#etchaos\n", data].concat();
    assert_eq!(UserData::classify(&headed), UserData::Config(data.trim_ascii().to_vec()));
});
