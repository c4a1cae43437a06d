//! Pairing against a model: threads whose true order is known, and stamps that are a little wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::super::testing::Rng;
use super::*;

#[derive(Debug, Default)]
struct Book {
    lives: Vec<Life>,
    starts: u64,
    ends: u64,
    bytes: u64,
    reallocs: u64,
    unknown: u64,
    /// Live by address, to see that there are never two of one.
    live: BTreeMap<u64, Block>,
}

impl Ledger for Book {
    fn start(&mut self, block: &Block) {
        self.starts += 1;
        self.bytes += block.size;
        assert_eq!(self.live.insert(block.address, *block), None);
    }
    fn end(&mut self, block: &Block) {
        self.ends += 1;
        self.bytes -= block.size;
        assert_eq!(self.live.remove(&block.address), Some(*block));
    }
    fn reopen(&mut self, block: &Block) {
        self.ends -= 1;
        self.bytes += block.size;
        assert_eq!(self.live.insert(block.address, *block), None);
    }
    fn close(&mut self, life: &Life) {
        self.lives.push(*life);
    }
    fn realloc(&mut self) {
        self.reallocs += 1;
    }
    fn unknown(&mut self, _: &Ending) {
        self.unknown += 1;
    }
}

/// An event of the tests: `size` names the block, so that pairs can be told.
#[derive(Clone, Copy, Debug)]
enum Step {
    Start { address: u64, size: u64 },
    End { address: u64, by: By },
}

#[derive(Clone, Copy, Debug)]
struct Stamped {
    time: u64,
    stream: u32,
    step: Step,
}

fn start(time: u64, stream: u32, address: u64, size: u64) -> Stamped {
    Stamped { time, stream, step: Step::Start { address, size } }
}

fn end(time: u64, stream: u32, address: u64) -> Stamped {
    Stamped { time, stream, step: Step::End { address, by: By::Free } }
}

/// Runs the events in the order of their stamps; those of one stream stay in order.
fn run(events: &[Stamped]) -> (Book, Pairing) {
    run_in(Pairing::new(), events)
}

fn run_in(mut pairing: Pairing, events: &[Stamped]) -> (Book, Pairing) {
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|event| event.time);
    let mut book = Book::default();
    for Stamped { time, stream, step } in sorted {
        match step {
            Step::Start { address, size } => {
                pairing.start(Block { address, start: time, size, site: 0, stream }, &mut book);
            }
            Step::End { address, by } => pairing.end(address, Ending { time, stream, by }, &mut book),
        }
    }
    pairing.finish(&mut book);
    assert_eq!(book.live.len(), pairing.live().len());
    assert!(pairing.live().iter().all(|block| book.live.get(&block.address) == Some(block)));
    assert_eq!(book.starts - book.ends, book.live.len() as u64);
    assert_eq!(book.lives.len() as u64, book.ends);
    (book, pairing)
}

/// (block, stream and time of its end), sorted.
fn pairs(book: &Book) -> BTreeSet<(u64, u32, u64)> {
    book.lives.iter().map(|life| (life.block.size, life.end.stream, life.end.time)).collect()
}

#[test]
fn plain_lives() {
    let (book, _) =
        run(&[start(10, 0, 0x10, 1), start(20, 0, 0x20, 2), end(30, 0, 0x10), start(40, 0, 0x10, 3)]);
    assert_eq!(pairs(&book), [(1, 0, 30)].into());
    assert_eq!(book.lives[0].lifetime(), 20);
    assert_eq!((book.bytes, book.unknown), (5, 0));
}

/// While a stream is alone its lives are closed at once, and later ones when their time has come.
#[test]
fn one_stream_is_what_it_is_among_many() {
    let mut model = Model::new(5, 1, true);
    model.run(6_000);
    let expected = run(&model.events).0;
    let last = model.events.iter().map(|event| event.time).max().unwrap_or_default();
    for second in [last / 2, u64::MAX] {
        let mut pairing = Pairing::new();
        pairing.second_stream_at(second);
        let (book, _) = run_in(pairing, &model.events);
        assert!(pairs(&book) == pairs(&expected), "until {second}");
        assert_eq!(
            (book.starts, book.ends, book.unknown),
            (expected.starts, expected.ends, expected.unknown)
        );
    }
}

#[test]
fn an_address_taken_over_before_its_end_is_seen() {
    let (book, _) =
        run(&[start(10, 0, 0x10, 1), start(5_000, 1, 0x10, 2), end(5_300, 0, 0x10), end(9_000, 1, 0x10)]);
    assert_eq!(pairs(&book), [(1, 0, 5_300), (2, 1, 9_000)].into());
    assert_eq!(book.unknown, 0);
}

