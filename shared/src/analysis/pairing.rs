//! Pairing: which end belongs to which block.
//!
//! At any address starts and ends take turns, so in a recording whose order is right each end belongs
//! to the block that is live. But stamps of different cores are only right to about 1 µs (`rdtsc` may run
//! early, and counters differ), while a thread may take over an address that another one has freed,
//! or free a block that another one has allocated, in less than that. The order within a stream is
//! certain; between streams the turns decide where stamps are too close:
//!
//! * a start at an address that is live waits for the end that must be about to come,
//! * an end at an address that is not live waits for its start,
//! * what follows in the stream of an event that waits for the same address, waits behind it.
//!
//! Of several orders that work out, the one counts in which the stamps are the least wrong: what a free of a block that
//! has just been taken over reads may lie before the free that gave the address back.
//!
//! If the turns do not work out within the window, the last lives of the address are looked at again:
//! an earlier choice between two events may have been the wrong one ([`mod@arrange`]). What remains is an end of a
//! block that nobody saw allocated, or a start at the address of a block whose end nobody saw.
//!
//! As long as there is one stream only, nothing waits: its order is certain. So what happens then is also counted in its place, as a forked
//! child's frees of what it inherited.
//!
//! Lives that have ended stay in a ring for a while, so that this can still change them.

mod arrange;
mod recent;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash::Map;
pub use super::table::Block;
use super::table::Table;
use arrange::{Turn, arrange};
use recent::Recent;

/// How far an event may lie on the wrong side of another stream's, in ns: the clocks' skew, and how early
/// a processor reads its counter while it waits for memory, with room to spare. Not more, or the end of a
/// block that nobody saw takes a later block for its own.
pub const WINDOW: u64 = 5_000;

/// How far an event may be out of order to be let in at once.
const QUICK: u64 = WINDOW / 4;
/// Steps of search that each event that has to wait allows. A program's events need a few; events that
/// make no sense could need any number.
const STEPS: u64 = 40;
/// Most events that wait at one address.
const MOST_WAITING: usize = 64;

/// Most events that are tried as the one that nobody saw the start of.
const MOST_GIVEN_UP: usize = 8;

/// What ended a block's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `free` or a kin of it.
    Free,
    /// `realloc`.
    Realloc,
    /// Nobody saw it: its address was given out again.
    Unseen,
}

/// The stream of an end that nobody saw.
pub const NO_STREAM: u32 = u32::MAX;

/// The end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When.
    pub time: u64,
    /// Index of the stream that ended it.
    pub stream: u32,
    /// How.
    pub by: By,
}

/// A block with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The block.
    pub block: Block,
    /// Its end.
    pub end: Ending,
}

impl Life {
    /// How long the block lived: no time where the end's stamp lies before that of its start.
    #[must_use]
    pub const fn lifetime(&self) -> u64 {
        self.end.time.saturating_sub(self.block.start)
    }
}

/// Keeps the accounts of what pairing finds.
pub trait Ledger {
    /// A block is live from now on.
    fn start(&mut self, block: &Block);
    /// A live block is live no more.
    fn end(&mut self, block: &Block);
    /// A block that had ended is live after all.
    fn reopen(&mut self, block: &Block);
    /// A life is over for certain.
    fn close(&mut self, life: &Life);
    /// The `realloc` of a live block has succeeded.
    fn realloc(&mut self);
    /// An end of a block that nobody saw.
    fn unknown(&mut self, end: &Ending);
}

/// An event that waits for its turn.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    Start(Block),
    End(Ending),
}

impl Waiting {
    const fn time(&self) -> u64 {
        self.turn().time
    }

    const fn turn(&self) -> Turn {
        match self {
            Self::Start(block) => Turn { time: block.start, stream: block.stream, is_end: false, due: true },
            Self::End(end) => Turn { time: end.time, stream: end.stream, is_end: true, due: true },
        }
    }
}

