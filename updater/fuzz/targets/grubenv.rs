//! GRUB's environment block. A block that can be read can be written, unless it is too long for a
//! sector, and is the same when it is read again. The variables of EtchaOS can be set in any block.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::esp::Slot;
use protocol::grubenv::{Block, BootId, BootState, Newest, SIZE, Trial};

/// The number of bytes that a disk writes atomically.
const SECTOR: usize = 512;
const FIRST_LINE: &[u8] = b"# GRUB Environment Block\n";

fuzz_target!(|data: &[u8]| {
    check(data);
    // Few inputs have the required length and first line, so they are added here.
    let mut block = FIRST_LINE.to_vec();
    block.extend(data.iter().take(SIZE - FIRST_LINE.len()));
    block.resize(SIZE, b'#');
    check(&block);
});

fn check(bytes: &[u8]) {
    let Ok(mut block) = Block::parse(bytes) else { return };
    assert_eq!(bytes.len(), SIZE);
    assert_round_trips(&block);
    if let Ok(state) = BootState::read(&block) {
        state.write(&mut block);
        assert_eq!(BootState::read(&block), Ok(state));
        assert_round_trips(&block);
    }
    let trial = Trial { slot: Slot::B, tries: 3, release: None, since: Some(BootId(u32::MAX)) };
    let target = "deb_amd64".parse().expect("the target is valid");
    for state in [
        BootState::with_good(Slot::B),
        BootState { trial: Some(trial), ..BootState::with_good(Slot::A) },
        BootState {
            newest: Some(Newest { target, build: u64::MAX }),
            ..BootState::with_good(Slot::A)
        },
    ] {
        state.write(&mut block);
        assert_eq!(BootState::read(&block), Ok(state));
        assert_round_trips(&block);
    }
}

fn assert_round_trips(block: &Block) {
    let Ok(bytes) = block.to_bytes() else { return };
    assert!(bytes[SECTOR..].iter().all(|byte| *byte == b'#'));
    assert_eq!(Block::parse(&bytes).as_ref(), Ok(block));
    assert_eq!(block.to_bytes(), Ok(bytes));
}
