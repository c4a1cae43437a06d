//! Models of what the program's threads and the writer do with each other, for `--cfg loom`: the real code from the hook's
//! entry to what the writer takes, in every order of its steps (see `sync::model`).
//!
//! Each model ends as a process does that is complete: the writer takes what is left. Then all that was recorded must have
//! been taken once and in order.

use crate::process::{Phase, Process};
use crate::program::{Op, birth, tls};
use crate::spool::buffer::Buffer;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::model::{Touch, check, spawn};
use crate::sys::{memory, process as os};
use crate::writer::drain;
use crate::writer::sink::Sink;
use memscope_shared::record::{OPERAND_MASK, kind, kind_of};
use memscope_shared::spool as layout;
use memscope_shared::spool::role::{self, Claim};
use std::collections::BTreeMap;

/// A process that records, with this many buffers.
fn process(buffers: usize, has_writer: bool) -> &'static Process {
    let process = Process::model();
    give_buffers(process, buffers);
    process.writer.open(Some(Box::default()), Box::new(Sink::model()), has_writer);
    process.set_phase(Phase::Recording);
    process
}

fn give_buffers(process: &Process, count: usize) -> Vec<Buffer> {
    process.pool.stay();
    let buffers = (0..count).map(|_| {
        let memory = memory::map_private(layout::BUFFER_BYTES).expect("memory");
        // SAFETY: newly mapped, and for as long as the model runs.
        let buffer = unsafe { Buffer::at(memory) }.expect("an address");
        buffer.touch();
        process.pool.give(buffer);
        buffer
    });
    buffers.collect()
}

/// The same for one that a drainer may come to.
fn drained_process(buffers: usize) -> (&'static Process, Vec<Buffer>) {
    let process = Process::model();
    let buffers = give_buffers(process, buffers);
    process.spool().model();
    half(process, layout::header::ROLE).store(role::BUSY, Ordering::Release);
    process.writer.left.set_on();
    process.writer.open(Some(Box::default()), Box::new(Sink::model()), false);
    process.set_phase(Phase::Recording);
    process.writer.let_drainer_come(process);
    (process, buffers)
}

fn half(process: &'static Process, offset: usize) -> &'static AtomicU32 {
    process.spool().half(offset).expect("a header")
}

/// Records these numbers, each with a call of the hook.
fn record(numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let frame = [0_usize; 2];
        let sp = &raw const frame as usize;
        // SAFETY: no stack is captured for an end of a block, so the frame is only an address.
        let op = unsafe { Op::begin(sp, 0) }.expect("it is recorded");
        op.freeing(number);
    }
}

/// The end of a thread's life, as its last destructor sees it.
fn thread_ends() {
    birth::thread_ends(tls::get());
}

/// One look of the writer at part-filled buffers and at the queue.
fn look(process: &'static Process) {
    let held = process.writer.hold().expect("a sink");
    drain::partial(process, held.sink);
    drain::queued(process, &process.writer, held.sink);
}

/// Writes what is left and gives all records that were taken, by stream; checks that each stream is whole.
fn taken(process: &'static Process) -> BTreeMap<u32, Vec<(u8, u64)>> {
    let held = process.writer.hold().expect("a sink");
    if process.writer.left.is_on() {
        held.sink.catch_up().expect("a trace");
    }
    while drain::queued(process, &process.writer, held.sink) {}
    assert!(drain::partial(process, held.sink));
    let mut streams = BTreeMap::<u32, Vec<u64>>::new();
    for (stream, position, words) in &held.sink.taken {
        let all = streams.entry(*stream).or_default();
        assert_eq!(*position, all.len() as u64, "stream {stream} has a gap or something twice");
        all.extend(words);
    }
    streams.into_iter().map(|(stream, words)| (stream, parse(&words))).collect()
}

fn parse(mut words: &[u64]) -> Vec<(u8, u64)> {
    let mut records = Vec::new();
    while let Some(&head) = words.first() {
        let length = match kind_of(head) {
            kind::FREE => 2,
            kind::THREAD_START | kind::THREAD_END => 4,
            other => panic!("no record of this kind was made: {other:#x}"),
        };
        records.push((kind_of(head), head & OPERAND_MASK));
        words = &words[length..];
    }
    records
}

/// The numbers that `record` was given, in the order of a stream.
fn numbers(records: &[(u8, u64)]) -> Vec<u64> {
    records.iter().filter(|record| record.0 == kind::FREE).map(|record| record.1).collect()
}

fn all_numbers(streams: &BTreeMap<u32, Vec<(u8, u64)>>) -> Vec<u64> {
    let mut all: Vec<_> = streams.values().flat_map(|records| numbers(records)).collect();
    all.sort_unstable();
    all
}

