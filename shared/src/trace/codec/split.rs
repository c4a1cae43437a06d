//! Records to columns.

use super::columns::{Columns, column};
use super::op;
use super::predict::{Allocation, Freed, Index, UNNAMED, class, units};
use super::varint::zigzag;
use crate::record::{head, kind, kind_of, length, operand};

/// Records that are looked ahead.
const WARM: u32 = 16;

/// Splits records into columns, block by block.
#[derive(Debug)]
pub struct Splitter {
    /// The columns of the block so far.
    pub columns: Columns,
    freed: Freed,
    index: Index,
    allocations: Vec<Allocation>,
    state: State,
    unit: Unit,
    /// Whether the index was asked lately.
    searched: bool,
}

/// What is remembered of the records before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// Time in units.
    pub time: u64,
    /// Address that ended last.
    pub ended: u64,
    /// Class of the list that it went to.
    pub ended_class: usize,
    /// Number of the allocation that ended last.
    pub ended_number: u32,
    /// End of the block whose address could not be predicted last.
    pub miss_end: u64,
    /// Stack of the last allocation.
    pub stack: u32,
    /// pc of the last node.
    pub pc: u64,
    /// id of the last node.
    pub node: u32,
}

/// What a block's records are, for its frame's header.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Records.
    pub records: u32,
    /// Words.
    pub words: usize,
    /// Lowest stamp, in multiples of the unit; `u64::MAX` without any.
    pub first_stamp: u64,
    /// Highest stamp; 0 without any.
    pub last_stamp: u64,
}

impl Default for Summary {
    fn default() -> Self {
        Self { records: 0, words: 0, first_stamp: u64::MAX, last_stamp: 0 }
    }
}

/// What stamps are divided by.
#[derive(Clone, Copy, Debug)]
struct Unit {
    length: u64,
    /// Just above 2^(64 + shift) / length.
    reciprocal: u64,
    shift: u32,
    /// Its topmost bit is set where that is no way to divide: by 1.
    whole: u64,
}

impl Unit {
    fn new(unit: u32) -> Self {
        let length = u64::from(unit.max(1));
        // The least one with 2^(shift + 1) >= length.
        let shift = (u64::BITS - (length - 1).leading_zeros()).saturating_sub(1);
        let reciprocal = (1_u128 << (64 + shift)) / u128::from(length) + 1;
        let whole = if length == 1 { 1 << 63 } else { 0 };
        Self { length, reciprocal: reciprocal as u64, shift, whole }
    }

    /// `stamp` in units, rounded down.
    ///
    /// The reciprocal is too large by e / length with 0 < e <= length <= 2^(shift + 1). So a product with a stamp
    /// below 2^63 is too large by less than 2^(64 + shift) / length: less than what is missing to the next multiple.
    #[inline(always)]
    fn count(&self, stamp: u64) -> u64 {
        if (stamp | self.whole) >> 63 != 0 {
            return stamp / self.length;
        }
        ((u128::from(stamp) * u128::from(self.reciprocal)) >> 64) as u64 >> self.shift
    }
}

/// Lowest and highest time, in units.
#[derive(Clone, Copy, Debug)]
struct Times {
    first: u64,
    last: u64,
}

