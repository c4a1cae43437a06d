use std::collections::BTreeMap;

use super::super::testing::{EPOCH, Rng, TraceBuilder, Words};
use super::*;
use crate::model::Included;
use crate::record::kind;

/// What must hold of every analysis.
fn check(analysis: &ProcessAnalysis) {
    let stats = &analysis.stats;
    let sum = |of: fn(&SiteStats) -> u64| analysis.sites.iter().map(|site| of(&site.stats)).sum::<u64>();
    assert_eq!(sum(|s| s.allocations), stats.total_allocations);
    assert_eq!(sum(|s| s.allocated), stats.total_allocated);
    assert_eq!(sum(|s| s.deallocations), stats.total_deallocations);
    assert_eq!(sum(|s| s.deallocated), stats.total_deallocated);
    assert_eq!(sum(|s| s.active_allocations), stats.active_allocations);
    assert_eq!(sum(|s| s.active_memory), stats.active_memory);
    assert_eq!(sum(|s| s.memory_at_peak), stats.peak_memory);
    assert!(analysis.sites.iter().all(|s| s.stats.peak_memory >= s.stats.memory_at_peak));
    assert_eq!(stats.total_allocations - stats.total_deallocations, stats.active_allocations);
    assert_eq!(stats.total_allocated - stats.total_deallocated, stats.active_memory);
    let buckets = &analysis.lifetime_histogram;
    assert_eq!(buckets.iter().map(|bucket| bucket.allocations).sum::<u64>(), stats.total_allocations);
    assert_eq!(buckets.iter().map(|bucket| bucket.bytes).sum::<u64>(), stats.total_allocated);
    assert!(analysis.timeline.is_sorted_by_key(|point| point.time));
    assert!(analysis.timeline.len() <= 2_000);
    assert_eq!(analysis.timeline.iter().map(|point| point.active_memory).max(), Some(stats.peak_memory));
    let at_peak =
        analysis.timeline.iter().find(|p| p.time == stats.peak_time && p.active_memory == stats.peak_memory);
    assert_eq!(at_peak.map(|point| point.active_allocations), Some(stats.peak_allocations));
    let (first, last) = (analysis.timeline[0], analysis.timeline.last().unwrap());
    assert_eq!((first.time, last.time), (analysis.start_time, analysis.end_time));
    assert_eq!(last.active_memory, stats.active_memory);
    assert_eq!(analysis.is_complete(), analysis.incomplete_since.is_none());
    if analysis.allocations.included() == Included::All {
        assert_eq!(analysis.allocations.len(), stats.total_allocations);
    }
}

fn analyze_all(trace: &TraceBuilder) -> ProcessAnalysis {
    let analysis = trace.analyze(Wanted::All);
    check(&analysis);
    analysis
}

fn list(analysis: &ProcessAnalysis) -> Vec<super::super::Allocation> {
    analysis.allocations.iter().map(Result::unwrap).collect()
}

#[test]
fn an_empty_trace() {
    let analysis = analyze_all(&TraceBuilder::new(5_000));
    assert_eq!(analysis.stats, Stats { peak_time: analysis.start_time, threads: 1, ..Stats::default() });
    assert_eq!((analysis.start_time, analysis.end_time), (EPOCH + 1_000, EPOCH + 5_000));
    assert!(analysis.is_complete() && analysis.sites.is_empty());
    let main = &analysis.threads[0];
    assert_eq!((analysis.threads.len(), main.id), (1, 1));
    assert_eq!((main.start_time, main.end_time), (analysis.start_time, Some(analysis.end_time)));
    assert_eq!((analysis.end, analysis.exit_code, analysis.signal), (End::Exit, Some(0), None));
}

