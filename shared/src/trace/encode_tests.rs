use super::super::frame::FRAME_HEADER_BYTES;
use super::super::testing::{Program, Rng};
use super::*;
use crate::record::kind;
use crate::trace::codec::join::Joiner;
use crate::trace::codec::{COLUMNS, columns};

const BLOCK: Block = Block { stream: 3, thread: 2, position: 1000 };

/// Decodes frames that were made without compression.
fn decode(mut bytes: &[u8]) -> (Vec<u64>, Vec<FrameHeader>) {
    let (mut words, mut headers) = (Vec::new(), Vec::new());
    let mut joiner = Joiner::default();
    while let Some(header) = FrameHeader::from_bytes(bytes) {
        let payload = &bytes[FRAME_HEADER_BYTES..][..header.stored_len as usize];
        let before = words.len();
        if header.codec == COLUMNS {
            let stored = columns::read(payload, header.raw_len as usize * 2).unwrap();
            joiner.join(stored.map(|column| column.bytes), header.unit, &mut words).unwrap();
        } else {
            words.extend(payload.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())));
        }
        assert_eq!((words.len() - before) as u64, header.words());
        assert_eq!(Records::new(&words[before..]).count(), header.records as usize);
        headers.push(header);
        bytes = &bytes[header.total_bytes() as usize..];
    }
    assert!(bytes.is_empty());
    (words, headers)
}

fn encode(rows: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new().encode(&mut Uncompressed, BLOCK, rows, &mut out);
    out
}

#[test]
fn programs_come_back() {
    for seed in 0..30 {
        let rows = Program::new(seed, 0).words(20_000);
        let (words, headers) = decode(&encode(&rows));
        assert!(words == rows, "seed {seed}");
        assert_eq!(headers.len(), 1);
        assert_eq!((headers[0].stream, headers[0].thread, headers[0].position), (3, 2, 1000));
        let stamps: Vec<u64> = Records::new(&rows).filter_map(stamp_of).collect();
        assert_eq!(Some(&headers[0].first_stamp), stamps.iter().min());
        assert_eq!(Some(&headers[0].last_stamp), stamps.iter().max());
    }
}

#[test]
fn wild_records_come_back() {
    for seed in 0..60 {
        let rows = Program::new(seed, 1 + seed % 7).words(3_000);
        assert!(decode(&encode(&rows)).0 == rows, "seed {seed}");
    }
}

/// A clock that goes round: what the header says stays what the records say.
#[test]
fn the_highest_stamp_is_known_wherever_it_stands() {
    let free = |stamp: u64| [crate::record::head(kind::FREE, 0x10), stamp];
    let rows = [u64::MAX - 9, u64::MAX - 5, 60, 70].map(free).concat();
    let (words, headers) = decode(&encode(&rows));
    assert!(words == rows);
    assert_eq!((headers[0].first_stamp, headers[0].last_stamp), (60, u64::MAX - 5));
}

#[test]
fn an_encoder_carries_nothing_over() {
    let mut encoder = Encoder::new();
    let mut program = Program::new(9, 30);
    for _ in 0..50 {
        let words = 1 + program.rng.below(5000) as usize;
        let rows = program.words(words);
        let mut out = Vec::new();
        let before = encoder.records();
        encoder.encode(&mut Uncompressed, BLOCK, &rows, &mut out);
        assert!(decode(&out).0 == rows);
        assert_eq!(encoder.records() - before, Records::new(&rows).count() as u64);
    }
}

#[test]
fn cut_and_senseless_rows_come_back() {
    let rows = Program::new(10, 5).words(300);
    for cut in 0..rows.len() {
        assert!(decode(&encode(&rows[..cut])).0 == rows[..cut], "cut at {cut}");
    }
    let mut rng = Rng(11);
    for length in 0..300 {
        let rows: Vec<u64> = (0..length).map(|_| rng.any()).collect();
        assert!(decode(&encode(&rows)).0 == rows, "{length} words");
    }
}

#[test]
fn pieces_make_one_frame() {
    let mut program = Program::new(12, 0);
    let parts: Vec<Vec<u64>> = (0..10).map(|i| program.words(i * 100)).collect();
    let slices: Vec<&[u64]> = parts.iter().map(Vec::as_slice).collect();
    let mut out = Vec::new();
    let mut encoder = Encoder::new();
    encoder.encode_parts(&mut Uncompressed, BLOCK, &slices, &mut out);
    let (words, headers) = decode(&out);
    assert!(words == parts.concat());
    assert_eq!(headers.len(), 1);

    // A piece that makes no sense parts the frame; positions go on.
    let senseless = [0, 1, 2];
    out.clear();
    encoder.encode_parts(&mut Uncompressed, BLOCK, &[slices[5], &senseless, slices[6]], &mut out);
    let (words, headers) = decode(&out);
    assert!(words == [slices[5], &senseless, slices[6]].concat());
    assert_eq!(headers.len(), 3);
    assert_eq!(headers[2].position, headers[1].position + 3);
}

