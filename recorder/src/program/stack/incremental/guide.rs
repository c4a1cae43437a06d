//! Whole stacks that were seen before: walked along a guess, and not interned again.
//!
//! Where nothing can be joined, a stack may still be one of a few thousand that come again and again. Two things make
//! its walk slow. Each step has to wait for the one before: the return address tells the rule, the rule
//! tells where the next return address is. And on the way down the trie every child has to be looked for.
//!
//! So each thread remembers by the leaf frames what stack they ended in ([`Guides`]). Once a walk has come through that
//! many frames, it has a guess, and takes the trie's nodes as its guide: they tell the frames further out *before*
//! the stack is read, so that rules and slots of several frames are found at once.
//!
//! **Why it is exact.** The guess proves nothing and need not be right. Each step is the real one, by the rule of the
//! frame it is in, and reads the same word; it is only compared with what the guide says. As long as both are the
//! same, the frame is the node's. Where the real walk ends and the guide has come to the root of this generation, the
//! leaf's frames and all others were a path of the trie, so the leaf's id is the stack's. Where they differ, the
//! walk goes on by itself, from the last frame that was real: nothing is lost but the comparison.

use super::{Bp, Frame, Kind, Outer, Place, Rule, Signals, Stack, Step, Trie, Walk, Walked};
use crate::heap;
use crate::program::stack::cache::can_be_code;
use crate::program::stack::unwind::is_plausible;
use crate::sys::memory;
use core::ptr::null_mut;
use memscope_shared::record::{head, kind, operand};

/// Leaf frames by which stacks are remembered: the first number, and the second where many stacks have those in common.
const LEAVES: [usize; 2] = [8, 16];
/// Guides that stand together.
const LINE: usize = 8;
const LINES_BITS: u32 = 10;
const BYTES: usize = (LINE << LINES_BITS) * size_of::<u64>();

/// What stacks leaf frames have ended in: a hash of the frames, and the stack's id. Zero bytes are an empty table.
#[repr(C)]
#[derive(Debug)]
pub struct Guides(*mut [u64; LINE]);

/// Where in the table a stack belongs.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Null where there is no table, or the stack has too few frames.
    place: *mut u64,
    tag: u64,
}

impl Entry {
    const NONE: Self = Self { place: null_mut(), tag: 0 };

    /// Remembers the stack.
    #[inline(always)]
    pub fn remember(&self, id: u32) {
        if !self.place.is_null() {
            // SAFETY: a place of the thread's own table, which stays as long as the thread's captures.
            unsafe { self.place.write(self.tag | u64::from(id)) };
        }
    }
}

/// Odd numbers, one for each leaf frame.
const FACTORS: [u64; LEAVES[LEAVES.len() - 1]] = {
    let mut factors = [0; LEAVES[LEAVES.len() - 1]];
    let (mut index, mut factor) = (0, 0x9e37_79b9_7f4a_7c15_u64);
    while index < factors.len() {
        factors[index] = factor;
        factor = factor.wrapping_mul(0xd1b5_4a32_d192_ed03);
        index += 1;
    }
    factors
};

impl Guides {
    /// Makes a table if there is none.
    pub fn make(&mut self) {
        if self.0.is_null() {
            self.0 = heap::map_wiped(BYTES).unwrap_or_default().cast();
        }
    }

    /// Gives the table back.
    pub fn release(&mut self) {
        let table = core::mem::replace(&mut self.0, null_mut());
        if !table.is_null() {
            // SAFETY: the mapping is ours, and forgotten here.
            let _ = unsafe { memory::unmap(table.cast(), BYTES) };
        }
    }

    /// Where stacks with leaf frames of this hash belong, and the one that was remembered there; 0 for none.
    #[inline(always)]
    fn find(&self, hash: u64) -> (Entry, u32) {
        if self.0.is_null() {
            return (Entry::NONE, 0);
        }
        let tag = hash << 32;
        // SAFETY: the line's number is below the number of lines.
        let line = unsafe { &mut *self.0.add((hash >> (u64::BITS - LINES_BITS)) as usize) };
        // One that is given up where all are taken: any will do.
        let mut free = (hash >> 32) as usize % LINE;
        for (index, place) in line.iter_mut().enumerate() {
            if *place >> 32 == tag >> 32 && *place != 0 {
                return (Entry { place, tag }, *place as u32);
            }
            if *place == 0 {
                free = index;
                break;
            }
        }
        (Entry { place: &raw mut line[free], tag }, 0)
    }
}