#[test]
fn one_block_and_one_that_stays() {
    let words = Words::new().alloc(0x10, 2_000, 0, 100).alloc(0x20, 3_000, 0, 0).free(0x10, 4_500_000);
    let analysis =
        analyze_all(&TraceBuilder::new(9_000_000).stream(1, words).rss(1_500, 7).rss(5_000_000, 9));
    assert_eq!(
        analysis.stats,
        Stats {
            total_allocations: 2,
            total_allocated: 100,
            total_deallocations: 1,
            total_deallocated: 100,
            active_allocations: 1,
            peak_memory: 100,
            peak_time: EPOCH + 2_000,
            peak_allocations: 1,
            threads: 1,
            ..Stats::default()
        }
    );
    let seen: Vec<_> =
        list(&analysis).iter().map(|a| (a.address, a.end - a.start, a.freed_by, a.end_thread)).collect();
    assert_eq!(seen, [(0x10, 4_498_000, FreedBy::Free, 1), (0x20, 8_997_000, FreedBy::Exit, 0)]);
    assert_eq!(analysis.timeline[0].rss, None);
    assert_eq!(analysis.timeline.last().unwrap().rss, Some(9));
    let lifetimes = analysis.sites[0].stats.lifetime_ns;
    assert_eq!((lifetimes.min, lifetimes.max, lifetimes.mean), (4_498_000, 8_997_000, 6_747_500));
}

#[test]
fn reallocs_count_as_the_contract_says() {
    let words = Words::new()
        .alloc(0x10, 10_000, 0, 8)
        // It stays where it is, moves, fails, is freed.
        .begin(0x10, 11_000)
        .moved(0x10, 12_000, 0, 16)
        .begin(0x10, 13_000)
        .moved(0x20, 14_000, 0, 32)
        .begin(0x20, 15_000)
        .realloc_failed(0x20, 16_000)
        .begin(0x20, 17_000)
        .freed(0x20, 17_000)
        // Of a block that nobody saw; of null.
        .begin(0x90, 18_000)
        .moved(0x30, 30_000, 0, 5 << 32)
        .alloc(0x40, 31_000, 0, 1)
        .failed(32_000)
        // The process ends inside.
        .begin(0x40, 33_000);
    let analysis = analyze_all(&TraceBuilder::new(90_000).stream(1, words));
    assert_eq!(
        analysis.stats,
        Stats {
            total_allocations: 5,
            total_allocated: 8 + 16 + 32 + (5 << 32) + 1,
            total_deallocations: 3,
            total_deallocated: 8 + 16 + 32,
            active_allocations: 2,
            active_memory: (5 << 32) + 1,
            peak_memory: (5 << 32) + 1,
            peak_time: EPOCH + 31_000,
            peak_allocations: 2,
            reallocations: 2,
            failed_allocations: 2,
            unknown_frees: 1,
            threads: 1,
            ..Stats::default()
        }
    );
    let ends: Vec<_> = list(&analysis).iter().map(|a| (a.size, a.freed_by, a.end - EPOCH)).collect();
    assert_eq!(
        ends,
        [
            (8, FreedBy::Realloc, 11_000),
            (16, FreedBy::Realloc, 13_000),
            (32, FreedBy::Free, 17_000),
            (5 << 32, FreedBy::Exit, 90_000),
            (1, FreedBy::Exit, 90_000)
        ]
    );
}

#[test]
fn a_forked_child_frees_what_it_inherited() {
    let words = Words::new().free(0x10, 2_000).begin(0x20, 3_000).moved(0x30, 4_000, 0, 8).free(0x30, 5_000);
    let mut trace = TraceBuilder::new(90_000).stream(1, words);
    assert_eq!(analyze_all(&trace).stats.unknown_frees, 2);
    trace.process.forked = true;
    let stats = analyze_all(&trace).stats;
    assert_eq!((stats.inherited_frees, stats.unknown_frees, stats.reallocations), (2, 0, 0));
    assert_eq!((stats.total_allocations, stats.total_deallocations), (1, 1));
}

