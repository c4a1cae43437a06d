use super::super::event::EventKind;
use super::super::source::MemorySource;
use super::super::testing::{Rng, Words, source};
use super::*;
use crate::record::kind;

fn run(mut source: impl EventSource) -> (Vec<Event>, Outcome) {
    run_until(&mut source, u64::MAX)
}

fn run_until(source: &mut impl EventSource, ended: u64) -> (Vec<Event>, Outcome) {
    let mut all = Vec::new();
    let outcome = merge(source, ended, &mut |events: &[Event]| all.extend_from_slice(events), |_| {});
    (all, outcome)
}

fn brief(events: &[Event]) -> Vec<(u64, EventKind, u64)> {
    events.iter().map(|e| (e.stamp, e.kind, e.address)).collect()
}

/// Streams of random lengths with random stamps, cut into random blocks; the sorted stamps of all.
fn random_source(random: &mut Rng, streams: u64, events: u64) -> (MemorySource, Vec<u64>) {
    let (mut source, mut stamps) = (MemorySource::new(), Vec::new());
    for thread in 0..streams {
        let mut stamp = random.below(1000);
        let mut blocks = vec![Words::new()];
        for n in 0..random.below(events * 2) {
            if random.below(20) == 0 {
                blocks.push(Words::new());
            }
            let words = blocks.pop().unwrap();
            blocks.push(match random.below(8) {
                0 => words.node(kind::NODE, n, n as u32, 0),
                1 => {
                    stamps.push(stamp);
                    words.alloc(n, stamp, 1, 5 << 32)
                }
                2 => {
                    stamps.push(stamp);
                    words.free(n, stamp)
                }
                _ => {
                    stamps.push(stamp);
                    words.alloc(n, stamp, 1, n)
                }
            });
            stamp += [0, 1, 3, random.below(500)][random.below(4) as usize];
        }
        let blocks: Vec<_> = blocks.into_iter().map(|words| words.0).collect();
        source.push(thread as u32 + 1, &blocks);
    }
    stamps.sort_unstable();
    (source, stamps)
}

#[test]
fn nothing_gives_nothing() {
    assert_eq!(run(MemorySource::new()).0, []);
    assert_eq!(run(source(&[Words::new()])).0, []);
    assert_eq!(run(source(&[Words::new().node(kind::NODE, 1, 1, 0)])).0, []);
}

#[test]
fn any_streams_come_out_sorted() {
    let mut random = Rng::new(3);
    for streams in [1, 2, 3, 7, 40] {
        let (source, stamps) = random_source(&mut random, streams, 300);
        let (events, outcome) = run(source);
        assert_eq!(events.iter().map(|e| e.stamp).collect::<Vec<_>>(), stamps);
        assert!(outcome.failures.is_empty());
        for stream in 0..streams as u32 {
            let own: Vec<_> = events.iter().filter(|e| e.stream == stream).map(|e| e.address).collect();
            assert!(own.is_sorted(), "the order within a stream is kept");
        }
    }
}

#[test]
fn small_pieces_change_nothing() {
    let mut random = Rng::new(4);
    let (source, stamps) = random_source(&mut random, 5, 500);
    for quota in [1, 2, 7, 64] {
        let mut source = source.clone();
        let mut reader = Reader::new(&mut source, quota, u64::MAX);
        let mut found = Vec::new();
        for stream in 0..5 {
            let mut cursor = Cursor::open(stream, &mut reader);
            let mut events = Vec::new();
            assert_eq!(cursor.run(&mut reader, u64::MAX - 1, usize::MAX, &mut events), Stop::End);
            found.extend(events.iter().map(|e| e.stamp));
        }
        found.sort_unstable();
        assert_eq!(found, stamps);
    }
}

#[test]
fn sizes_and_stacks_come_through() {
    let words = Words::new().alloc(0x10, 5, 7, 0).alloc(0x20, 6, u32::MAX, (1 << 32) - 1);
    let words = words.alloc(0x30, 7, 9, 1 << 32).moved(0x40, 8, 1, u64::MAX);
    let (events, _) = run(source(&[words]));
    let seen: Vec<_> = events.iter().map(|e| (e.address, e.stack, e.size)).collect();
    assert_eq!(
        seen,
        [(0x10, 7, 0), (0x20, u32::MAX, (1 << 32) - 1), (0x30, 9, 1 << 32), (0x40, 1, u64::MAX)]
    );
}

