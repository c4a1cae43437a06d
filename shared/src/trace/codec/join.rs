//! Columns back to records: the mirror of [`super::split`].

use super::columns::{Reader, column};
use super::op;
use super::predict::{Allocation, Freed, UNNAMED, class, units};
use super::split::State;
use super::varint::unzigzag;
use crate::record::{OPERAND_MASK, head, kind, length};

/// Puts records together, block by block.
#[derive(Debug, Default)]
pub struct Joiner {
    freed: Freed<false>,
    allocations: Vec<Allocation>,
}

/// The columns that [`Joiner::join_special`] reads.
pub const SPECIAL: [usize; 5] =
    [column::OP, column::NODE_PC, column::NODE_ID, column::NODE_PARENT, column::OTHER];

/// A block being put together.
struct Block<'a> {
    columns: [Reader<'a>; column::COUNT],
    freed: &'a mut Freed<false>,
    allocations: &'a mut Vec<Allocation>,
    state: State,
    unit: u64,
}

impl Joiner {
    /// Appends the records in `columns` to `out`. `None` where they make no sense; `out` then holds the
    /// records before that.
    ///
    /// At most four words an operation and what is in the column of other words are appended.
    pub fn join(&mut self, columns: [&[u8]; column::COUNT], unit: u32, out: &mut Vec<u64>) -> Option<()> {
        let mut block = self.begin(columns, unit);
        for &op in columns[column::OP] {
            block.record(op, out)?;
        }
        // What is left over belongs to no record.
        block.columns[column::OP] = Reader::default();
        block.columns.iter().all(|column| column.rest().is_empty()).then_some(())
    }

    /// The same with the records of stack nodes and those that stand whole in the column of other words, and with no others: of
    /// all columns only [`SPECIAL`] are needed. `None` also where a record has a stamp, which takes the other columns, too.
    pub fn join_special(&mut self, columns: [&[u8]; column::COUNT], out: &mut Vec<u64>) -> Option<()> {
        let mut block = self.begin(columns, 1);
        for &op in columns[column::OP] {
            match op {
                op::OTHER_STAMPED => return None,
                op::OTHER | op::NODE..op::FREE => block.rare(op, out)?,
                _ => {}
            }
        }
        SPECIAL[1..].iter().all(|&column| block.columns[column].rest().is_empty()).then_some(())
    }