#[test]
fn an_end_seen_before_its_start() {
    let (book, _) = run(&[end(5_000, 1, 0x10), start(5_400, 0, 0x10, 1)]);
    assert_eq!(pairs(&book), [(1, 1, 5_000)].into());
    assert_eq!(book.lives[0].lifetime(), 0, "never negative");
    assert_eq!((book.unknown, book.live.len()), (0, 0));
}

#[test]
fn unknown_ends() {
    // Alone; followed by a start of the same thread; too far from the start of another.
    let (book, _) = run(&[
        end(10, 0, 0x10),
        end(20, 0, 0x20),
        start(30, 0, 0x20, 1),
        end(40, 0, 0x20),
        end(50, 0, 0x30),
        start(51 + WINDOW, 1, 0x30, 2),
    ]);
    assert_eq!(book.unknown, 3);
    assert_eq!(pairs(&book), [(1, 0, 40)].into());
    assert_eq!(book.live.keys().copied().collect::<Vec<_>>(), [0x30]);
}

#[test]
fn an_end_that_nobody_saw() {
    let (book, _) = run(&[start(10, 0, 0x10, 1), start(100_000, 1, 0x10, 2), end(200_000, 1, 0x10)]);
    assert_eq!(pairs(&book), [(1, u32::MAX, 100_000), (2, 1, 200_000)].into());
    assert_eq!(book.lives[0].end.by, By::Unseen);
}

#[test]
fn a_wrong_choice_is_taken_back() {
    // Truth: 0 allocates, 1 frees and allocates again, 0 frees that. The last free looks too early.
    let (book, _) =
        run(&[start(1_000, 0, 0x10, 1), end(1_300, 0, 0x10), end(1_400, 1, 0x10), start(1_450, 1, 0x10, 2)]);
    assert_eq!(pairs(&book), [(1, 1, 1_400), (2, 0, 1_300)].into());
    assert_eq!((book.unknown, book.live.len()), (0, 0));
    // The same, and the second block stays.
    let (book, _) = run(&[
        start(1_000, 0, 0x10, 1),
        start(1_100, 1, 0x10, 2),
        end(1_200, 1, 0x10),
        start(1_210, 1, 0x10, 3),
        end(1_500, 0, 0x10),
    ]);
    assert_eq!((book.unknown, book.starts, book.ends), (0, 3, 2));
}

/// Two threads take blocks out of the same place in turns. A free that waits for the block which the other one puts there reads its
/// clock before it has it: its stamp lies a little before that block's start.
#[test]
fn of_two_orders_the_one_counts_whose_stamps_are_less_wrong() {
    let (book, _) = run(&[
        start(1_068, 1, 0x10, 1),
        end(1_382, 1, 0x10),
        end(1_460, 2, 0x10),
        start(1_500, 2, 0x10, 2),
        start(1_755, 1, 0x10, 3),
        end(52_157, 1, 0x10),
    ]);
    // Not (1, 1, 1_382), (3, 2, 1_460): that start would be 295 ns too late, and the block would lie in the life of the other.
    assert_eq!(pairs(&book), [(1, 2, 1_460), (2, 1, 1_382), (3, 1, 52_157)].into());
    assert_eq!((book.unknown, book.starts, book.live.len()), (0, 3, 0));
}

/// The same when the events did not come so close together that they were decided on at once.
#[test]
fn late_orders_are_the_least_wrong_ones_too() {
    let late = QUICK + 500;
    let (book, _) = run(&[
        start(10_000, 1, 0x10, 1),
        end(11_000, 1, 0x10),
        end(11_100, 2, 0x10),
        start(11_150, 2, 0x10, 2),
        start(11_100 + late, 1, 0x10, 3),
        end(90_000, 2, 0x10),
    ]);
    assert_eq!(pairs(&book), [(1, 2, 11_100), (2, 1, 11_000), (3, 2, 90_000)].into());
    assert_eq!(book.unknown, 0);
}

#[test]
fn realloc_of_a_live_block_counts_and_of_an_unknown_one_does_not() {
    let by = By::Realloc;
    let realloc = |time, address| Stamped { time, stream: 0, step: Step::End { address, by } };
    let (book, _) = run(&[
        start(10, 0, 0x10, 1),
        realloc(20, 0x10),
        start(30, 0, 0x20, 2),
        realloc(40, 0x90),
        start(50, 0, 0x30, 3),
    ]);
    assert_eq!((book.reallocs, book.unknown, book.live.len()), (1, 1, 2));
    assert_eq!(book.lives[0].end.by, By::Realloc);
}

