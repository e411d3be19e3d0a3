//! A timeout for calls that may block in the kernel, such as reads from a disk that hangs.

use std::sync::mpsc::channel;
use std::time::Duration;

/// Runs `call` in a thread and returns its result, or `None` after `timeout`.
///
/// A thread that is blocked in the kernel cannot be ended, so it is left running after a timeout.
pub(crate) fn run_with_timeout<T: Send + 'static>(
    timeout: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = channel();
    // Sending fails after the timeout, when the result is no longer needed.
    std::thread::spawn(move || sender.send(call()).is_ok());
    receiver.recv_timeout(timeout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_after_the_timeout() {
        assert_eq!(run_with_timeout(Duration::from_secs(60), || 7), Some(7));
        let (sender, receiver) = channel::<()>();
        assert_eq!(run_with_timeout(Duration::from_millis(20), move || receiver.recv()), None);
        drop(sender);
    }
}