/// Pairs starts and ends.
#[derive(Debug, Default)]
pub struct Pairing {
    live: Table,
    recent: Recent,
    /// Addresses at which events wait, in the order in which they came.
    waiting: Map<u64, Vec<Waiting>>,
    /// When to decide: (time, address), the earliest first.
    deadlines: BinaryHeap<Reverse<(u64, u64)>>,
    /// Steps of search that are still allowed.
    budget: u64,
    /// The same, for orders that are better than one that was found.
    better: u64,
    /// Until then all events are of one stream.
    alone_until: u64,
}

impl Pairing {
    /// Without blocks.
    #[must_use]
    pub fn new() -> Self {
        Self { budget: 1 << 16, better: 1 << 16, ..Self::default() }
    }

    /// The first event of a second stream has this stamp, as a time; `u64::MAX` where there is no second stream.
    pub const fn second_stream_at(&mut self, time: u64) {
        self.alone_until = if time == u64::MAX { time } else { time.saturating_sub(WINDOW) };
    }

    /// Whether what is live may not be in the nearer caches.
    #[inline]
    #[must_use]
    pub const fn is_far(&self) -> bool {
        self.live.is_far()
    }

    /// Reads what an event at `address` will need.
    #[inline]
    #[must_use]
    pub fn touch(&self, address: u64) -> u64 {
        self.live.touch(address)
    }

    /// A block starts.
    #[inline]
    pub fn start(&mut self, block: Block, ledger: &mut impl Ledger) {
        self.decide(block.start, ledger);
        if self.is_contested(block.address) || !self.live.insert(block) {
            return self.wait(block.address, Waiting::Start(block), ledger);
        }
        ledger.start(&block);
    }

    /// The block at `address` ends.
    #[inline]
    pub fn end(&mut self, address: u64, end: Ending, ledger: &mut impl Ledger) {
        self.decide(end.time, ledger);
        if self.is_contested(address) {
            return self.wait(address, Waiting::End(end), ledger);
        }
        match self.live.remove(address) {
            Some(block) => self.over(Life { block, end }, ledger),
            None => self.wait(address, Waiting::End(end), ledger),
        }
    }

    /// No more events come: decides what waits and closes what has ended.
    pub fn finish(&mut self, ledger: &mut impl Ledger) {
        let mut addresses: Vec<_> = self.waiting.keys().copied().collect();
        addresses.sort_unstable();
        for address in addresses {
            while self.waiting.contains_key(&address) {
                self.settle(address, u64::MAX, ledger);
            }
        }
        self.deadlines.clear();
        self.recent.drain(|life| ledger.close(life));
    }

    /// The blocks that are live.
    #[must_use]
    pub const fn live(&self) -> &Table {
        &self.live
    }

    /// The live block at `address`, if nothing is uncertain about which one that is.
    #[inline]
    #[must_use]
    pub fn certain(&self, address: u64) -> Option<&Block> {
        if self.is_contested(address) { None } else { self.live.get(address) }
    }