    fn begin<'a>(&'a mut self, columns: [&'a [u8]; column::COUNT], unit: u32) -> Block<'a> {
        self.freed.reset();
        self.allocations.clear();
        Block {
            columns: columns.map(Reader::new),
            freed: &mut self.freed,
            allocations: &mut self.allocations,
            state: State::default(),
            unit: u64::from(unit.max(1)),
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    fn record(&mut self, op: u8, out: &mut Vec<u64>) -> Option<()> {
        match op {
            op::ALLOC_HIT..op::MOVED_HIT => self.start_hit(kind::ALLOC, op - op::ALLOC_HIT, out),
            op::FREE_NEAR..op::BEGIN_NEAR => self.end_near(kind::FREE, op - op::FREE_NEAR, out),
            op::FREE..op::BEGIN => self.end(kind::FREE, op - op::FREE, out),
            op::ALLOC_MISS..op::ALLOC_LARGE => self.start_missed(kind::ALLOC, op - op::ALLOC_MISS, out),
            _ => self.rare(op, out),
        }
    }

    #[inline(never)]
    fn rare(&mut self, op: u8, out: &mut Vec<u64>) -> Option<()> {
        match op {
            op::OTHER => self.other(out),
            op::OTHER_STAMPED => self.other_stamped(out),
            op::ALLOC_LARGE => self.start_large(kind::ALLOC_LARGE, out),
            op::MOVED_MISS..op::MOVED_LARGE => {
                self.start_missed(kind::REALLOC_MOVED, op - op::MOVED_MISS, out)
            }
            op::MOVED_LARGE => self.start_large(kind::REALLOC_MOVED_LARGE, out),
            op::MOVED_SAME => self.moved_same(out),
            op::REALLOC_FREED => self.other_end(kind::REALLOC_FREED, out),
            op::REALLOC_FAILED => self.other_end(kind::REALLOC_FAILED, out),
            op::FAILED => self.other_end(kind::FAILED, out),
            op::NODE..op::FREE => {
                let kinds = [kind::NODE, kind::NODE_EXACT, kind::NODE_GUESSED, kind::NODE_TRUNCATED];
                self.node(*kinds.get(usize::from(op - op::NODE))?, out)
            }
            op::BEGIN..op::ALLOC_HIT => self.end(kind::REALLOC_BEGIN, op - op::BEGIN, out),
            op::MOVED_HIT..op::FREE_NEAR => self.start_hit(kind::REALLOC_MOVED, op - op::MOVED_HIT, out),
            op::BEGIN_NEAR.. => {
                let ago = op - op::BEGIN_NEAR;
                if usize::from(ago) < op::NEAR { self.end_near(kind::REALLOC_BEGIN, ago, out) } else { None }
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn take(&mut self, column: usize) -> Option<u64> {
        self.columns[column].number()
    }

    #[inline(always)]
    fn signed(&mut self, column: usize) -> Option<i64> {
        self.take(column).map(unzigzag)
    }

    #[inline(always)]
    fn stamp(&mut self, column: usize) -> Option<u64> {
        self.state.time = self.state.time.wrapping_add(self.take(column)?);
        Some(self.state.time.wrapping_mul(self.unit))
    }

    #[inline(always)]
    fn end_near(&mut self, kind: u8, ago: u8, out: &mut Vec<u64>) -> Option<()> {
        let number = self.allocations.len().checked_sub(1 + usize::from(ago))?;
        self.end_named(kind, number, out)
    }

    #[inline(always)]
    fn end(&mut self, kind: u8, how: u8, out: &mut Vec<u64>) -> Option<()> {
        let last = self.state.ended_number as usize;
        let number = match how {
            op::end::NEXT => last + 1,
            op::end::PREVIOUS => last.checked_sub(1)?,
            op::end::AGO => {
                let ago = usize::try_from(self.take(column::AGO)?).ok()?;
                self.allocations.len().checked_sub(1)?.checked_sub(ago)?
            }
            op::end::STEP => {
                let step = isize::try_from(self.signed(column::STEP)?).ok()?;
                last.checked_add_signed(step)?
            }
            op::end::UNITS => return self.end_unnamed(kind, 4, out),
            op::end::BYTES => return self.end_unnamed(kind, 0, out),
            _ => return None,
        };
        self.end_named(kind, number, out)
    }

    #[inline(always)]
    fn end_named(&mut self, kind: u8, number: usize, out: &mut Vec<u64>) -> Option<()> {
        let allocation = *self.allocations.get(number)?;
        self.state.ended_number = number as u32;
        self.ended(kind, allocation.address(), allocation.class(), out)
    }

    fn end_unnamed(&mut self, kind: u8, shift: u32, out: &mut Vec<u64>) -> Option<()> {
        let difference = self.signed(column::FREE)? << shift;
        let address = self.state.ended.wrapping_add(difference as u64);
        self.ended(kind, address & OPERAND_MASK, UNNAMED, out)
    }

    #[inline(always)]
    fn ended(&mut self, kind: u8, address: u64, class: usize, out: &mut Vec<u64>) -> Option<()> {
        self.state.ended = address;
        self.state.ended_class = class;
        self.freed.push(class, address);
        let stamp = self.stamp(column::END_TIME)?;
        out.extend_from_slice(&[head(kind, address), stamp]);
        Some(())
    }

    fn other_end(&mut self, kind: u8, out: &mut Vec<u64>) -> Option<()> {
        let address = self.state.ended.wrapping_add(self.signed(column::FREE)? as u64);
        let stamp = self.stamp(column::END_TIME)?;
        out.extend_from_slice(&[head(kind, address), stamp]);
        Some(())
    }

    #[inline(always)]
    fn start_hit(&mut self, kind: u8, age: u8, out: &mut Vec<u64>) -> Option<()> {
        let size = self.small_size()?;
        let class = class(units(size));
        let address = self.freed.take(class, age)?;
        self.started(kind, address, class, size, out)
    }

    #[inline(always)]
    fn start_missed(&mut self, kind: u8, how: u8, out: &mut Vec<u64>) -> Option<()> {
        let size = self.small_size()?;
        let units = units(size);
        let address = match how {
            0 => self.missed(4, units)?,
            op::miss::BYTES => self.missed(0, units)?,
            op::miss::UNNAMED => {
                let age = self.columns[column::UNNAMED].byte()?;
                self.freed.take(UNNAMED, age)?
            }
            _ => return None,
        };
        self.started(kind, address, class(units), size, out)
    }

    #[inline(always)]
    fn missed(&mut self, shift: u32, units: u64) -> Option<u64> {
        let difference = self.signed(column::MISS)? << shift;
        let address = self.state.miss_end.wrapping_add(difference as u64) & OPERAND_MASK;
        self.state.miss_end = address.wrapping_add(units << 4);
        Some(address)
    }

    fn start_large(&mut self, kind: u8, out: &mut Vec<u64>) -> Option<()> {
        let size = self.take(column::SIZE)?;
        let units = units(size);
        let address = self.missed(0, units)?;
        let stack = self.allocated(address, class(units))?;
        let stamp = self.stamp(column::START_TIME)?;
        out.extend_from_slice(&[head(kind, address), stamp, u64::from(stack) << 32, size]);
        Some(())
    }

    fn moved_same(&mut self, out: &mut Vec<u64>) -> Option<()> {
        let size = self.small_size()?;
        let address = self.state.ended;
        self.freed.take_back(self.state.ended_class, address);
        self.started(kind::REALLOC_MOVED, address, class(units(size)), size, out)
    }

    #[inline(always)]
    fn small_size(&mut self) -> Option<u64> {
        self.columns[column::SIZE].small().filter(|&size| size <= u64::from(u32::MAX))
    }

    #[inline(always)]
    fn started(&mut self, kind: u8, address: u64, class: usize, size: u64, out: &mut Vec<u64>) -> Option<()> {
        let stack = self.allocated(address, class)?;
        let stamp = self.stamp(column::START_TIME)?;
        out.extend_from_slice(&[head(kind, address), stamp, u64::from(stack) << 32 | size]);
        Some(())
    }

    /// Notes the allocation and reads its stack.
    #[inline(always)]
    fn allocated(&mut self, address: u64, class: usize) -> Option<u32> {
        self.allocations.push(Allocation::new(address, class));
        self.state.stack =
            self.state.stack.wrapping_add(unzigzag(self.columns[column::STACK].small()?) as u32);
        Some(self.state.stack)
    }

    fn node(&mut self, kind: u8, out: &mut Vec<u64>) -> Option<()> {
        let pc = self.state.pc.wrapping_add(self.signed(column::NODE_PC)? as u64) & OPERAND_MASK;
        let id = self.state.node.wrapping_add(1).wrapping_add(self.signed(column::NODE_ID)? as u32);
        let parent = id.wrapping_sub(1).wrapping_sub(self.signed(column::NODE_PARENT)? as u32);
        (self.state.pc, self.state.node) = (pc, id);
        out.extend_from_slice(&[head(kind, pc), u64::from(id) << 32 | u64::from(parent)]);
        Some(())
    }

    fn other(&mut self, out: &mut Vec<u64>) -> Option<()> {
        let start = out.len();
        // The first two words tell the length.
        out.extend_from_slice(&[self.columns[column::OTHER].word(0)?, self.columns[column::OTHER].word(1)?]);
        let words = match crate::record::kind_of(out[start]) & 7 {
            7 => (out[start + 1] & 0xffff) as usize,
            n => usize::from(n),
        };
        for at in 2..words {
            out.push(self.columns[column::OTHER].word(at)?);
        }
        self.columns[column::OTHER].skip_words(words);
        length(&out[start..]).filter(|&n| n == words).map(|_| ())
    }

    fn other_stamped(&mut self, out: &mut Vec<u64>) -> Option<()> {
        let w0 = self.columns[column::OTHER].word(0)?;
        let words = usize::from(crate::record::kind_of(w0) & 7);
        if !(2..=6).contains(&words) {
            return None;
        }
        let stamp = self.stamp(column::START_TIME)?;
        out.extend_from_slice(&[w0, stamp]);
        for at in 1..words - 1 {
            out.push(self.columns[column::OTHER].word(at)?);
        }
        self.columns[column::OTHER].skip_words(words - 1);
        Some(())
    }
}