#[test]
fn realloc_tells_its_outcome_ahead() {
    use EventKind::{Failed, Free, Realloc, Start};
    let words = Words::new()
        .begin(0x10, 1)
        .node(kind::NODE, 9, 9, 0)
        .moved(0x20, 2, 1, 8)
        .begin(0x20, 3)
        .realloc_failed(0x20, 4)
        .begin(0x20, 5)
        .freed(0x20, 5)
        .failed(6)
        .begin(0x30, 7);
    let expected = [(1, Realloc, 0x10), (2, Start, 0x20), (4, Failed, 0x20), (5, Free, 0x20), (6, Failed, 0)];
    let (events, _) = run(source(std::slice::from_ref(&words)));
    assert_eq!(brief(&events), expected);
    // Every record in a block of its own: the follower lies behind what is held.
    let mut single = MemorySource::new();
    let blocks: Vec<_> = crate::record::Records::new(&words.0).collect();
    single.push(1, &blocks);
    assert_eq!(brief(&run(single).0), expected);
}

#[test]
fn an_abandoned_realloc_does_not_take_the_next_ones_outcome() {
    let words = Words::new().begin(0x10, 1).free(0x30, 2).begin(0x20, 3).moved(0x40, 4, 1, 8);
    let (events, _) = run(source(&[words]));
    let seen: Vec<_> = events.iter().map(|e| e.address).collect();
    assert_eq!(seen, [0x30, 0x20, 0x40]);
}

#[test]
fn events_after_the_end_are_counted() {
    let one = Words::new().alloc(0x10, 5, 0, 1).begin(0x10, 9).moved(0x20, 11, 0, 1).free(0x20, 12);
    let two = Words::new().alloc(0x30, 10, 0, 1).failed(13).begin(0x30, 14).moved(0x50, 15, 0, 1);
    let mut source = source(&[one, two, Words::new().free(0x90, 100)]);
    let (events, outcome) = run_until(&mut source, 10);
    assert_eq!(events.iter().map(|e| e.address).collect::<Vec<_>>(), [0x10, 0x30]);
    assert_eq!(outcome.lost, 5, "moved, free; failed, moved; free");
}

#[test]
fn stamps_that_make_no_sense_are_survived() {
    let one = Words::new().alloc(0x10, u64::MAX, 0, 1).alloc(0x20, 0, 0, 1).alloc(0x30, u64::MAX - 1, 0, 1);
    let (events, _) = run(source(&[one.clone(), one, Words::new().free(1, 7)]));
    assert_eq!(events.len(), 7);
    assert!(events.is_sorted_by_key(|e| e.stamp));
}

#[test]
fn a_block_that_cannot_be_read_is_left_out() {
    struct Broken(MemorySource);
    impl EventSource for Broken {
        fn streams(&self) -> &[Stream] {
            self.0.streams()
        }
        fn read(&mut self, block: u32) -> Result<&[u64], String> {
            if block == 1 { Err("checksum".into()) } else { self.0.read(block) }
        }
    }
    let mut inner = MemorySource::new();
    inner.push(1, &[Words::new().free(1, 10).0, Words::new().free(2, 20).0, Words::new().free(3, 30).0]);
    let (events, outcome) = run(Broken(inner));
    assert_eq!(events.iter().map(|e| e.address).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(outcome.failures.iter().map(|f| (f.block, f.since)).collect::<Vec<_>>(), [(1, 20)]);
}

#[test]
fn many_streams_share_the_budget() {
    let block = |at: u64| super::super::source::Block {
        first_stamp: at,
        last_stamp: at + 10,
        words: 1 << 17,
        ..Default::default()
    };
    let stream = |at| Stream { thread: 1, blocks: vec![block(at)] };
    let apart: Vec<_> = (0..20_000).map(|n| stream(n * 20)).collect();
    assert_eq!(piece_words(&apart), *PIECE.end());
    let together: Vec<_> = (0..20_000).map(|_| stream(5)).collect();
    assert!(piece_words(&together) * 8 * 20_000 <= BUDGET);
}

#[test]
fn what_small_blocks_leave_is_for_large_ones() {
    let budget = BUDGET / 8;
    assert_eq!(share(&mut [], 1), *PIECE.end());
    assert_eq!(share(&mut [100, 300, 200], 3), *PIECE.end(), "all fit");
    let mut one_large = vec![100; 2_000];
    one_large.push(usize::MAX / 2);
    assert_eq!(share(&mut one_large, 2_001), budget - 200_000);
    assert_eq!(share(&mut one_large, 1), budget, "the largest alone is open at the worst");
    assert_eq!(share(&mut vec![budget; 4_000], 4_000), budget / 4_000);
}