#[test]
fn what_takes_an_inherited_block_s_place_counts_at_once() {
    // Each address is freed, unknown, and taken again 10 ns later; what is freed then was live beside all of them.
    let inherited = |stamp| {
        let taken = |words: Words, n: u64| {
            words.free(n << 4, stamp + 20 * n).alloc(n << 4, stamp + 20 * n + 10, 0, 100 + n)
        };
        let words = (1..=4).fold(Words::new().alloc(0x500, stamp, 0, 500), taken).free(0x500, stamp + 200);
        (1..=4).fold(words, |words, n| words.free(n << 4, stamp + 200 + n))
    };
    for forked in [true, false] {
        let mut alone = TraceBuilder::new(90_000).stream(1, inherited(2_000));
        alone.process.forked = forked;
        let mut before_others = TraceBuilder::new(90_000)
            .stream(1, inherited(2_000))
            .stream(2, Words::new().alloc(0x900, 20_000, 0, 1).free(0x900, 20_001));
        before_others.process.forked = forked;
        for trace in [alone, before_others] {
            let stats = analyze_all(&trace).stats;
            assert_eq!((stats.peak_memory, stats.peak_allocations, stats.peak_time - EPOCH), (910, 5, 2_090));
            assert_eq!(stats.inherited_frees + stats.unknown_frees, 4);
            assert_eq!(stats.active_allocations, 0);
        }
    }
}

#[test]
fn the_same_each_time() {
    // All at one stamp: what ended and what lives at an address can be told by their ends only. Each analysis has a key of its own.
    let words = (1..500).fold(Words::new(), |words, n| {
        words.alloc(n * 16, 5_000, 0, n).free(n * 16, 5_000).alloc(n * 16, 5_000, 0, 2 * n)
    });
    let trace = TraceBuilder::new(90_000).stream(1, words);
    let first = list(&analyze_all(&trace));
    assert_eq!(first.len(), 998);
    for _ in 0..3 {
        assert!(list(&analyze_all(&trace)) == first);
    }
}

#[test]
fn streams_of_one_thread_and_blocks_that_change_hands() {
    // Thread 2 has a nested stream (a signal handler); thread 3 only fails; thread 9 does nothing at all.
    let one = Words::new().thread(kind::THREAD_START, 1, 1_500, "main").alloc(0x10, 2_000, 0, 8);
    let two = Words::new().thread(kind::THREAD_START, 2, 1_600, "worker").free(0x10, 3_000);
    let nested = Words::new().alloc(0x20, 3_100, 0, 8).free(0x20, 3_200);
    let three = Words::new().failed(3_300);
    let nine = Words::new().thread(kind::THREAD_END, 9, 3_400, "idle");
    let trace = TraceBuilder::new(90_000).stream(1, one).stream(2, two).stream(2, nested);
    let analysis =
        analyze_all(&trace.stream(3, three).stream(9, nine).name(2, 50_000, "renamed").name(1, 900, "early"));
    assert_eq!(analysis.stats.threads, 2);
    let threads: Vec<_> =
        analysis.threads.iter().map(|t| (t.id, t.name.as_deref(), t.start_time - EPOCH)).collect();
    assert_eq!(threads, [(1, Some("main"), 1_500), (2, Some("renamed"), 1_600)]);
    let seen: Vec<_> = list(&analysis).iter().map(|a| (a.address, a.thread, a.end_thread)).collect();
    assert_eq!(seen, [(0x10, 1, 2), (0x20, 2, 2)]);
}

/// The first block's end has a stamp before that of its start: it does not begin in the life of the next one at its address.
#[test]
fn lives_of_an_address_do_not_overlap() {
    let first = Words::new().alloc(0x10, 2_400, 0, 1);
    let second = Words::new().free(0x10, 2_000).alloc(0x10, 2_040, 0, 2).free(0x10, 900_000);
    let analysis = analyze_all(&TraceBuilder::new(1_000_000).stream(1, first).stream(2, second));
    let lives: Vec<_> =
        list(&analysis).iter().map(|a| (a.size, a.start - EPOCH, a.end - EPOCH, a.thread)).collect();
    assert_eq!(lives, [(1, 2_000, 2_000, 1), (2, 2_040, 900_000, 2)]);
    assert_eq!(analysis.stats.unknown_frees, 0);
}