/// A whole stack.
#[derive(Clone, Copy, Debug)]
pub enum Whole {
    /// One that is known.
    Known(u32),
    /// One that is to be interned, and where it is to be remembered.
    Walked(Walk, Entries),
}

/// By each number of leaf frames.
type Entries = [Entry; LEAVES.len()];

/// The frame that a walk has come to, which is put down already.
#[derive(Clone, Copy)]
struct At {
    key: u64,
    address: usize,
    sp: usize,
    bp: Bp,
    put: *mut Walked,
}

/// What a walk has asked the guides.
struct Asking {
    entries: Entries,
    tried: usize,
    /// Where enough frames are put down for the next question; null: there is none.
    at: *mut Walked,
}

impl Asking {
    #[inline(always)]
    const fn new(end: *mut Walked) -> Self {
        Self { entries: [Entry::NONE; LEAVES.len()], tried: 0, at: end.wrapping_sub(LEAVES[0]) }
    }
}

/// Why a walk does not follow its guide any more.
enum Parted {
    /// Both have come to the end.
    Known,
    /// They differ, or the step is not a plain one.
    Lost,
}

impl Stack {
    /// Walks all of a stack, while nothing is recorded. `None` without memory.
    #[inline(always)]
    pub fn walk_whole(
        &mut self,
        leaf: Frame,
        generation: u32,
        trie: &Trie,
        mut rules: impl FnMut(usize) -> Rule,
    ) -> Option<Whole> {
        if self.generation != generation || self.storage.capacity() == 0 {
            self.begin(generation)?;
        }
        self.bounds.enter(leaf.sp);
        let mut at = At::of(&leaf, self.storage.end());
        let mut signals = Signals::default();
        let mut asking = Asking::new(self.storage.end());
        loop {
            if at.put == self.storage.frames().cast() {
                (_, at.put) = self.grow(self.innermost(), at.put)?;
                asking.at = null_mut();
            }
            at.put_down();
            while at.put <= asking.at {
                let id = self.ask(&mut asking, leaf.sp);
                if id != 0 && self.is_guided(id, &mut at, trie, generation, &mut rules) {
                    return Some(Whole::Known(id));
                }
            }
            let rule = rules(at.address);
            if let Some((pc, cfa)) = self.plain(&at, rule) {
                at.go(rule, pc, cfa);
                at.key = head(kind::NODE, pc as u64);
                continue;
            }
            let frame = Frame { key: at.key, sp: at.sp, bp: at.bp, context: signals.last };
            let outer = match frame.step(rule, &mut self.bounds, &mut rules) {
                Step::Caller(caller) if signals.pass(&caller) => {
                    at = At::of(&caller, at.put);
                    continue;
                }
                end => Outer::of(end),
            };
            if signals.last.guessed || matches!(outer, Outer::Truncated) {
                self.bounds.leave();
            }
            return Some(Whole::Walked(Walk { last: at.put, outer }, asking.entries));
        }
    }

    /// The stack that was remembered for as many leaf frames as were put down by now; 0 for none.
    #[inline(always)]
    fn ask(&self, asking: &mut Asking, sp: usize) -> u32 {
        let id;
        (asking.entries[asking.tried], id) = self.guides.find(self.hash(sp, asking.tried));
        asking.tried += 1;
        asking.at = match LEAVES.get(asking.tried) {
            Some(leaves) => self.storage.end().wrapping_sub(*leaves),
            None => null_mut(),
        };
        id
    }

    /// Whether the walk, led by a stack that may be its own, has come to the end of that.
    #[inline(always)]
    fn is_guided(
        &mut self,
        id: u32,
        at: &mut At,
        trie: &Trie,
        generation: u32,
        rules: impl FnMut(usize) -> Rule,
    ) -> bool {
        let Some(node) = self.guide(trie, id, at.put) else { return false };
        let known = matches!(self.follow(at, trie, node, generation, rules), Parted::Known);
        #[cfg(test)]
        {
            self.guided += u32::from(known);
        }
        known
    }

    /// A hash of the leaf frames that this question is about, which were put down.
    #[inline(always)]
    fn hash(&self, sp: usize, question: usize) -> u64 {
        match question {
            0 => self.hash_of::<{ LEAVES[0] }>(sp),
            _ => self.hash_of::<{ LEAVES[1] }>(sp),
        }
    }

    /// The same for a number that the compiler knows: no loop is left.
    #[inline(always)]
    fn hash_of<const LEAVES: usize>(&self, sp: usize) -> u64 {
        let leaf = self.storage.end().wrapping_sub(1);
        let mut sum = (sp >> 3) as u64;
        for (index, factor) in FACTORS.iter().enumerate().take(LEAVES) {
            // SAFETY: so many frames were put down.
            let key = unsafe { (*leaf.sub(index)).key };
            sum = sum.wrapping_add(key.wrapping_mul(*factor));
        }
        (sum ^ sum >> 32).wrapping_mul(FACTORS[1])
    }

