//! Deltas of random files, and deltas that are damaged or hostile.

use std::io::{self, Cursor};

use proptest::prelude::*;

use super::codec::{Codec, Recompress};
use super::*;

const BLOCK: Recompress = Recompress { codec: Codec::Block, level: 9, version: 0 };

fn block() -> Recompress {
    Recompress::here(BLOCK.codec, BLOCK.level)
}

/// A file with its frames.
#[derive(Debug, Clone)]
struct File {
    bytes: Vec<u8>,
    /// The parts: offset, content, and whether it is compressed.
    parts: Vec<(u64, Vec<u8>, bool)>,
}

/// Returns a file of parts, some of which are compressed.
fn file(parts: &[(Vec<u8>, bool)], recompress: Recompress) -> File {
    let mut compressor = recompress.compressor().unwrap();
    let mut file = File { bytes: Vec::new(), parts: Vec::new() };
    for (content, is_frame) in parts {
        let offset = file.bytes.len() as u64;
        let mut stored = content.clone();
        if *is_frame {
            compressor.compress(content, &mut stored, &mut || Ok(())).unwrap();
        }
        file.bytes.extend(&stored);
        file.parts.push((offset, content.clone(), *is_frame));
    }
    file
}

/// Returns a delta that takes each part of the target from the part of the source with the same index, and
/// the first part as it is.
fn delta(source: &File, target: &File, recompress: Recompress) -> Delta {
    let mut delta = Delta {
        source: source.bytes.len() as u64,
        target: target.bytes.len() as u64,
        recompress,
        extents: Vec::new(),
        segments: Vec::new(),
        operations: Vec::new(),
        differences: Vec::new(),
        literals: Vec::new(),
    };
    let end = |file: &File, index: usize| match file.parts.get(index + 1) {
        Some((offset, ..)) => *offset,
        None => file.bytes.len() as u64,
    };
    let (mut position, mut gap) = (0, 0);
    for (index, (offset, old, is_frame)) in source.parts.iter().enumerate() {
        let stored = (end(source, index) - offset) as u32;
        let frame = is_frame.then_some(old.len() as u32);
        delta.extents.push(Extent { offset: *offset, stored, frame });
        if let Some((at, new, is_frame)) = target.parts.get(index) {
            let bytes = &target.bytes[*at as usize..end(target, index) as usize];
            let old_bytes = &source.bytes[*offset as usize..end(source, index) as usize];
            if bytes == old_bytes {
                delta.segments.push(Segment::Copy { offset: *offset, length: bytes.len() as u64 });
            } else {
                delta.segments.push(match is_frame {
                    true => Segment::frame(new.len() as u32, bytes),
                    false => Segment::Plain { length: bytes.len() as u64 },
                });
                let add = old.len().min(new.len());
                for (old, new) in old.iter().zip(new) {
                    match old == new {
                        true => gap += 1,
                        false => {
                            delta.differences.push((gap, new.wrapping_sub(*old)));
                            gap = 0;
                        }
                    }
                }
                let literal = &new[add..];
                delta.literals.extend(literal);
                let (add, literal) = (add as u64, literal.len() as u64);
                delta.operations.push(Operation { position, add, literal });
            }
        }
        position += old.len() as u64;
    }
    delta
}

fn limits(source: &File, target: &File) -> Limits {
    let (source, target) = (source.bytes.len() as u64, target.bytes.len() as u64);
    Limits { source, target, memory: 256 << 20 }
}

/// Applies a delta, and returns the target.
fn applied(bytes: &[u8], source: &[u8], limits: &Limits) -> Result<Vec<u8>, DeltaError> {
    let mut target = Vec::new();
    apply(bytes, Cursor::new(source), limits, &mut |piece| {
        target.extend(piece);
        Ok(())
    })?;
    Ok(target)
}

