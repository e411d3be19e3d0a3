//! Deltas. Whatever a delta says, applying it ends within its limits, and writes no more than the target.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use protocol::delta::{
    Codec, Delta, Extent, Limits, Operation, Recompress, Segment, apply, memory_of,
};

/// The memory that a delta may take: more than the estimate for the frame of a kernel, which takes less at the levels
/// that are used here.
const MEMORY: u64 = 700 << 20;

fuzz_target!(|data: &[u8]| {
    // The input as it is.
    let source = vec![7; 64];
    run(data, &source, 64, 64);
    // The input as the content of a delta, whose streams are then well-formed.
    let mut numbers = Numbers(data);
    let source = source_with_frames(&mut numbers);
    let delta = delta(&mut numbers, source.len() as u64);
    if let Ok(mut bytes) = delta.to_bytes() {
        run(&bytes, &source, delta.source, delta.target);
        // The same with errors in its header and in its streams.
        for (position, byte) in numbers.list(|numbers| (numbers.number(), numbers.byte())) {
            let position = position as usize % bytes.len();
            bytes[position] = byte;
        }
        run(&bytes, &source, delta.source, delta.target);
    }
});

fn run(delta: &[u8], source: &[u8], from: u64, target: u64) {
    let limits = Limits { source: from, target, memory: MEMORY };
    let mut written = 0;
    let result = apply(delta, Cursor::new(source), &limits, &mut |piece| {
        written += piece.len() as u64;
        Ok(())
    });
    assert!(written <= target);
    if result.is_ok() {
        assert_eq!(written, target);
        assert!(memory_of(delta).is_ok_and(|memory| memory <= MEMORY));
    }
}

/// Reads numbers from the input; after its end, each number is 0.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// Returns a number that is mostly small.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=199 => u64::from(byte),
            200..=250 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            251..=253 => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            254 => u64::MAX,
            255 => u64::from(u32::MAX),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.byte() % 16;
        (0..length).map(|_| item(self)).collect()
    }
}

fn source_with_frames(numbers: &mut Numbers<'_>) -> Vec<u8> {
    let mut compressor =
        Recompress::here(Codec::Block, 3).compressor().expect("the level is valid");
    let mut source = Vec::new();
    let mut frame = Vec::new();
    for (byte, length) in numbers.list(|numbers| (numbers.byte(), numbers.byte())) {
        let content = vec![byte; usize::from(length) * 16 + 1];
        compressor
            .compress(&content, &mut frame, &mut || Ok(()))
            .expect("zstd compresses anything");
        source.extend(&frame);
    }
    source
}

fn delta(numbers: &mut Numbers<'_>, source: u64) -> Delta {
    let recompress = match numbers.byte() % 32 {
        1 => Recompress::here(Codec::Stream, numbers.byte() % 4),
        _ => Recompress::here(Codec::Block, 1 + numbers.byte() % 22),
    };
    // Frames whose content is literal, and which are right if nothing before them takes literal bytes.
    let frames = numbers.list(|numbers| frame(numbers, recompress));
    let literal: usize = frames.iter().map(|(content, _)| content.len()).sum();
    let frame_bytes = frames.iter().flat_map(|(content, _)| content.clone());
    let operation = Operation { position: 0, add: 0, literal: literal as u64 };
    let operation = (literal > 0).then_some(operation);
    let frame_segments = frames.iter().map(|(_, segment)| segment.clone());
    Delta {
        source,
        target: numbers.number().min(1 << 20),
        recompress,
        extents: numbers.list(|numbers| Extent {
            offset: numbers.number(),
            stored: numbers.number() as u32,
            frame: (numbers.byte() % 2 == 0).then(|| numbers.number() as u32),
        }),
        segments: frame_segments.chain(numbers.list(segment)).collect(),
        operations: operation.into_iter().chain(numbers.list(any_operation)).collect(),
        differences: numbers.list(|numbers| (numbers.number(), numbers.byte())),
        literals: frame_bytes.chain(numbers.list(Numbers::byte)).collect(),
    }
}

fn any_operation(numbers: &mut Numbers<'_>) -> Operation {
    Operation {
        position: numbers.number() >> 2,
        add: numbers.number() >> 2,
        literal: numbers.number(),
    }
}

/// Returns the content of a frame, and its segment.
fn frame(numbers: &mut Numbers<'_>, recompress: Recompress) -> (Vec<u8>, Segment) {
    let content = vec![numbers.byte(); usize::from(numbers.byte()) + 1];
    let mut stored = Vec::new();
    if let Ok(mut compressor) = recompress.compressor() {
        let compressed = compressor.compress(&content, &mut stored, &mut || Ok(()));
        compressed.expect("zstd compresses anything");
    }
    let segment = Segment::frame(content.len() as u32, &stored);
    (content, segment)
}

fn segment(numbers: &mut Numbers<'_>) -> Segment {
    match numbers.byte() % 3 {
        0 => Segment::Copy { offset: numbers.number() >> 2, length: numbers.number() >> 3 },
        1 => Segment::Plain { length: numbers.number() >> 3 },
        _ => Segment::Frame {
            content: numbers.number() as u32,
            stored: numbers.number() as u32,
            digest: [numbers.byte(); 8],
        },
    }
}
