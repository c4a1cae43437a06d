//! Cuts, flipped bits and missing bytes.

use super::*;
use crate::trace::frame::FRAME_ALIGN;
use crate::trace::read::DamageKind;

/// A trace of one stream with its words and the offsets at which frames of it end.
fn small() -> (Vec<u8>, Vec<u64>, Vec<(usize, usize)>) {
    let mut bytes = start(&process());
    let mut program = Program::new(2, 0);
    let words = program.words(700);
    let (mut ends, mut at) = (Vec::new(), 0);
    for frame in frames(&mut Encoder::new(), 1, &words, &mut program) {
        let header = crate::trace::FrameHeader::from_bytes(&frame).unwrap();
        bytes.extend(&frame);
        at += header.words() as usize;
        ends.push((bytes.len(), at));
    }
    (bytes, words, ends)
}

#[test]
fn a_cut_at_any_byte_keeps_everything_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    let (bytes, words, ends) = small();
    for cut in file_header().len()..bytes.len() {
        write(&path, &bytes[..cut]);
        let trace = TraceFile::open(&path).unwrap();
        // Only padding may be missing from a frame that counts as whole.
        let kept = ends.iter().take_while(|&&(end, _)| end <= cut).last().map_or(0, |e| e.1);
        let nearly = ends.iter().take_while(|&&(end, _)| end < cut + FRAME_ALIGN).last().map_or(0, |e| e.1);
        let read = read_stream(&trace, 1);
        assert!(read.len() == kept || read.len() == nearly, "cut at {cut}");
        assert_eq!(read, words[..read.len()]);
        assert!(trace.damages().len() <= 1);
        assert!(
            trace.damages().iter().all(|d| d.kind == DamageKind::Cut && d.offset + d.length == cut as u64)
        );
    }
}

#[test]
fn one_damaged_byte_costs_one_frame() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    let (bytes, words, ends) = small();
    let first = start(&process()).len();
    let mut buf = EventBuf::new();
    for at in first..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        write(&path, &damaged);
        let trace = TraceFile::open(&path).unwrap();
        let hit = ends.iter().position(|e| at < e.0).unwrap();
        let (from, to) = (if hit == 0 { 0 } else { ends[hit - 1].1 }, ends[hit].1);
        let mut lost = 0;
        for (i, frame) in trace.frames().iter().enumerate() {
            if frame.header.kind != crate::trace::Kind::EVENTS {
                continue;
            }
            let position = frame.header.position as usize;
            match trace.read_events(i, &mut buf) {
                Ok(()) => assert!(buf.words() == &words[position..][..buf.words().len()]),
                Err(_) => {
                    assert_eq!((position, trace.damage_of(i).unwrap().stream), (from, Some(1)));
                    assert!(buf.words().is_empty());
                    lost += frame.header.words() as usize;
                }
            }
        }
        let gaps: u64 = trace.gaps().iter().map(|g| g.to - g.from).sum();
        let seen = trace.streams().first().map_or(0, |s| s.end as usize);
        let missing = words.len() - seen + gaps as usize + lost;
        assert!(missing == 0 || missing == to - from, "byte {at}: {missing} words lost");
        if missing > 0 && lost == 0 {
            assert_eq!(trace.damages().len(), 1);
            assert_eq!(trace.damages()[0].kind, DamageKind::Header);
        }
    }
}

#[test]
fn missing_bytes_cost_the_frame_they_are_missing_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    let (bytes, words, ends) = small();
    // The second frame loses its middle; all behind it moves forward.
    let (from, to) = (ends[0].0, ends[1].0);
    let middle = from + (to - from) / 2 / FRAME_ALIGN * FRAME_ALIGN;
    let mut damaged = bytes[..middle].to_vec();
    damaged.extend(&bytes[to..]);
    write(&path, &damaged);
    let trace = TraceFile::open(&path).unwrap();
    assert_eq!(trace.damages().len(), 1);
    assert_eq!(trace.damages()[0].offset, from as u64);
    assert_eq!(trace.damages()[0].stream, Some(1));
    assert_eq!(trace.gaps().len(), 1);
    assert_eq!((trace.gaps()[0].from, trace.gaps()[0].to), (ends[0].1 as u64, ends[1].1 as u64));
    let mut expected = words[..ends[0].1].to_vec();
    expected.extend(&words[ends[1].1..]);
    assert!(read_stream(&trace, 1) == expected);
}

#[test]
fn random_damage_never_panics_nor_grows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    let (bytes, _, _) = small();
    let mut rng = crate::trace::testing::Rng(3);
    let mut buf = EventBuf::new();
    for _ in 0..1500 {
        let mut damaged = bytes.clone();
        for _ in 0..=rng.below(6) {
            mutate(&mut damaged, &mut rng);
        }
        fix_checksums(&mut damaged, &mut rng);
        write(&path, &damaged);
        let Ok(trace) = TraceFile::open(&path) else { continue };
        for i in 0..trace.frames().len() {
            if trace.read_events(i, &mut buf).is_ok() {
                assert!(buf.words().len() * 8 == trace.frames()[i].header.raw_len as usize);
            }
        }
        let _ = trace.clock().ns(rng.any());
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut crate::trace::testing::Rng) {
    let at = 64 + rng.below(bytes.len() as u64 - 64) as usize;
    match rng.below(5) {
        0 => bytes[at] = rng.next() as u8,
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at..].iter_mut().take(8).for_each(|b| *b = 0xff),
        3 if bytes.len() > 300 => drop(bytes.drain(at..(at + rng.below(40) as usize).min(bytes.len()))),
        _ => {
            let from = rng.below(bytes.len() as u64) as usize;
            let piece = bytes[from..(from + rng.below(200) as usize).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
    }
    if bytes.len() < 100 {
        bytes.resize(100, 0);
    }
}

/// Makes the checksums right again, so that the damage gets past them.
fn fix_checksums(bytes: &mut [u8], rng: &mut crate::trace::testing::Rng) {
    use crate::trace::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, u32_at};
    let mut at = 64;
    while at + FRAME_HEADER_BYTES <= bytes.len() {
        if bytes[at..at + 4] != FRAME_MAGIC {
            at += FRAME_ALIGN;
            continue;
        }
        let stored = u32_at(bytes, at + 52) as usize;
        let end = at + FRAME_HEADER_BYTES + stored;
        if end <= bytes.len() && !rng.chance(20) {
            let crc = crc32fast::hash(&bytes[at + FRAME_HEADER_BYTES..end]);
            bytes[at + 56..at + 60].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[at..at + 60]);
        bytes[at + 60..at + 64].copy_from_slice(&crc.to_le_bytes());
        let header = FrameHeader::from_bytes(&bytes[at..]).unwrap();
        at += header.total_bytes() as usize;
    }
}