fn parts() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
    let content = (any::<u8>(), 1..3000_usize, any::<u64>()).prop_map(|(byte, length, seed)| {
        let noise = |i: usize| (seed >> (i % 61)) as u8 & 3;
        (0..length).map(|i| byte.wrapping_add(noise(i)).wrapping_add((i / 100) as u8)).collect()
    });
    proptest::collection::vec((content, any::<bool>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn gives_the_target(old in parts(), new in parts(), same in 0..12_usize) {
        let mut new: Vec<_> = new.into_iter().take(old.len()).collect();
        // Some parts do not change, and some change a little.
        for (index, part) in new.iter_mut().enumerate() {
            match (index + same) % 3 {
                0 => *part = old[index].clone(),
                1 => {
                    part.0 = old[index].0.clone();
                    part.0[0] ^= 1;
                }
                _ => {}
            }
        }
        let (source, target) = (file(&old, block()), file(&new, block()));
        let bytes = delta(&source, &target, block()).to_bytes().unwrap();
        let limits = limits(&source, &target);
        prop_assert_eq!(applied(&bytes, &source.bytes, &limits).unwrap(), target.bytes);
    }

    /// A damaged delta fails, or writes something else than the target, whose digest then does not match.
    #[test]
    fn survives_damage(old in parts(), byte in any::<usize>(), xor in 1..=255_u8, cut in any::<usize>()) {
        let mut new = old.clone();
        new[0].0[0] ^= 1;
        let (source, target) = (file(&old, block()), file(&new, block()));
        let limits = limits(&source, &target);
        let mut bytes = delta(&source, &target, block()).to_bytes().unwrap();
        let at = byte % bytes.len();
        bytes[at] ^= xor;
        let _ = applied(&bytes, &source.bytes, &limits);
        prop_assert!(applied(&bytes[..cut % bytes.len()], &source.bytes, &limits).is_err());
    }
}

/// Returns two files of three frames, of which the second one differs, and their delta.
fn example(recompress: Recompress) -> (File, File, Delta) {
    let text = |name: &str| format!("the text of {name}, ").repeat(400).into_bytes();
    let old: Vec<_> = ["a", "b", "c"].map(|name| (text(name), true)).to_vec();
    let mut new = old.clone();
    new[1].0.extend_from_slice(b"and more of it");
    let (source, target) = (file(&old, recompress), file(&new, recompress));
    let delta = delta(&source, &target, recompress);
    (source, target, delta)
}

#[test]
fn compresses_as_the_program_zstd_does() {
    let recompress = Recompress::here(Codec::Stream, 22);
    let (source, target, delta) = example(recompress);
    let bytes = delta.to_bytes().unwrap();
    // No size of the content, a checksum, and the window of level 22 (RFC 8878, section 3.1.1.1).
    assert_eq!(source.bytes[4..6], [0x04, 0x88]);
    let memory = memory_of(&bytes).unwrap();
    assert!((512 << 20..1 << 30).contains(&memory), "{memory}");
    let limits = Limits { memory, ..limits(&source, &target) };
    assert_eq!(applied(&bytes, &source.bytes, &limits).unwrap(), target.bytes);
}

#[test]
fn finds_damage_of_the_source() {
    let (source, target, delta) = example(block());
    let bytes = delta.to_bytes().unwrap();
    let (offset, ..) = source.parts[1];
    for at in offset..source.parts[2].0 {
        let mut damaged = source.bytes.clone();
        damaged[at as usize] ^= 0x10;
        // A bit of the header of a frame has no meaning (RFC 8878, section 3.1.1.1.1.3).
        if let Ok(result) = applied(&bytes, &damaged, &limits(&source, &target)) {
            assert!(result == target.bytes, "byte {at}");
            assert_eq!(at, offset + 4);
        }
    }
}

#[test]
fn refuses_other_files_and_too_much_memory() {
    let (source, target, delta) = example(block());
    let bytes = delta.to_bytes().unwrap();
    let limits = limits(&source, &target);
    let error = |limits: Limits| applied(&bytes, &source.bytes, &limits).unwrap_err().to_string();
    let other = error(Limits { source: limits.source + 1, ..limits });
    assert!(other.contains("is for a source of"), "{other}");
    let other = error(Limits { target: limits.target - 1, ..limits });
    assert!(other.contains("is for a target of"), "{other}");
    let needed = memory_of(&bytes).unwrap();
    assert!(needed < 64 << 20, "{needed}");
    applied(&bytes, &source.bytes, &Limits { memory: needed, ..limits }).unwrap();
    let memory = error(Limits { memory: needed - 1, ..limits });
    assert!(memory.contains("bytes of memory"), "{memory}");
}

#[test]
fn refuses_another_version_of_zstd() {
    let other = Recompress { version: 10_506, ..block() };
    let (source, target, _) = example(block());
    let bytes = delta(&source, &target, other).to_bytes().unwrap();
    let error = applied(&bytes, &source.bytes, &limits(&source, &target)).unwrap_err();
    assert!(matches!(error, DeltaError::Version { expected: 10_506, .. }), "{error}");
}

type Change = fn(&mut Delta);

#[test]
fn refuses_what_is_outside_of_the_files() {
    let changes: [(Change, &str); 11] = [
        (|d| d.extents[2].offset += 1000, "outside of the source"),
        (|d| d.extents[2].offset = u64::MAX, "outside of the source"),
        (|d| d.extents[1].frame = Some(0), "invalid length"),
        (|d| d.extents[1].frame = Some(1), "no zstd frame"),
        (|d| d.segments[0] = Segment::Copy { offset: u64::MAX >> 4, length: 9 }, "beyond the end"),
        (|d| d.segments[0] = Segment::Copy { offset: 0, length: 0 }, "invalid length"),
        (|d| d.segments.push(Segment::Plain { length: 1 }), ""),
        (|d| d.segments[0] = Segment::Plain { length: u64::MAX >> 2 }, "invalid length"),
        (|d| d.operations[0].position = 1 << 40, "beyond the end"),
        (|d| d.operations.insert(0, Operation { position: 0, add: 0, literal: 0 }), "is empty"),
        (|d| d.literals.clear(), "ends early"),
    ];
    for (index, (change, expected)) in changes.into_iter().enumerate() {
        let (source, target, mut delta) = example(block());
        change(&mut delta);
        let bytes = delta.to_bytes().unwrap();
        match applied(&bytes, &source.bytes, &limits(&source, &target)) {
            Ok(result) => assert!(expected.is_empty() && result == target.bytes, "change {index}"),
            Err(error) => assert!(
                !expected.is_empty() && error.to_string().contains(expected),
                "change {index}: {error}"
            ),
        }
    }
}

/// Each byte is taken from another frame than the byte before, and the cache does not hold all of them.
#[test]
fn limits_how_much_is_decompressed() {
    let frames: Vec<_> = (0..80_u8).map(|n| (vec![n; 1 << 20], true)).collect();
    let source = file(&frames, block());
    let target = File { bytes: vec![0; 200], parts: Vec::new() };
    let mut delta = delta(&source, &target, block());
    delta.segments = vec![Segment::Plain { length: 200 }];
    let position = |n: u64| (n % 80) << 20;
    delta.operations =
        (0..200).map(|n| Operation { position: position(n), add: 1, literal: 0 }).collect();
    let error = applied(&delta.to_bytes().unwrap(), &source.bytes, &limits(&source, &target));
    assert!(matches!(error, Err(DeltaError::Work(_))), "{error:?}");
}

#[test]
fn limits_the_number_of_frames_that_a_thread_compresses() {
    let stream = Recompress::here(Codec::Stream, 1);
    for (count, is_valid) in [(3, true), (5, false)] {
        let frame = file(&[(vec![7], true)], stream).bytes;
        let target = File { bytes: frame.repeat(count), parts: Vec::new() };
        let mut delta = delta(&target, &target, stream);
        delta.segments = vec![Segment::frame(1, &frame); count];
        delta.operations = vec![Operation { position: 0, add: 0, literal: count as u64 }];
        delta.literals = vec![7; count];
        let limits = Limits { memory: 1 << 30, ..limits(&target, &target) };
        match applied(&delta.to_bytes().unwrap(), &target.bytes, &limits) {
            Ok(result) => assert!(is_valid && result == target.bytes),
            Err(error) => assert!(!is_valid && matches!(error, DeltaError::Work(_)), "{error}"),
        }
    }
}

#[test]
fn blocks_have_the_size_of_those_of_squashfs() {
    let content = |length| vec![(vec![7; length], true)];
    for (length, is_valid) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let (source, target) = (file(&content(9), block()), file(&content(length), block()));
        let mut delta = delta(&source, &source, block());
        let segment = Segment::frame(length as u32, &target.bytes);
        (delta.target, delta.segments) = (target.bytes.len() as u64, vec![segment]);
        delta.operations = vec![Operation { position: 0, add: 0, literal: length as u64 }];
        delta.literals = vec![7; length];
        let result = applied(&delta.to_bytes().unwrap(), &source.bytes, &limits(&source, &target));
        match result {
            Ok(result) => assert!(is_valid && result == target.bytes),
            Err(error) => assert!(!is_valid && error.to_string().contains("block"), "{error}"),
        }
    }
}