#[test]
fn a_stream_changes_hands() {
    // Thread 4 continues what 3 has begun, does nothing, and hands it on to 5.
    let words = Words::new()
        .thread(kind::THREAD_START, 3, 2_000, "three")
        .alloc(0x10, 3_000, 0, 8)
        .thread(kind::THREAD_END, 3, 4_000, "three")
        .thread(kind::THREAD_START, 4, 10_000, "four")
        .failed(11_000)
        .thread(kind::THREAD_START, 5, 20_000, "five")
        .free(0x10, 20_000)
        .alloc(0x20, 21_000, 0, 8);
    let analysis = analyze_all(&TraceBuilder::new(90_000).stream(3, words));
    let threads: Vec<_> =
        analysis.threads.iter().map(|t| (t.id, t.name.as_deref().unwrap_or_default())).collect();
    assert_eq!((threads, analysis.stats.threads), (vec![(1, ""), (3, "three"), (5, "five")], 3));
    let seen: Vec<_> = list(&analysis).iter().map(|a| (a.address, a.thread, a.end_thread)).collect();
    assert_eq!(seen, [(0x10, 3, 5), (0x20, 5, 0)]);
}

#[test]
fn sites_are_stacks() {
    // 4 and 5 are the same stack, found twice; 6 is of the next generation; 7 is cut; 99 was lost.
    let one = Words::new()
        .module(0, 0x1000, 0x2000, "/bin/a")
        .module(0, 0x8000, 0x9000, "/lib/old")
        .node(kind::NODE_ROOT, 0, 1, 0)
        .node(kind::NODE, 0x1100, 2, 1)
        .node(kind::NODE, 0x8100, 4, 2)
        .alloc(0x10, 2_000, 4, 10)
        .gone(1, 2_500, 0x8000)
        .module(1, 0x8000, 0x9000, "/lib/new")
        .node(kind::NODE_ROOT, 1, 3, 0)
        .node(kind::NODE, 0x8100, 6, 3)
        .alloc(0x20, 3_000, 6, 20);
    let two = Words::new()
        .alloc(0x30, 2_100, 5, 40)
        .node(kind::NODE, 0x8100, 5, 2)
        .node(kind::NODE_TRUNCATED, 0, 8, 1)
        .node(kind::NODE_GUESSED, 0x1500, 7, 8)
        .alloc(0x40, 3_100, 7, 80)
        .alloc(0x50, 3_200, 99, 160)
        .alloc(0x60, 3_300, 0, 320)
        .free(0x30, 3_400);
    let analysis = analyze_all(&TraceBuilder::new(90_000).stream(1, one).stream(2, two));
    let describe = |(at, site): (usize, &Site)| {
        let trace = analysis.trace(at);
        let name =
            |module: u32| String::from_utf8_lossy(&analysis.modules[module as usize].path).into_owned();
        let frame = |at: &u32| {
            let frame = analysis.frames()[*at as usize];
            (frame.address, frame.module.map(name).unwrap_or_default())
        };
        let frames: Vec<_> = trace.frames.iter().map(frame).collect();
        (site.stats.allocated, site.has_stack(), trace.truncated, trace.guessed, frames)
    };
    let mut sites: Vec<_> = analysis.sites.iter().enumerate().map(describe).collect();
    sites.sort();
    let frame = |address, module: &str| (address, module.to_owned());
    assert_eq!(
        sites,
        [
            (20, true, false, false, vec![frame(0x80ff, "/lib/new")]),
            (50, true, false, false, vec![frame(0x80ff, "/lib/old"), frame(0x10ff, "/bin/a")]),
            (80, true, true, true, vec![frame(0x14ff, "/bin/a")]),
            (160, true, true, false, vec![]),
            (320, false, true, false, vec![]),
        ]
    );
    let joined = analysis.sites.iter().find(|site| site.stats.allocated == 50).unwrap().stats;
    assert_eq!((joined.peak_memory, joined.active_memory, joined.deallocated), (50, 10, 40));
}

