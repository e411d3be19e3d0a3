//! What a host keeps of a source. A record that can be read is the same when it is written and read again, and stays
//! readable after a successor came into force.

#![no_main]

use fuzz::RING;
use libfuzzer_sys::fuzz_target;
use protocol::{digest, token};
use serde_json::{Map, Value};
use updater::sources::{Accepted, FILE_MAX, Kept, PREVIOUS_MAX, Way};

fuzz_target!(|data: &[u8]| {
    // The file as it is, and with the digest of its content.
    let _ = Kept::from_bytes(data);
    let line = format!("{}\n", digest::of_bytes(data));
    let Ok(mut kept) = Kept::from_bytes(&[line.as_bytes(), data].concat()) else { return };
    // serde_json may read another floating-point number than it wrote, by one unit in the last place.
    if serde_json::to_value(&kept).is_ok_and(|json| has_float(&json)) {
        return;
    }
    let bytes = kept.to_bytes();
    assert_eq!(Kept::from_bytes(&bytes).as_ref(), Ok(&kept));
    assert!(Kept::from_bytes(&bytes[..bytes.len() - 1]).is_err());

    let stub = kept.without_content();
    assert!(stub.has_no_content() && stub.newest == kept.newest);
    for accepted in kept.pattern.current.iter().chain(&kept.pattern.previous) {
        let _ = token::verify(&accepted.token, &RING);
    }
    kept.key_ring();
    let (token, vars) = ("x.y.z".to_owned(), Map::new());
    kept.pattern.replace(Some(Accepted { token, from: Way::Push, time: 1, vars }));
    kept.commands.replace(None);
    assert!(kept.pattern.previous.len() <= PREVIOUS_MAX);
    let bytes = kept.to_bytes();
    assert!(bytes.len() as u64 <= FILE_MAX);
    assert_eq!(Kept::from_bytes(&bytes), Ok(kept));
});

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_float),
        Value::Object(map) => map.values().any(has_float),
        _ => false,
    }
}