/// The caller is asked while a frame is compressed, before it gets the first byte.
#[test]
fn can_be_stopped_while_a_frame_is_compressed() {
    let stream = Recompress::here(Codec::Stream, 3);
    let random: Vec<u8> =
        (0..2_000_000_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect();
    let source = file(&[(random.clone(), true)], stream);
    let mut delta = delta(&source, &source, stream);
    delta.segments = vec![Segment::frame(random.len() as u32, &source.bytes)];
    delta.operations = vec![Operation { position: 0, add: random.len() as u64, literal: 0 }];
    let mut calls = 0;
    let bytes = delta.to_bytes().unwrap();
    let limits = Limits { memory: 2 << 30, ..limits(&source, &source) };
    let result = apply(&bytes, Cursor::new(&source.bytes), &limits, &mut |piece| {
        calls += 1;
        assert!(piece.is_empty());
        if calls == 3 { Err(io::Error::other("stopped")) } else { Ok(()) }
    });
    assert!(matches!(result, Err(DeltaError::Sink(_))), "{result:?}");
    assert_eq!(calls, 3);
}

#[test]
fn limits_the_number_of_segments() {
    let (source, _, mut delta) = example(block());
    let file = source.bytes.repeat(1000);
    (delta.source, delta.target) = (file.len() as u64, 50_000);
    let limits = Limits { source: delta.source, target: delta.target, memory: 256 << 20 };
    for length in [1, 1000] {
        let segments = (0..delta.target / length).map(|n| n * length);
        delta.segments = segments.map(|offset| Segment::Copy { offset, length }).collect();
        match applied(&delta.to_bytes().unwrap(), &file, &limits) {
            Ok(target) => assert!(length == 1000 && target == file[..50_000]),
            Err(error) => assert!(length == 1 && matches!(error, DeltaError::Work(_)), "{error}"),
        }
    }
}

#[test]
fn returns_the_error_of_the_writer() {
    let (source, target, delta) = example(block());
    let bytes = delta.to_bytes().unwrap();
    let result = apply(&bytes, Cursor::new(&source.bytes), &limits(&source, &target), &mut |_| {
        Err(io::Error::other("the disk is full"))
    });
    assert!(matches!(result, Err(DeltaError::Sink(_))), "{result:?}");
}