    #[inline]
    fn is_contested(&self, address: u64) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&address)
    }

    /// A live block has ended.
    #[inline]
    fn over(&mut self, life: Life, ledger: &mut impl Ledger) {
        ledger.end(&life.block);
        if life.end.by == By::Realloc {
            ledger.realloc();
        }
        if life.end.time < self.alone_until {
            // Nothing can change it any more.
            return ledger.close(&life);
        }
        self.recent.push(life, |closed| ledger.close(closed));
    }

    /// Decides what has waited long enough. Nearly always nothing waits.
    #[inline(always)]
    fn decide(&mut self, now: u64, ledger: &mut impl Ledger) {
        if !self.deadlines.is_empty() {
            self.decide_waiting(now, ledger);
        }
    }

    #[inline(never)]
    fn decide_waiting(&mut self, now: u64, ledger: &mut impl Ledger) {
        while let Some(&Reverse((deadline, address))) = self.deadlines.peek() {
            if deadline >= now {
                return;
            }
            self.deadlines.pop();
            let Some(first) = self.waiting.get(&address).map(|events| events[0].turn().time) else {
                continue;
            };
            if first + WINDOW >= now {
                // Those that the deadline was set for have got their turns; these came later.
                self.deadlines.push(Reverse((first + WINDOW, address)));
                continue;
            }
            self.settle(address, now - WINDOW, ledger);
            if self.waiting.contains_key(&address) {
                // Not before a few more have come, where an address changes hands all the time.
                self.deadlines.push(Reverse((now + WINDOW / 2, address)));
            }
        }
    }

    #[cold]
    fn wait(&mut self, address: u64, event: Waiting, ledger: &mut impl Ledger) {
        if event.turn().time < self.alone_until {
            return self.take_for_certain(address, event, ledger);
        }
        let events = self.waiting.entry(address).or_default();
        events.push(event);
        self.budget += STEPS;
        self.better += STEPS;
        let (first, now) = (events[0].turn().time, event.turn().time);
        if events.len() == 1 {
            self.deadlines.push(Reverse((now + WINDOW, address)));
        } else if events.len() > MOST_WAITING {
            if is_one_sided(events) {
                self.force(address, ledger);
            } else {
                self.settle(address, first, ledger);
            }
        } else if now <= first + QUICK {
            self.let_all_in(address, ledger);
        }
    }

    /// Lets all that wait in, if each has its turn.
    fn let_all_in(&mut self, address: u64, ledger: &mut impl Ledger) {
        let Some(waiting) = self.waiting.get(&address) else { return };
        let mut live = self.live.get(address).is_some();
        let (mut left, mut order) = (waiting.clone(), Vec::new());
        while let Some(at) = next_turn(&left, live) {
            order.push(left.remove(at));
            live = !live;
        }
        if !left.is_empty() {
            return;
        }
        let wrong = most_wrong(order.iter().map(Waiting::time));
        if let Some((case, order)) = self.less_wrong(address, u64::MAX, wrong) {
            return self.rewrite(address, &case, &order, ledger);
        }
        self.waiting.remove(&address);
        for event in order {
            self.apply(address, event, ledger);
        }
    }

    /// An event whose turn it is.
    fn apply(&mut self, address: u64, event: Waiting, ledger: &mut impl Ledger) {
        match event {
            Waiting::Start(block) => {
                self.live.insert(block);
                ledger.start(&block);
            }
            Waiting::End(end) => {
                if let Some(block) = self.live.remove(address) {
                    self.over(Life { block, end }, ledger);
                }
            }
        }
    }

    /// The turns at `address` did not work out so far: changes earlier choices, or says what must be missing.
    /// What is younger than `due` may wait on.
    fn settle(&mut self, address: u64, due: u64, ledger: &mut impl Ledger) {
        let Some(waiting) = self.waiting.get(&address) else { return };
        let Some(oldest) = waiting.iter().map(|event| event.turn().time).min() else { return };
        let past = self.recent.of_address(address, oldest.saturating_sub(WINDOW));
        let settled = self.rearrange(address, &past, u64::MAX, ledger)
            || self.rearrange(address, &past, due, ledger)
            || self.give_up_one(address, u64::MAX, ledger)
            || self.give_up_one(address, due, ledger);
        if !settled {
            self.force(address, ledger);
        }
    }

    /// Looks for an order of the last lives at `address` and all that waits there in which the turns
    /// work out, and makes it so. The less stamps are wrong and the fewer lives change, the better.
    fn rearrange(&mut self, address: u64, past: &[usize], due: u64, ledger: &mut impl Ledger) -> bool {
        for window in [WINDOW / 8, WINDOW / 4, WINDOW / 2, WINDOW] {
            let mut lives = 0;
            loop {
                let case = self.case(address, &past[past.len() - lives..], due);
                if let Some(order) = case.arrange(window, &mut self.budget) {
                    let better = self.less_wrong(address, due, case.wrong(&order));
                    let (case, order) = better.unwrap_or((case, order));
                    self.rewrite(address, &case, &order, ledger);
                    return true;
                }
                if lives == past.len() {
                    break;
                }
                lives = (lives * 2).max(1).min(past.len());
            }
        }
        false
    }

    /// Looks for an order of the last lives at `address` and all that waits there in which no stamp is wrong by `wrong` or
    /// more: of those that there are, one in which they are the least wrong.
    fn less_wrong(&mut self, address: u64, due: u64, wrong: u64) -> Option<(Case, Vec<usize>)> {
        let mut allowed = wrong.checked_sub(1)?;
        let oldest = self.waiting.get(&address)?.iter().map(Waiting::time).min()?;
        let past = self.recent.of_address(address, oldest.saturating_sub(allowed));
        let case = self.case(address, &past, due);
        let mut found = None;
        while let Some(order) = case.arrange(allowed, &mut self.better) {
            let wrong = case.wrong(&order);
            if wrong > allowed {
                // Stamps of one stream go back: no order of them is any better.
                break;
            }
            found = Some(order);
            let Some(less) = wrong.checked_sub(1) else { break };
            allowed = less;
        }
        Some((case, found?))
    }

    /// Looks for an end without which the turns work out: it is the end of a block that nobody saw.
    fn give_up_one(&mut self, address: u64, due: u64, ledger: &mut impl Ledger) -> bool {
        let mut case = self.case(address, &[], due);
        let first = case.events.len() - case.waiting;
        for at in (first..case.events.len()).take(MOST_GIVEN_UP) {
            let Waiting::End(end) = case.events[at] else { continue };
            let event = case.events.remove(at);
            if let Some(order) = case.arrange(WINDOW, &mut self.budget) {
                ledger.unknown(&end);
                self.rewrite(address, &case, &order, ledger);
                return true;
            }
            case.events.insert(at, event);
        }
        false
    }

    /// Whatever the others do: the oldest event that waits has waited for nothing.
    fn force(&mut self, address: u64, ledger: &mut impl Ledger) {
        let Some(events) = self.waiting.get_mut(&address) else { return };
        let event = events.remove(0);
        if events.is_empty() {
            self.waiting.remove(&address);
        }
        self.take_for_certain(address, event, ledger);
    }

    /// An event that nothing can come before any more: what should have come, nobody saw.
    fn take_for_certain(&mut self, address: u64, event: Waiting, ledger: &mut impl Ledger) {
        match event {
            Waiting::Start(block) => {
                if let Some(old) = self.live.remove(address) {
                    let end = Ending { time: block.start, stream: NO_STREAM, by: By::Unseen };
                    self.over(Life { block: old, end }, ledger);
                }
                self.apply(address, event, ledger);
            }
            Waiting::End(end) => ledger.unknown(&end),
        }
    }

    /// The lives in `slots`, the live block and all that waits.
    fn case(&self, address: u64, slots: &[usize], due: u64) -> Case {
        let mut events: Vec<Waiting> = Vec::new();
        for &at in slots {
            let life = self.recent.get(at);
            events.extend([Waiting::Start(life.block), Waiting::End(life.end)]);
        }
        let live = self.live.get(address).copied();
        events.extend(live.map(Waiting::Start));
        let waiting = self.waiting.get(&address).map_or(&[][..], Vec::as_slice);
        events.extend_from_slice(waiting);
        Case { slots: slots.to_vec(), live, waiting: waiting.len(), due, events }
    }

    /// Replaces what `case` was made of by its events in this order.
    fn rewrite(&mut self, address: u64, case: &Case, order: &[usize], ledger: &mut impl Ledger) {
        let (lives, left) = case.pair_up(order);
        let wait_on = (0..case.events.len()).filter(|at| case.is_new(*at) && !order.contains(at));
        let wait_on: Vec<_> = wait_on.map(|at| case.events[at]).collect();
        if wait_on.is_empty() {
            self.waiting.remove(&address);
        } else {
            self.waiting.insert(address, wait_on);
        }
        for &at in order.iter().filter(|&&at| case.is_new(at)) {
            if matches!(case.events[at], Waiting::End(Ending { by: By::Realloc, .. })) {
                ledger.realloc();
            }
        }
        // Never two of an address at once: the old one goes first and, if it lives on, comes back last.
        if let Some(block) = self.live.remove(address) {
            ledger.end(&block);
        }
        for (_, life) in lives.iter().filter(|(start, _)| case.is_new(*start)) {
            ledger.start(&life.block);
            ledger.end(&life.block);
        }
        if let Some((start, block)) = left {
            self.live.insert(block);
            if case.is_new(start) { ledger.start(&block) } else { ledger.reopen(&block) }
        }
        for (n, (_, life)) in lives.iter().enumerate() {
            if let Some(&at) = case.slots.get(n) {
                self.recent.set(at, *life);
            } else {
                self.recent.push(*life, |closed| ledger.close(closed));
            }
        }
    }
}

