//! Standard input: a terminal or a pipe.

use std::io::Read;

use tokio::sync::mpsc::{Receiver, channel};

/// The bytes that are read at a time.
const BLOCK: usize = 8 * 1024;

/// Reads standard input in a thread, because a read cannot be interrupted. The channel ends with the input.
pub(super) fn read() -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut block = [0; BLOCK];
        while let Ok(length @ 1..) = stdin.read(&mut block) {
            if sender.blocking_send(block[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}