#[test]
fn what_is_missing_is_said() {
    let stream = |first: u64| {
        let stamps = (0..300).map(|n| first + n * 100);
        stamps.fold(Words::new(), |words, stamp| words.alloc(stamp, stamp, 0, 1).free(stamp, stamp + 50))
    };
    let trace = || TraceBuilder::new(200_000).stream(1, stream(10_000)).stream(2, stream(100_000));
    assert!(analyze_all(&trace()).is_complete());
    let lacks = |trace: TraceBuilder| {
        let analysis = analyze_all(&trace);
        (analysis.incomplete_reason.unwrap_or_default(), analysis.incomplete_since.unwrap_or(EPOCH) - EPOCH)
    };
    // Frames have 50 records: 25 pairs each. Number 2 begins at pair 50.
    let (reason, since) = lacks(TraceBuilder { left_out: vec![2], ..trace() });
    assert_eq!((reason.as_str(), since), ("125 words of records are missing", 10_000 + 49 * 100 + 50));
    let (reason, since) = lacks(TraceBuilder { damaged: vec![2], ..trace() });
    assert_eq!((reason.contains("damaged part"), since), (true, 10_000 + 50 * 100), "{reason}");
    let (reason, since) = lacks(TraceBuilder { left_out: vec![23], ..trace() });
    assert_eq!((reason.as_str(), since), ("50 records are missing", 200_000));
    let (reason, since) = lacks(TraceBuilder { end: None, ..trace() });
    assert_eq!((reason.as_str(), since), ("the end of the recording is missing", 100_000 + 299 * 100 + 50));
    let cut = trace().bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.trace");
    std::fs::write(&path, &cut[..cut.len() / 2]).unwrap();
    let analysis = analyze(&path, Options::default()).unwrap();
    check(&analysis);
    assert_eq!(analysis.end, End::Unknown);
    let reason = analysis.incomplete_reason.unwrap();
    assert!(reason.contains("the end of the recording is missing") && reason.contains("cut"), "{reason}");
    std::fs::write(&path, &cut[..64]).unwrap();
    assert!(
        analyze(&path, Options::default()).unwrap_err().to_string().contains("cut before its first record")
    );
}

#[test]
fn after_the_end_of_recording_events_only_count() {
    let words =
        Words::new().alloc(0x10, 2_000, 0, 8).alloc(0x20, 3_000, 0, 8).free(0x10, 5_000).free(0x20, 6_000);
    let mut trace = TraceBuilder::new(9_000).stream(1, words);
    let end = trace.end.as_mut().unwrap();
    (end.complete, end.lost_events, end.incomplete_since) = (false, 100, Some(4_000));
    end.reason = Some("no space was left for the recording".into());
    let analysis = analyze_all(&trace);
    assert_eq!((analysis.stats.lost_events, analysis.stats.active_allocations), (102, 2));
    assert_eq!(analysis.incomplete_reason.as_deref(), Some("no space was left for the recording"));
    assert_eq!((analysis.incomplete_since, analysis.end_time), (Some(EPOCH + 4_000), EPOCH + 9_000));
}

#[test]
fn a_process_that_still_runs() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let mut trace = TraceBuilder { end: None, ..TraceBuilder::new(0) };
    trace.process.pid = std::process::id();
    trace.process.start_ticks = after_name.split_whitespace().nth(19).unwrap().parse().unwrap();
    let analysis = analyze_all(&trace.stream(1, Words::new().alloc(0x10, 2_000, 0, 8).free(0x99, 4_000)));
    assert_eq!((analysis.end, analysis.end_time), (End::Running, EPOCH + 4_000));
    assert!(analysis.is_complete());
    assert_eq!(list(&analysis)[0].freed_by, FreedBy::Live);
}

