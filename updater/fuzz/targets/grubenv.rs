//! GRUB's environment block. What can be read can be written, unless it is too long for a sector, and
//! reads the same again; and whatever stood there, our variables can be put over it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::esp::Slot;
use protocol::grubenv::{Block, BootId, BootState, Newest, SIZE, Trial};

/// What a disk writes at once.
const SECTOR: usize = 512;
const FIRST: &[u8] = b"# GRUB Environment Block\n";

fuzz_target!(|data: &[u8]| {
    read(data);
    // As long as it should be, which no input is by chance.
    let mut block = FIRST.to_vec();
    block.extend(data.iter().take(SIZE - FIRST.len()));
    block.resize(SIZE, b'#');
    read(&block);
});

fn read(bytes: &[u8]) {
    let Ok(mut block) = Block::parse(bytes) else { return };
    assert_eq!(bytes.len(), SIZE);
    write(&block);
    if let Ok(state) = BootState::read(&block) {
        state.write(&mut block);
        assert_eq!(BootState::read(&block), Ok(state));
        write(&block);
    }
    let trial = Trial { slot: Slot::B, tries: 3, release: None, since: Some(BootId(u32::MAX)) };
    let target = "deb_amd64".parse().expect("a target");
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
        write(&block);
    }
}

fn write(block: &Block) {
    let Ok(bytes) = block.to_bytes() else { return };
    assert!(bytes[SECTOR..].iter().all(|byte| *byte == b'#'));
    assert_eq!(Block::parse(&bytes).as_ref(), Ok(block));
    assert_eq!(block.to_bytes(), Ok(bytes));
}