/// A thread fills buffers and hands them over, while the writer takes what is part-filled and what is whole. There are
/// fewer buffers than the thread fills: it waits for the writer.
#[test]
fn hand_over() {
    let orders = check(2, || {
        let process = process(2, true);
        let done = flag();
        let producer = spawn(2, move || {
            record(1..=3);
            done.store(1, Ordering::Release);
        });
        while done.load(Ordering::Acquire) == 0 {
            look(process);
            os::yield_now();
        }
        producer.join().expect("the producer");
        let streams = taken(process);
        assert_eq!(numbers(&streams[&1]), [1, 2, 3]);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// The same with two threads and buffers enough: they never wait, and look at each other's leavings.
#[test]
fn two_threads_hand_over() {
    let orders = check(2, || {
        let process = process(8, true);
        let threads = [2, 3].map(|tid| spawn(tid, move || record((0..3).map(|n| tid as usize * 10 + n))));
        look(process);
        threads.into_iter().for_each(|thread| thread.join().expect("a producer"));
        let streams = taken(process);
        assert_eq!(all_numbers(&streams), [20, 21, 22, 30, 31, 32]);
        assert!(streams.values().all(|records| numbers(records).is_sorted()));
    });
    assert!(orders > 100, "only {orders} orders");
}

/// No thread of ours lives: who has filled a buffer writes it, and what lies in the queue from others.
#[test]
fn without_a_writer() {
    let orders = check(2, || {
        let process = process(4, false);
        let threads = [2, 3].map(|tid| spawn(tid, move || record((0..4).map(|n| tid as usize * 10 + n))));
        threads.into_iter().for_each(|thread| thread.join().expect("a producer"));
        let streams = taken(process);
        assert_eq!(all_numbers(&streams), [20, 21, 22, 23, 30, 31, 32, 33]);
        assert!(streams.values().all(|records| numbers(records).is_sorted()));
    });
    assert!(orders > 100, "only {orders} orders");
}

/// A thread dies, with events after its last destructor, while another begins: that one goes on in its state and its
/// buffer, or in new ones, and nothing of the dead one is lost.
#[test]
fn a_thread_dies_while_another_begins() {
    let orders = check(2, || {
        let process = process(8, true);
        let dying = spawn(2, || {
            record([20]);
            thread_ends();
            record([21]);
        });
        let heir = spawn(3, || record([30, 31]));
        look(process);
        dying.join().expect("it dies");
        heir.join().expect("an heir");
        assert_whole(process, &[20, 21, 30, 31]);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// A thread has died, and two begin: one of them takes its state over, never both.
#[test]
fn a_dead_threads_state_has_one_heir() {
    let orders = check(2, || {
        let process = process(8, true);
        let dying = spawn(2, || {
            record([20]);
            thread_ends();
        });
        dying.join().expect("it dies");
        let heirs = [3, 4].map(|tid| spawn(tid, move || record([tid as usize * 10])));
        heirs.into_iter().for_each(|thread| thread.join().expect("an heir"));
        assert_eq!(process.each_state().count(), 2);
        assert_whole(process, &[20, 30, 40]);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// All numbers were taken, each in a stream behind the start of its thread, and no two threads have one number.
fn assert_whole(process: &'static Process, expected: &[u64]) {
    let streams = taken(process);
    assert_eq!(all_numbers(&streams), expected);
    let starts = |records: &Vec<_>| {
        records
            .iter()
            .filter(|r: &&(u8, u64)| r.0 == kind::THREAD_START)
            .map(|r| r.1 >> 32)
            .collect::<Vec<_>>()
    };
    let mut threads: Vec<_> = streams.values().flat_map(starts).collect();
    threads.sort_unstable();
    assert!(threads.windows(2).all(|pair| pair[0] != pair[1]), "{threads:?}");
    streams.values().for_each(|records| follows_its_thread(records));
}

/// In a stream each number stands behind the start of the thread that recorded it.
fn follows_its_thread(records: &[(u8, u64)]) {
    let mut tid = 0;
    for &(kind, operand) in records {
        match kind {
            kind::THREAD_START => tid = operand & 0xff_ffff,
            kind::FREE => assert_eq!(operand / 10, tid, "{records:?}"),
            _ => {}
        }
    }
}

/// The writer walks the registry of threads while threads are added to it.
#[test]
fn the_registry_is_walked_while_it_grows() {
    let orders = check(3, || {
        let process = process(4, true);
        let threads = [2, 3].map(|tid| spawn(tid, move || record([tid as usize])));
        for _ in 0..2 {
            assert!(process.each_state().count() <= 2);
            look(process);
        }
        threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
        assert_eq!(process.each_state().count(), 2);
        assert_eq!(all_numbers(&taken(process)), [2, 3]);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// No buffer has two owners, also where it goes and comes back between two steps of another thread.
#[test]
fn the_pools_buffers_have_one_owner() {
    let orders = check(2, || {
        let process = process(2, true);
        let threads = [2, 3].map(|tid| {
            spawn(tid, move || {
                for _ in 0..2 {
                    let Some(buffer) = process.pool.take(process.spool()) else { continue };
                    crate::sync::writes(buffer.words(), 1);
                    buffer.adopt(u64::from(tid), 0, 0);
                    let other = process.pool.take(process.spool());
                    assert_ne!(other, Some(buffer));
                    process.pool.give(buffer);
                    other.into_iter().for_each(|other| process.pool.give(other));
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
        let (one, two) = (process.pool.take(process.spool()), process.pool.take(process.spool()));
        assert!(one.is_some() && two.is_some() && one != two, "both buffers came back");
        assert_eq!(process.pool.take(process.spool()), None);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// What `memscope-cli` does: it claims the trace, takes full buffers and part-filled ones for some rounds, and lets go or dies.
/// True where it had the claim.
fn drain(process: &'static Process, buffers: &[Buffer], rounds: usize, dies: bool) -> bool {
    let claim = role::claim(half(process, layout::header::ROLE));
    if claim != Claim::Made {
        return false;
    }
    // SAFETY: the claim makes us its only user, which the model watches.
    let trace = unsafe { &mut *process.writer.model_trace() };
    let mut written = trace.model_written();
    for round in 0..rounds {
        for state in [role::FULL, role::FILLING] {
            // As the drainer does: each word is read once, the state first.
            let mut found: Vec<_> = buffers
                .iter()
                .filter(|buffer| buffer.header().state.load(Ordering::Acquire) == state)
                .map(|buffer| {
                    (buffer.header().stream.load(Ordering::Acquire) as u32, buffer.untaken(), buffer)
                })
                .filter(|(stream, ..)| *stream != 0)
                .collect();
            found.sort_by_key(|(stream, (position, _), _)| (*stream, *position));
            for (stream, piece, buffer) in found {
                if piece.0 > written.end(stream) {
                    continue;
                }
                let mut parts: [&[u64]; 1] = [&[]];
                let run = written.run(stream, [piece], &mut parts);
                if run.end > run.start {
                    trace.model_write(stream, run.start, parts[0].to_vec());
                    written.reach(stream, run.end);
                }
                if dies && round + 1 == rounds {
                    // Between writing and giving back.
                    return true;
                }
                if state == role::FULL {
                    assert!(role::Word::replace(&buffer.header().state, role::FULL, role::DRAINED));
                    half(process, layout::header::RETURNED).fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        os::yield_now();
    }
    true
}

/// A drainer comes, takes what it finds and lets go, while a thread fills more buffers than there are.
#[test]
fn a_drainer_comes_and_goes() {
    let orders = check(2, || {
        let (process, buffers) = drained_process(2);
        let producer = spawn(2, || record(1..=3));
        if drain(process, &buffers, 1, false) {
            role::let_go(half(process, layout::header::ROLE));
        }
        producer.join().expect("the producer");
        let streams = taken(process);
        assert_eq!(numbers(&streams[&1]), [1, 2, 3]);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// It dies with the claim, having written what it has not given back: the thread finds that out and goes on from there.
#[test]
fn a_drainer_dies() {
    let orders = check(2, || {
        let (process, buffers) = drained_process(2);
        let producer = spawn(2, || record(1..=3));
        drain(process, &buffers, 1, true);
        crate::sync::model::drainer_dies();
        producer.join().expect("the producer");
        let streams = taken(process);
        assert_eq!(numbers(&streams[&1]), [1, 2, 3]);
    });
    assert!(orders > 100, "only {orders} orders");
}

/// The process wants no drainer any more while a thread of it may be writing: one that has come lets go, and none comes.
#[test]
fn a_recall_while_a_thread_writes() {
    let orders = check(2, || {
        let (process, buffers) = drained_process(4);
        let producer = spawn(2, || record(1..=3));
        let role = half(process, layout::header::ROLE);
        role::recall(role);
        assert!(!drain(process, &buffers, 1, false), "it came");
        producer.join().expect("the producer");
        let streams = taken(process);
        assert_eq!(numbers(&streams[&1]), [1, 2, 3]);
    });
    assert!(orders > 10, "only {orders} orders");
}

/// A flag between a model's threads.
fn flag() -> &'static AtomicU32 {
    let memory = memory::map_private(memory::PAGE).expect("memory").cast::<AtomicU32>();
    // SAFETY: newly mapped, and for as long as the model runs; zero is valid.
    let flag = unsafe { &*memory };
    flag.touch();
    flag
}