/// The same numbers, counted in the plainest way.
#[test]
fn agrees_with_a_plain_count() {
    for seed in 0..10 {
        let mut random = Rng::new(seed);
        let mut streams = vec![Words::new(); 1 + seed as usize % 4];
        let nodes = (2..40).fold(Words::new().node(kind::NODE_ROOT, 0, 1, 0), |words, id| {
            words.node(kind::NODE, 0x1000 + random.below(6), id, 1 + random.below(u64::from(id) - 1) as u32)
        });
        streams[0] = nodes;
        let (mut stamp, mut live) = (10_000, BTreeMap::new());
        let mut expected = Stats::default();
        for _ in 0..5_000 {
            // So far apart that the order is certain.
            stamp += 6_000 + random.below(5_000_000);
            let at = random.below(streams.len() as u64) as usize;
            let words = std::mem::take(&mut streams[at]);
            let address = 16 * (1 + random.below(300));
            streams[at] = match live.remove(&address) {
                Some(size) => {
                    expected.total_deallocations += 1;
                    expected.total_deallocated += size;
                    words.free(address, stamp)
                }
                None if random.below(30) == 0 => {
                    expected.unknown_frees += 1;
                    words.free(address, stamp)
                }
                None => {
                    let bits = 4 + random.below(32);
                    let size = random.below(1 << bits);
                    live.insert(address, size);
                    expected.total_allocations += 1;
                    expected.total_allocated += size;
                    words.alloc(address, stamp, random.below(40) as u32, size)
                }
            };
            let active: u64 = live.values().sum();
            if active > expected.peak_memory {
                expected.peak_memory = active;
                expected.peak_time = EPOCH + stamp;
                expected.peak_allocations = live.len() as u64;
            }
        }
        expected.active_allocations = live.len() as u64;
        expected.active_memory = live.values().sum();
        expected.threads = streams.len() as u64;
        let trace =
            TraceBuilder { frame_records: 1 + random.below(300) as usize, ..TraceBuilder::new(stamp + 1) };
        let trace = (1..).zip(streams).fold(trace, |trace, (thread, words)| trace.stream(thread, words));
        assert_eq!(analyze_all(&trace).stats, expected, "seed {seed}");
        for (wanted, count) in [(Wanted::Live, expected.active_allocations), (Wanted::None, 0)] {
            let analysis = trace.analyze(wanted);
            assert_eq!((analysis.allocations.len(), analysis.stats), (count, expected));
        }
    }
}

#[test]
fn progress_reaches_its_end() {
    let words = (1..200_000u64).fold(Words::new(), |words, n| words.alloc(n, 10_000 + n, 0, 1));
    let trace = TraceBuilder { frame_records: 10_000, ..TraceBuilder::new(900_000) }.stream(1, words);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    std::fs::write(&path, trace.bytes()).unwrap();
    let mut seen = Vec::new();
    let mut progress = |done, total| seen.push((done, total));
    let options = Options { progress: Some(&mut progress), ..Options::default() };
    let analysis = analyze(&path, options).unwrap();
    check(&analysis);
    assert_eq!(analysis.allocations.included(), Included::Live, "too many to list all by default");
    assert!(seen.is_sorted() && seen.iter().all(|(done, total)| done <= total));
    let (done, total) = *seen.last().unwrap();
    assert_eq!(done, total);
}

#[test]
fn blocks_have_the_names_that_they_were_given() {
    let names = |analysis: &ProcessAnalysis| -> Vec<(u64, Option<String>)> {
        let name = |id| analysis.allocations.name(id).and_then(|name| name.variable.clone());
        list(analysis).iter().map(|allocation| (allocation.address, name(allocation.name))).collect()
    };
    let main = Words::new()
        .name(1, "first")
        .alloc(0x10, 10_000, 0, 8)
        .named(0x10, 11_000, 1)
        .named(0x10, 12_000, 2)
        .begin(0x10, 20_000)
        .moved(0x20, 21_000, 0, 16)
        // The old address lives again, in another block.
        .alloc(0x10, 30_000, 0, 8)
        .begin(0x20, 40_000)
        .moved(0x20, 41_000, 0, 32)
        .free(0x20, 50_000)
        .alloc(0x20, 60_000, 0, 8)
        .alloc(0x100, 70_000, 0, 64)
        .named_inside(0x130, 71_000, 1, 8)
        .named(0x40, 75_000, 2);
    let other = Words::new()
        .name(2, "renamed")
        .name(3, "by another thread")
        .named(0x10, 90_000, 3)
        .alloc(0x40, 95_000, 0, 8)
        .named(0x40, 96_000, 4);
    let analysis = analyze_all(&TraceBuilder::new(200_000).stream(1, main).stream(2, other));
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (0x10, text("renamed")),
        (0x20, text("renamed")),
        (0x10, text("by another thread")),
        (0x20, text("renamed")),
        (0x20, None),
        (0x100, text("first")),
        (0x40, None),
    ];
    assert_eq!(names(&analysis), expected);
    assert_eq!(analysis.stats.reallocations, 2);
}