#[test]
fn long_input_is_parted() {
    let rows = Program::new(13, 0).words(codec::MAX_BLOCK_WORDS + 50_000);
    for codec in [codec::ROWS, COLUMNS] {
        let mut out = Vec::new();
        let mut encoder = Encoder::new();
        encoder.set_codec(codec);
        encoder.encode(&mut Uncompressed, BLOCK, &rows, &mut out);
        let (words, headers) = decode(&out);
        assert!(words == rows);
        assert_eq!(headers.len(), 2);
    }
}

#[test]
fn stamps_are_rounded_down_to_the_unit() {
    let rows = Program::new(14, 0).words(5_000);
    for unit in [0, 1, 2, 49, 1 << 20, u32::MAX] {
        let mut encoder = Encoder::new();
        encoder.set_unit(unit);
        let mut out = Vec::new();
        encoder.encode(&mut Uncompressed, BLOCK, &rows, &mut out);
        let (words, headers) = decode(&out);
        let unit = u64::from(unit.max(1));
        for (was, is) in Records::new(&rows).zip(Records::new(&words)) {
            match stamp_of(was) {
                Some(stamp) => {
                    assert_eq!(is[1], stamp / unit * unit);
                    assert!((headers[0].first_stamp..=headers[0].last_stamp).contains(&is[1]));
                    assert!(is[0] == was[0] && is[2..] == was[2..]);
                }
                None => assert_eq!(was, is),
            }
        }
    }
}

#[test]
fn every_distance_is_divided_right() {
    let mut rng = Rng(16);
    for unit in [2, 3, 7, 49, 50, 1000, 65_537, 1 << 31, u32::MAX] {
        let mut stamp = 0u64;
        let rows: Vec<u64> = (0..4000)
            .flat_map(|_| {
                let near = u64::from(unit) * rng.below(1 << 20) + rng.below(3);
                stamp = stamp.wrapping_add([rng.any() >> 30, near.saturating_sub(1)][rng.below(2) as usize]);
                [crate::record::head(kind::FREE, 0), stamp]
            })
            .collect();
        let mut encoder = Encoder::new();
        encoder.set_unit(unit);
        let mut out = Vec::new();
        encoder.encode(&mut Uncompressed, BLOCK, &rows, &mut out);
        for (was, is) in rows.iter().zip(decode(&out).0).skip(1).step_by(2) {
            assert_eq!(is, was / u64::from(unit) * u64::from(unit));
        }
    }
}

#[test]
fn stamps_that_fall_come_back() {
    let rows: Vec<u64> = [5u64, 3, u64::MAX, 0, 1 << 63, 7]
        .iter()
        .flat_map(|&stamp| [crate::record::head(kind::FREE, stamp), stamp])
        .collect();
    assert_eq!(decode(&encode(&rows)).0, rows);
    let mut encoder = Encoder::new();
    encoder.set_unit(10);
    let mut out = Vec::new();
    encoder.encode(&mut Uncompressed, BLOCK, &rows, &mut out);
    let rounded: Vec<u64> = decode(&out).0.iter().skip(1).step_by(2).copied().collect();
    assert_eq!(rounded, [0, 0, u64::MAX / 10 * 10, 0, (1 << 63) / 10 * 10, 0]);
}

#[test]
fn what_a_compressor_does_wrong_is_no_matter() {
    struct Bad(Rng);
    impl Compress for Bad {
        fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
            // Too long, cut, or nothing at all; and it says that it failed.
            let length = self.0.below(2 * src.len() as u64) as usize;
            dst.resize(dst.len() + length, 7);
            self.0.chance(2) && length >= src.len()
        }
    }
    let rows = Program::new(15, 20).words(5_000);
    let mut out = Vec::new();
    Encoder::new().encode(&mut Bad(Rng(1)), BLOCK, &rows, &mut out);
    assert!(decode(&out).0 == rows);
}

#[test]
fn nothing_makes_no_frame() {
    assert!(encode(&[]).is_empty());
    let mut out = Vec::new();
    Encoder::new().encode_parts(&mut Uncompressed, BLOCK, &[], &mut out);
    assert!(out.is_empty());
}
