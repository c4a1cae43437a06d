//! Records to columns.

use super::columns::{Columns, column};
use super::op;
use super::predict::{Allocation, Freed, Index, UNNAMED, class, units};
use super::varint::zigzag;
use crate::record::{kind, kind_of, length, operand};

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
    unit: u64,
    /// 2^32 / unit.
    reciprocal: u64,
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
            unit: 1,
            reciprocal: 1 << 32,
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
        self.unit = u64::from(unit.max(1));
        self.reciprocal = (1 << 32) / self.unit;
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
        while let Some(&w0) = rest.first()
            && rows.len() - rest.len() < room
            && let Some(words) = {
                if records % WARM == 0 {
                    self.warm(rest);
                }
                self.record(w0, rest, summary)
            }
        {
            rest = &rest[words..];
            records += 1;
        }
        let taken = rows.len() - rest.len();
        summary.records += records;
        summary.words += taken;
        taken
    }

    /// Reads where the next records' addresses stand in the index, all at once: one by one, each would wait
    /// for the cache.
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

    /// Takes the record that starts `rest`; gives its words.
    #[inline(always)]
    fn record(&mut self, w0: u64, rest: &[u64], summary: &mut Summary) -> Option<usize> {
        let address = operand(w0);
        Some(match (kind_of(w0), rest) {
            (kind::FREE, &[_, stamp, ..]) => {
                self.end(op::FREE, op::FREE_NEAR, address);
                self.time(column::END_TIME, stamp, summary);
                2
            }
            (kind::ALLOC, &[_, stamp, w2, ..]) => {
                self.start(op::ALLOC_MISS, op::ALLOC_HIT, address, w2);
                self.time(column::START_TIME, stamp, summary);
                3
            }
            (kind::NODE, &[_, w1, ..]) => {
                self.node(op::NODE, address, w1);
                2
            }
            (kind, _) => {
                let words = length(rest)?;
                self.rare(kind, &rest[..words], summary);
                words
            }
        })
    }

    /// Records that are few, or that this codec knows nothing of.
    #[inline(never)]
    fn rare(&mut self, kind: u8, record: &[u64], summary: &mut Summary) {
        let address = operand(record[0]);
        match (kind, record) {
            (kind::ALLOC_LARGE, &[_, stamp, w2, size]) if w2 as u32 == 0 => {
                self.start_large(op::ALLOC_LARGE, address, w2, size);
                self.time(column::START_TIME, stamp, summary);
            }
            (kind::REALLOC_MOVED_LARGE, &[_, stamp, w2, size]) if w2 as u32 == 0 => {
                self.start_large(op::MOVED_LARGE, address, w2, size);
                self.time(column::START_TIME, stamp, summary);
            }
            (kind::REALLOC_BEGIN, &[_, stamp]) => {
                self.end(op::BEGIN, op::BEGIN_NEAR, address);
                self.time(column::END_TIME, stamp, summary);
            }
            (kind::REALLOC_MOVED, &[_, stamp, w2]) => {
                self.moved(address, w2);
                self.time(column::START_TIME, stamp, summary);
            }
            (kind::REALLOC_FREED, &[_, stamp]) => self.other_end(op::REALLOC_FREED, address, stamp, summary),
            (kind::REALLOC_FAILED, &[_, stamp]) => {
                self.other_end(op::REALLOC_FAILED, address, stamp, summary)
            }
            (kind::FAILED, &[_, stamp]) => self.other_end(op::FAILED, address, stamp, summary),
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
                self.time(column::START_TIME, stamp, summary);
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

    #[inline(always)]
    fn time(&mut self, column: usize, stamp: u64, summary: &mut Summary) {
        let time = if self.unit == 1 { stamp } else { self.units_of(stamp) };
        self.put(column, time.wrapping_sub(self.state.time));
        self.state.time = time;
        let rounded = time.wrapping_mul(self.unit);
        summary.first_stamp = summary.first_stamp.min(rounded);
        summary.last_stamp = summary.last_stamp.max(rounded);
    }

    /// `stamp` in units. Mostly it is close behind the one before, and a multiplication does for the division.
    #[inline(always)]
    fn units_of(&self, stamp: u64) -> u64 {
        match stamp.checked_sub(self.state.time.wrapping_mul(self.unit)) {
            Some(since) if since >> 32 == 0 => {
                // The reciprocal is rounded down, so the quotient is right or one too low.
                let low = (since * self.reciprocal) >> 32;
                self.state.time + low + u64::from(since - low * self.unit >= self.unit)
            }
            _ => stamp / self.unit,
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
        let number = self.index.remove(address)?;
        self.allocations.get(number as usize).filter(|a| a.address() == address).map(|_| number)
    }

    #[inline(always)]
    fn end_named(&mut self, base: u8, near: u8, number: u32, address: u64) {
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
        self.state.ended_class = self.allocations[number as usize].class();
        self.freed.push(self.state.ended_class, address);
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

    fn other_end(&mut self, op: u8, address: u64, stamp: u64, summary: &mut Summary) {
        self.op(op);
        self.put(column::FREE, zigzag(address.wrapping_sub(self.state.ended) as i64));
        self.time(column::END_TIME, stamp, summary);
    }

    /// A block of less than 4 GiB starts.
    #[inline(always)]
    fn start(&mut self, base: u8, hit: u8, address: u64, w2: u64) {
        let size = u64::from(w2 as u32);
        let units = units(size);
        let class = class(units);
        if let Some(age) = self.freed.find(class, address) {
            self.op(hit + age);
        } else {
            self.start_missed(base, address, units);
        }
        self.allocated(address, class, w2, size);
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