/// What a simulated program does.
struct Model {
    random: Rng,
    threads: u32,
    /// True time.
    now: u64,
    /// Last stamp of each thread.
    stamps: Vec<u64>,
    /// Live: address, block's name, thread that allocated it.
    live: Vec<(u64, u64, u32)>,
    /// Addresses to be given out again, the last freed first.
    free: Vec<u64>,
    next_address: u64,
    next_name: u64,
    /// Of each address, true times and threads of its last two events.
    last: BTreeMap<u64, [(u64, u32); 2]>,
    /// Until when an address belongs to one thread alone.
    own: BTreeMap<u64, (u32, u64)>,
    /// Keeps events of several threads at one address so far apart that only neighbours may be swapped.
    careful: bool,
    events: Vec<Stamped>,
    truth: BTreeSet<(u64, u32, u64)>,
    unknown: u64,
    reallocs: u64,
}

/// How wrong a stamp may be, in ns.
const ERROR: u64 = 1_000;

impl Model {
    fn new(seed: u64, threads: u32, careful: bool) -> Self {
        Self {
            random: Rng::new(seed),
            threads,
            now: 1_000_000,
            stamps: vec![0; threads as usize],
            live: Vec::new(),
            free: Vec::new(),
            next_address: 0x1000,
            next_name: 1,
            last: BTreeMap::new(),
            own: BTreeMap::new(),
            careful,
            events: Vec::new(),
            truth: BTreeSet::new(),
            unknown: 0,
            reallocs: 0,
        }
    }

    /// A stamp of now: wrong by up to `ERROR`, but never falling within a thread.
    fn stamp(&mut self, thread: u32) -> u64 {
        let wrong = self.now - ERROR + self.random.below(2 * ERROR + 1);
        let last = &mut self.stamps[thread as usize];
        *last = wrong.max(*last);
        *last
    }

    /// Whether `thread` may touch `address` now, where the model is careful: if other threads are involved in
    /// its last events, those lie so far back that only the very last may be swapped with this one.
    fn may_touch(&self, address: u64, thread: u32) -> bool {
        if self.own.get(&address).is_some_and(|&(owner, until)| owner != thread && self.now < until) {
            return false;
        }
        let Some(&[(before, first), (_, second)]) = self.last.get(&address) else { return true };
        let one_thread = first == thread && second == thread;
        !self.careful || one_thread || self.now > before + 2 * ERROR
    }

    fn touched(&mut self, address: u64, thread: u32) {
        let last = self.last.entry(address).or_insert([(0, thread); 2]);
        *last = [last[1], (self.now, thread)];
    }

    fn allocate(&mut self, thread: u32) {
        let may = |address: &u64| self.may_touch(*address, thread);
        let reused = self.free.last().copied().filter(may);
        let address = if reused.is_some() && self.random.below(10) < 8 {
            self.free.pop();
            reused.unwrap_or_default()
        } else {
            self.next_address += 16;
            self.next_address
        };
        let name = self.next_name;
        self.next_name += 1;
        let time = self.stamp(thread);
        self.events.push(start(time, thread, address, name));
        self.live.push((address, name, thread));
        self.touched(address, thread);
    }

    fn release(&mut self, thread: u32, by: By) {
        // Mostly the latest: addresses come back at once, and blocks change hands at once.
        let back = (self.random.below(3) * self.random.below(4)).min(self.live.len() as u64);
        let Some(at) = self.live.len().checked_sub(1 + back as usize) else { return };
        let (address, name, _) = self.live[at];
        if !self.may_touch(address, thread) {
            return;
        }
        self.live.remove(at);
        let time = self.stamp(thread);
        self.events.push(Stamped { time, stream: thread, step: Step::End { address, by } });
        self.truth.insert((name, thread, time));
        self.touched(address, thread);
        self.free.push(address);
        if by == By::Realloc {
            self.reallocs += 1;
            self.now += 1 + self.random.below(50);
            self.allocate(thread);
        }
    }