    /// The node of the last frame that was put down, if all are frames of this stack.
    #[inline(always)]
    fn guide<'a>(&self, trie: &'a Trie, id: u32, last: *mut Walked) -> Option<Place<'a>> {
        let mut node = trie.place(id);
        node.fetch_lines_before();
        let mut frame = self.storage.end().wrapping_sub(1);
        loop {
            // SAFETY: the frames from the last one up to the end were put down.
            if node.key() != unsafe { (*frame).key } {
                return None;
            }
            if frame == last {
                return Some(node);
            }
            (frame, node) = (frame.wrapping_sub(1), trie.parent(node));
        }
    }

    /// Walks on as long as the steps lead to the frames that the trie has further out than `start`.
    ///
    /// Not inlined, and with all that changes in locals: so it stays in registers, which the walk around it has no more of.
    #[inline(never)]
    fn follow<'a>(
        &mut self,
        at: &mut At,
        trie: &'a Trie,
        start: Place<'a>,
        generation: u32,
        mut rules: impl FnMut(usize) -> Rule,
    ) -> Parted {
        let (mut node, frames) = (start, self.storage.frames().cast());
        let At { mut address, mut sp, mut bp, mut put, .. } = *at;
        let mut parted = Parted::Lost;
        while put != frames && can_be_code(address) {
            let outer = trie.parent(node);
            let (guide, rule) = (outer.key(), rules(address));
            let Some(cfa) = self.plain_cfa(sp, bp, rule) else {
                if rule.kind() == Kind::End && guide == head(kind::NODE_ROOT, u64::from(generation)) {
                    parted = Parted::Known;
                }
                break;
            };
            // What the guide says is known earlier than what is read. Of another kind than a return address it is none.
            let pc = (guide ^ head(kind::NODE, 0)) as usize;
            if !can_be_code(pc.wrapping_sub(1)) {
                break;
            }
            // SAFETY: the word lies between rsp and the end of what is readable.
            let found = unsafe { (cfa as *const usize).sub(1).read_unaligned() };
            if found != pc {
                break;
            }
            (bp, address, sp) = (bp.of_caller(rule, cfa), pc - 1, cfa);
            // Put down at once: a handler may fork here, and the child has no node of its parent's.
            put = put.wrapping_sub(1);
            // SAFETY: there is room between the start of the storage and the walk's frames.
            unsafe { (*put).key = guide };
            node = outer;
        }
        if put != at.put {
            // SAFETY: the last frame that was put down, of a return address.
            let key = unsafe { (*put).key };
            *at = At { key, address: operand(key) as usize - 1, sp, bp, put };
        }
        parted
    }

    /// The return address and the CFA, where the step is a plain one.
    #[inline(always)]
    fn plain(&mut self, at: &At, rule: Rule) -> Option<(usize, usize)> {
        let cfa = self.plain_cfa(at.sp, at.bp, rule)?;
        // SAFETY: the word lies between rsp and the end of what is readable.
        let pc = unsafe { (cfa as *const usize).sub(1).read_unaligned() };
        is_plausible(pc).then_some((pc, cfa))
    }

    /// The CFA, where a plain step leads there and the word below can be read.
    #[inline(always)]
    fn plain_cfa(&mut self, sp: usize, bp: Bp, rule: Rule) -> Option<usize> {
        let base = if rule.is_rsp() {
            sp
        } else if rule.is_rbp() {
            self.load(bp)
        } else {
            return None;
        };
        Frame::plain_cfa(sp, base, rule, &self.bounds)
    }
}

impl At {
    #[inline(always)]
    const fn of(frame: &Frame, put: *mut Walked) -> Self {
        Self { key: frame.key, address: frame.rule_address(), sp: frame.sp, bp: frame.bp, put }
    }

    /// To the caller; its key is to follow.
    #[inline(always)]
    fn go(&mut self, rule: Rule, pc: usize, cfa: usize) {
        (self.bp, self.address, self.sp) = (self.bp.of_caller(rule, cfa), pc - 1, cfa);
    }

    /// Puts the frame down. There must be room.
    #[inline(always)]
    fn put_down(&mut self) {
        self.put = self.put.wrapping_sub(1);
        // SAFETY: there is room between the start of the storage and the walk's frames.
        unsafe { (*self.put).key = self.key };
    }
}
