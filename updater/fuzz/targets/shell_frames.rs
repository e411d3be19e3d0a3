//! Frames of a shell. However the stream is divided, the frames are the same, and a frame that can be read is the
//! same when it is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::shell::{Decoder, Frame, FrameError};

fuzz_target!(|data: &[u8]| {
    let Some((first, stream)) = data.split_first() else { return };
    let whole = read(&[stream]);
    let parts: Vec<&[u8]> = stream.chunks(usize::from(*first) + 1).collect();
    assert_eq!(read(&parts), whole);

    let (frames, _) = whole;
    let mut written = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut written));
    // Empty input and output is encoded as nothing.
    let is_empty = |frame: &Frame| match frame {
        Frame::Input(bytes) | Frame::Output(bytes) | Frame::ErrorOutput(bytes) => bytes.is_empty(),
        _ => false,
    };
    let frames: Vec<Frame> = frames.into_iter().filter(|frame| !is_empty(frame)).collect();
    assert_eq!(read(&[&written]), (frames, None));
});

/// Returns the frames of a stream, and the error after them.
fn read(parts: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for part in parts {
        decoder.push(part);
        loop {
            match decoder.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