/// Everything about one address that may be put into another order.
struct Case {
    /// Lives of the ring.
    slots: Vec<usize>,
    live: Option<Block>,
    /// Number of events that wait.
    waiting: usize,
    /// What waits and is younger may wait on.
    due: u64,
    /// Two of each life, the start of the live block, those that wait.
    events: Vec<Waiting>,
}

/// With the index of its start among a case's events.
type Numbered<T> = (usize, T);

impl Case {
    fn arrange(&self, window: u64, budget: &mut u64) -> Option<Vec<usize>> {
        let mut turns: Vec<_> = self.events.iter().map(Waiting::turn).collect();
        for (at, turn) in turns.iter_mut().enumerate() {
            turn.due = !self.is_new(at) || turn.time <= self.due;
        }
        arrange(&turns, window, budget)
    }

    /// By how much stamps are wrong at the most, if this is the order.
    fn wrong(&self, order: &[usize]) -> u64 {
        most_wrong(order.iter().map(|&at| self.events[at].time()))
    }

    /// Whether the ledger has not heard of an event yet.
    fn is_new(&self, event: usize) -> bool {
        event >= self.slots.len() * 2 + usize::from(self.live.is_some())
    }

    /// Lives of starts and ends that take turns, and the block that is left.
    fn pair_up(&self, order: &[usize]) -> (Vec<Numbered<Life>>, Option<Numbered<Block>>) {
        let (mut lives, mut live) = (Vec::new(), None);
        for &at in order {
            match self.events[at] {
                Waiting::Start(block) => live = Some((at, block)),
                Waiting::End(end) => {
                    lives.extend(live.take().map(|(start, block)| (start, Life { block, end })));
                }
            }
        }
        (lives, live)
    }
}

/// By how much a time lies above one that comes after it, at the most.
fn most_wrong(times: impl DoubleEndedIterator<Item = u64>) -> u64 {
    let mut least = u64::MAX;
    times.rev().fold(0, |wrong, time| {
        least = least.min(time);
        wrong.max(time - least)
    })
}

/// Whether most of these have no counterpart among them, in whatever order: no program does that, and no search helps.
fn is_one_sided(events: &[Waiting]) -> bool {
    let ends = events.iter().filter(|event| matches!(event, Waiting::End(_))).count();
    ends.abs_diff(events.len() - ends) > events.len() / 2
}

/// The first event whose turn it is and that has none of its own stream before it.
fn next_turn(events: &[Waiting], live: bool) -> Option<usize> {
    (0..events.len()).find(|&at| {
        let turn = events[at].turn();
        turn.is_end == live && !events[..at].iter().any(|before| before.turn().stream == turn.stream)
    })
}

#[cfg(test)]
mod tests;