    /// Frees a block that was never seen, perhaps followed by an allocation at its place. If another thread had
    /// a part in that, the end of the block that nobody saw could be that of the new one.
    fn release_unknown(&mut self, thread: u32) {
        self.next_address += 16;
        let address = self.next_address;
        let time = self.stamp(thread);
        self.events.push(end(time, thread, address));
        self.unknown += 1;
        if self.random.below(2) == 0 {
            self.now += 1 + self.random.below(50);
            let (name, time) = (self.next_name, self.stamp(thread));
            self.next_name += 1;
            self.events.push(start(time, thread, address, name));
            self.live.insert(0, (address, name, thread));
            self.own.insert(address, (thread, self.now + 2 * WINDOW));
            self.touched(address, thread);
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.now += 1 + [self.random.below(30), self.random.below(400)][self.random.below(2) as usize];
            let thread = self.random.below(u64::from(self.threads)) as u32;
            match self.random.below(100) {
                0 => self.release_unknown(thread),
                1..=8 => self.release(thread, By::Realloc),
                9..=54 => self.release(thread, By::Free),
                _ => self.allocate(thread),
            }
        }
    }

    fn check_counts(&self, book: &Book) {
        assert_eq!(book.starts, self.next_name - 1);
        assert_eq!(book.ends, self.truth.len() as u64);
        assert_eq!(book.unknown, self.unknown);
        assert_eq!(book.reallocs, self.reallocs);
        let live: BTreeSet<_> = self.live.iter().map(|block| block.0).collect();
        assert_eq!(book.live.keys().copied().collect::<BTreeSet<_>>(), live);
        assert!(book.lives.iter().all(|life| life.end.by != By::Unseen));
    }
}

#[test]
fn finds_the_true_pairs() {
    for seed in 0..8 {
        for threads in [1, 2, 3, 8, 30] {
            let mut model = Model::new(seed, threads, true);
            model.run(3_000);
            let (book, _) = run(&model.events);
            model.check_counts(&book);
            assert_eq!(pairs(&book), model.truth, "seed {seed}, {threads} threads");
        }
    }
}

/// Without any care, several orders may be as good as the true one; then one of them is found, and
/// nothing that a sum can tell differs.
#[test]
fn counts_are_right_whatever_happens() {
    let (mut same, mut all) = (0, 0);
    for seed in 100..108 {
        for threads in [2, 3, 8, 30] {
            let mut model = Model::new(seed, threads, false);
            model.run(3_000);
            let (book, _) = run(&model.events);
            model.check_counts(&book);
            all += model.truth.len();
            same += pairs(&book).intersection(&model.truth).count();
        }
    }
    assert!(same * 100 > all * 81, "{same} of {all} pairs");
}

/// Events that no program makes: the accounts still agree with each other (`run` checks that).
#[test]
fn nonsense_is_survived() {
    for seed in 0..15 {
        let mut random = Rng::new(seed);
        let mut time = 0;
        let events: Vec<_> = (0..1_000)
            .map(|name| {
                time += random.below(1 << (seed % 15));
                let (stream, address) = (random.below(5) as u32, 1 + random.below(4));
                if random.below(2) == 0 {
                    start(time, stream, address, name)
                } else {
                    end(time, stream, address)
                }
            })
            .collect();
        let (book, _) = run(&events);
        let ends = events.iter().filter(|event| matches!(event.step, Step::End { .. })).count() as u64;
        let unseen = book.lives.iter().filter(|life| life.end.by == By::Unseen).count() as u64;
        assert_eq!(book.ends - unseen + book.unknown, ends, "no end is lost");
        assert_eq!(book.starts, events.len() as u64 - ends, "no start is lost");
    }
}

/// Frees of one address that nobody allocated, by many threads at once: each is unknown, and none takes longer because of the
/// others. (If it did, this would take hours.)
#[test]
fn any_number_of_unknown_ends_is_survived() {
    let count = 200_000;
    let events: Vec<_> = (0..count).map(|n| end(1_000_000 + n / 100, (n % 100) as u32, 0x10)).collect();
    let (book, _) = run(&events);
    assert_eq!((book.unknown, book.ends), (count, 0));
}

/// Starts and ends of one address by many threads in an order that no program has.
#[test]
fn many_events_that_do_not_work_out_are_survived() {
    let mut random = Rng::new(77);
    let count = 10_000;
    let events: Vec<_> = (0..count)
        .map(|n| {
            let (time, stream) = (1_000_000 + n / 20, random.below(100) as u32);
            if random.below(2) == 0 { start(time, stream, 0x10, n) } else { end(time, stream, 0x10) }
        })
        .collect();
    let (book, _) = run(&events);
    let ends = events.iter().filter(|event| matches!(event.step, Step::End { .. })).count() as u64;
    let unseen = book.lives.iter().filter(|life| life.end.by == By::Unseen).count() as u64;
    assert_eq!((book.ends - unseen + book.unknown, book.starts), (ends, count - ends));
}