impl Times {
    const NONE: Self = Self { first: u64::MAX, last: 0 };
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// Takes 1.3 MiB, and more as blocks need it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            columns: Columns::default(),
            freed: Freed::new(),
            index: Index::new(),
            allocations: Vec::new(),
            state: State::default(),
            unit: Unit::new(1),
            searched: false,
        }
    }

    /// Begins a block whose stamps are rounded down to multiples of `unit`.
    pub fn begin(&mut self, unit: u32) {
        for column in &mut self.columns {
            column.clear();
        }
        self.freed.reset();
        self.allocations.clear();
        self.state = State::default();
        if self.unit.length != u64::from(unit) {
            self.unit = Unit::new(unit);
        }
    }

    /// Whether the block so far holds no record of a kind from `NODE` on.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        [column::NODE_PC, column::OTHER].iter().all(|&at| self.columns[at].as_slice().is_empty())
    }

    /// Takes records until `rows` ends, holds no record any more, or the block is full; gives the words
    /// that it took.
    pub fn take(&mut self, rows: &[u64], summary: &mut Summary) -> usize {
        let room = super::MAX_BLOCK_WORDS.saturating_sub(summary.words);
        let (mut rest, mut records) = (rows, 0);
        let mut times = Times::NONE;
        while let Some(&w0) = rest.first()
            && rows.len() - rest.len() < room
        {
            if records % WARM == 0 && core::mem::take(&mut self.searched) {
                self.warm(rest);
            }
            if let &[w0, started, w2, w3, ended, ..] = rest
                // Of one kind, with an address of which nothing is lost; and the other kind with the same address.
                && w0 >> Allocation::ADDRESS_BITS == head(kind::ALLOC, 0) >> Allocation::ADDRESS_BITS
                && w3 == w0 ^ head(kind::ALLOC ^ kind::FREE, 0)
            {
                self.short_lived(operand(w0), w2, [started, ended], &mut times);
                rest = &rest[5..];
                records += 2;
                continue;
            }
            let Some(words) = self.record(w0, rest, &mut times) else { break };
            rest = &rest[words..];
            records += 1;
        }
        let taken = rows.len() - rest.len();
        summary.records += records;
        summary.words += taken;
        times.last = times.last.max(self.state.time);
        if times.first <= times.last {
            summary.first_stamp = summary.first_stamp.min(times.first.wrapping_mul(self.unit.length));
            summary.last_stamp = summary.last_stamp.max(times.last.wrapping_mul(self.unit.length));
        }
        taken
    }

    /// Reads where the next records' addresses stand in the index, all at once: one by one, each would wait
    /// for the cache. Where blocks are freed right after they were allocated, nothing is looked for.
    #[inline(always)]
    fn warm(&self, rows: &[u64]) {
        let (mut at, mut sum) = (0, 0);
        for _ in 0..WARM {
            let Some(&w0) = rows.get(at) else { break };
            sum ^= self.index.touch(operand(w0));
            at += usize::from(kind_of(w0) & 7);
        }
        std::hint::black_box(sum);
    }

    /// Takes an allocation and the free right behind it, which needs no index to be found.
    #[inline(always)]
    fn short_lived(&mut self, address: u64, w2: u64, stamps: [u64; 2], times: &mut Times) {
        let size = u64::from(w2 as u32);
        let units = units(size);
        let class = class(units);
        let number = self.allocations.len() as u32;
        if self.freed.is_newest(class, address) {
            // Taken off its list and put back.
            self.op(op::ALLOC_HIT);
        } else {
            self.start_at(op::ALLOC_MISS, op::ALLOC_HIT, address, class, units);
            self.freed.push(class, address);
        }
        self.allocations.push(Allocation::new(address, class));
        self.size_and_stack(size, w2);
        self.time(column::START_TIME, stamps[0], times);
        self.end_op(op::FREE, op::FREE_NEAR, number);
        (self.state.ended, self.state.ended_class) = (address, class);
        self.time(column::END_TIME, stamps[1], times);
    }

    /// Takes the record that starts `rest`; gives its words.
    #[inline(always)]
    fn record(&mut self, w0: u64, rest: &[u64], times: &mut Times) -> Option<usize> {
        let address = operand(w0);
        Some(match (kind_of(w0), rest) {
            (kind::FREE, &[_, stamp, ..]) => {
                self.end(op::FREE, op::FREE_NEAR, address);
                self.time(column::END_TIME, stamp, times);
                2
            }
            (kind::ALLOC, &[_, stamp, w2, ..]) => {
                self.start(op::ALLOC_MISS, op::ALLOC_HIT, address, w2);
                self.time(column::START_TIME, stamp, times);
                3
            }
            (kind::NODE, &[_, w1, ..]) => {
                self.node(op::NODE, address, w1);
                2
            }
            (kind, _) => {
                let words = length(rest)?;
                self.rare(kind, &rest[..words], times);
                words
            }
        })
    }

    /// Records that are few, or that this codec knows nothing of.
    #[inline(never)]
    fn rare(&mut self, kind: u8, record: &[u64], times: &mut Times) {
        let address = operand(record[0]);
        match (kind, record) {
            (kind::ALLOC_LARGE, &[_, stamp, w2, size]) if w2 as u32 == 0 => {
                self.start_large(op::ALLOC_LARGE, address, w2, size);
                self.time(column::START_TIME, stamp, times);
            }
            (kind::REALLOC_MOVED_LARGE, &[_, stamp, w2, size]) if w2 as u32 == 0 => {
                self.start_large(op::MOVED_LARGE, address, w2, size);
                self.time(column::START_TIME, stamp, times);
            }
            (kind::REALLOC_BEGIN, &[_, stamp]) => {
                self.end(op::BEGIN, op::BEGIN_NEAR, address);
                self.time(column::END_TIME, stamp, times);
            }
            (kind::REALLOC_MOVED, &[_, stamp, w2]) => {
                self.moved(address, w2);
                self.time(column::START_TIME, stamp, times);
            }
            (kind::REALLOC_FREED, &[_, stamp]) => self.other_end(op::REALLOC_FREED, address, stamp, times),
            (kind::REALLOC_FAILED, &[_, stamp]) => self.other_end(op::REALLOC_FAILED, address, stamp, times),
            (kind::FAILED, &[_, stamp]) => self.other_end(op::FAILED, address, stamp, times),
            (kind::NODE_EXACT, &[_, w1]) => self.node(op::NODE + 1, address, w1),
            (kind::NODE_GUESSED, &[_, w1]) => self.node(op::NODE + 2, address, w1),
            (kind::NODE_TRUNCATED, &[_, w1]) => self.node(op::NODE + 3, address, w1),
            (
                kind::THREAD_START | kind::THREAD_END | kind::MODULES_GONE | kind::NAMED,
                &[w0, stamp, ref tail @ ..],
            ) => {
                self.op(op::OTHER_STAMPED);
                self.other(&[w0]);
                self.other(tail);
                self.time(column::START_TIME, stamp, times);
            }
            _ => {
                self.op(op::OTHER);
                self.other(record);
            }
        }
    }

    #[inline(always)]
    fn op(&mut self, op: u8) {
        self.columns[column::OP].push(op);
    }

    #[inline(always)]
    fn put(&mut self, column: usize, value: u64) {
        self.columns[column].put(value);
    }

    fn other(&mut self, words: &[u64]) {
        for word in words {
            self.columns[column::OTHER].extend(&word.to_le_bytes());
        }
    }

    /// Notes a record's time. The last one is among the highest if time goes on, so that is asked only where it goes back.
    #[inline(always)]
    fn time(&mut self, column: usize, stamp: u64, times: &mut Times) {
        let time = self.unit.count(stamp);
        let before = core::mem::replace(&mut self.state.time, time);
        let passed = time.wrapping_sub(before);
        if !self.columns[column].put_byte(passed) {
            self.columns[column].put(passed);
        }
        if time < before {
            times.last = times.last.max(before);
        }
        if time < times.first {
            times.first = time;
        }
    }

    /// A block ends: by the number of its allocation where that is known.
    #[inline(always)]
    fn end(&mut self, base: u8, near: u8, address: u64) {
        match self.number_of(address) {
            Some(number) => self.end_named(base, near, number, address),
            None => self.end_unnamed(base, address),
        }
        self.state.ended = address;
    }

    /// The number of the latest allocation at `address`, if this block of records has it. Often it is the last of all.
    #[inline(always)]
    fn number_of(&mut self, address: u64) -> Option<u32> {
        if self.allocations.last().is_some_and(|last| last.address() == address) {
            return Some(self.allocations.len() as u32 - 1);
        }
        self.searched = true;
        let number = self.index.remove(address)?;
        self.allocations.get(number as usize).filter(|a| a.address() == address).map(|_| number)
    }

    #[inline(always)]
    fn end_named(&mut self, base: u8, near: u8, number: u32, address: u64) {
        self.end_op(base, near, number);
        self.state.ended_class = self.allocations[number as usize].class();
        self.freed.push(self.state.ended_class, address);
    }

    /// The block of this allocation ends.
    #[inline(always)]
    fn end_op(&mut self, base: u8, near: u8, number: u32) {
        let ago = self.allocations.len() - 1 - number as usize;
        let step = i64::from(number) - i64::from(self.state.ended_number);
        if step == 1 {
            self.op(base + op::end::NEXT);
        } else if step == -1 {
            self.op(base + op::end::PREVIOUS);
        } else if ago < op::NEAR {
            self.op(near + ago as u8);
        } else if zigzag(step) >> 7 < (ago as u64) >> 7 {
            self.op(base + op::end::STEP);
            self.put(column::STEP, zigzag(step));
        } else {
            self.op(base + op::end::AGO);
            self.put(column::AGO, ago as u64);
        }
        self.state.ended_number = number;
    }

    fn end_unnamed(&mut self, base: u8, address: u64) {
        let difference = address.wrapping_sub(self.state.ended) as i64;
        if difference & 15 == 0 {
            self.op(base + op::end::UNITS);
            self.put(column::FREE, zigzag(difference >> 4));
        } else {
            self.op(base + op::end::BYTES);
            self.put(column::FREE, zigzag(difference));
        }
        self.state.ended_class = UNNAMED;
        self.freed.push(UNNAMED, address);
    }

    fn other_end(&mut self, op: u8, address: u64, stamp: u64, times: &mut Times) {
        self.op(op);
        self.put(column::FREE, zigzag(address.wrapping_sub(self.state.ended) as i64));
        self.time(column::END_TIME, stamp, times);
    }

    /// A block of less than 4 GiB starts.
    #[inline(always)]
    fn start(&mut self, base: u8, hit: u8, address: u64, w2: u64) {
        let size = u64::from(w2 as u32);
        let units = units(size);
        let class = class(units);
        self.start_at(base, hit, address, class, units);
        self.allocated(address, class, w2, size);
    }

    /// Where a block starts.
    #[inline(always)]
    fn start_at(&mut self, base: u8, hit: u8, address: u64, class: usize, units: u64) {
        if let Some(age) = self.freed.find(class, address) {
            self.op(hit + age);
        } else {
            self.start_missed(base, address, units);
        }
    }

    /// A block starts that no freed block of its class was at.
    fn start_missed(&mut self, base: u8, address: u64, units: u64) {
        if let Some(age) = self.freed.find(UNNAMED, address) {
            self.op(base + op::miss::UNNAMED);
            self.columns[column::UNNAMED].push(age);
            return;
        }
        let difference = address.wrapping_sub(self.state.miss_end) as i64;
        if difference & 15 == 0 {
            self.op(base);
            self.put(column::MISS, zigzag(difference >> 4));
        } else {
            self.op(base + op::miss::BYTES);
            self.put(column::MISS, zigzag(difference));
        }
        self.state.miss_end = address.wrapping_add(units << 4);
    }

    fn start_large(&mut self, op: u8, address: u64, w2: u64, size: u64) {
        let units = units(size);
        self.op(op);
        self.put(column::MISS, zigzag(address.wrapping_sub(self.state.miss_end) as i64));
        self.state.miss_end = address.wrapping_add(units << 4);
        self.allocated(address, class(units), w2, size);
    }

    fn moved(&mut self, address: u64, w2: u64) {
        if address != self.state.ended {
            return self.start(op::MOVED_MISS, op::MOVED_HIT, address, w2);
        }
        let size = u64::from(w2 as u32);
        self.op(op::MOVED_SAME);
        self.freed.take_back(self.state.ended_class, address);
        self.allocated(address, class(units(size)), w2, size);
    }

    #[inline(always)]
    fn allocated(&mut self, address: u64, class: usize, w2: u64, size: u64) {
        self.index.insert(address, self.allocations.len() as u32);
        self.allocations.push(Allocation::new(address, class));
        self.size_and_stack(size, w2);
    }

    /// A block's size, and the stack that is in its third word.
    #[inline(always)]
    fn size_and_stack(&mut self, size: u64, w2: u64) {
        self.put(column::SIZE, size);
        let stack = (w2 >> 32) as u32;
        self.put(column::STACK, zigzag(i64::from(stack) - i64::from(self.state.stack)));
        self.state.stack = stack;
    }

    fn node(&mut self, op: u8, pc: u64, w1: u64) {
        let (id, parent) = ((w1 >> 32) as u32, w1 as u32);
        self.op(op);
        self.put(column::NODE_PC, zigzag(pc.wrapping_sub(self.state.pc) as i64));
        self.put(column::NODE_ID, zigzag(i64::from(id) - i64::from(self.state.node) - 1));
        self.put(column::NODE_PARENT, zigzag(i64::from(id) - 1 - i64::from(parent)));
        self.state.pc = pc;
        self.state.node = id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::testing::Rng;

    #[test]
    fn stamps_are_divided_exactly() {
        let mut rng = Rng(3);
        let mut units: Vec<u32> = (0..400).map(|_| (rng.any() as u32) >> rng.below(32)).collect();
        units.extend([0, 1, 2, 3, 4, 5, 7, 8, 10, 20, 100, 1 << 31, (1 << 31) + 1, u32::MAX - 1, u32::MAX]);
        for unit in units {
            let divided = Unit::new(unit);
            let length = u64::from(unit.max(1));
            let highest = (1 << 63) / length * length;
            let near = [0, 1, length, highest, 1 << 63, u64::MAX / length * length, u64::MAX]
                .map(|at: u64| [at.saturating_sub(1), at, at.saturating_add(1)]);
            for stamp in near.into_iter().flatten().chain((0..200).map(|_| rng.any())) {
                assert_eq!(divided.count(stamp), stamp / length, "{stamp} / {unit}");
            }
        }
    }
}
