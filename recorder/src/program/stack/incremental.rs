//! Verified incremental unwinding: the last stack is kept, and proven to hold further out.
//!
//! Consecutive allocations of a thread share most of their stack. A new walk goes from the leaf outwards until it
//! meets a frame of the recorded stack, and then compares the words that the recorded walk has read from there on
//! with memory, instead of unwinding again: one comparison a word.
//!
//! ```text
//!            recorded stack                       new walk
//! words:  [root ... f4 f3 f2 f1 leaf]             leaf' -> f1' -> f2': same state as f2
//!                   <-- compared --               compare f2's words, f3's, ... up to the root's
//! ```
//!
//! # What a step depends on
//!
//! A step from a frame to its caller is a function of
//!
//! * the frame's **state**: pc, whether it is exact, rsp, and rbp *if it matters* (below);
//! * the **rule**, which is a function of pc and the generation of modules;
//! * the **words** it reads: the return address (also one of 0, that ends the walk), a saved rbp if it matters, the
//!   CFA of a realigned frame, the registers of a signal frame.
//!
//! # Why equal words prove equal stacks
//!
//! Let the new walk be in a frame whose state equals that of the recorded frame i, in the same generation. Then it would apply the
//! same rule and read the same addresses; if the words there hold the recorded values, it arrives in the state of the
//! recorded frame i-1, further out. By induction, if all words of the frames i, i-1, ..., 0 are equal, the rest of the
//! walk is the recorded one, and the recorded frame's id (which names its pc and all outer ones) is right. The
//! words are compared in the order in which the walk would read them, and no further than to the first
//! difference: so no address is read that an unwinder would not read at this moment.
//!
//! If word w differs, it belongs to a step of frame f. All recorded frames inside of f and f itself lead
//! through that word, so none of them can be joined by this walk any more; frames further out can. So the
//! comparisons of a walk, over all its attempts, look at each recorded word once at most.
//!
//! # When rbp matters
//!
//! rbp is a general register in most code, and different at every call; but then nothing further out is
//! computed from it. It matters in a frame if the frame's rule computes with it, or if the rule does not restore it
//! (the caller's rbp is the same) and it matters in the caller. That is known once the outer frames are: the walk carries
//! where rbp is ([`Bp`]), and recording goes from the root inwards. A saved rbp is among the recorded words
//! exactly where it matters in the caller.
//!
//! # What is not kept
//!
//! A step that [`super::slow`] evaluates, or a walk that got lost where reading was impossible: such stacks are
//! interned like others, but not kept to be joined.
//!
//! # Interrupted
//!
//! A signal handler may jump out of a capture. Whatever is below `count` is complete at any time: recording lowers
//! `count` before it writes above it, and raises it last.

use super::Entry;
use super::bounds::Bounds;
use super::memo::{self, Known, Memo, first_difference};
use super::rule::{self, Kind, Rule};
use super::storage::{Recorded, Storage, Walked, Word};
use super::trie::{Emit, Trie};
use super::unwind::{Bp, Frame, Step};
use core::sync::atomic::{Ordering, compiler_fence};
use memscope_shared::record::{head, kind};

/// Most signal frames that a walk goes through. Their rsp may lead anywhere, even in a circle.
const MOST_SIGNALS: usize = 256;

/// A thread's recorded stack. Zero bytes are an empty one.
#[repr(C)]
#[derive(Debug)]
pub struct Stack {
    /// Number of recorded frames; 0 means that nothing can be joined.
    count: usize,
    /// The generation that everything here belongs to.
    generation: u32,
    storage: Storage,
    bounds: Bounds,
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// The last frame that was put down, the outermost.
    last: *mut Walked,
    outer: Outer,
}

/// What lies further out than the frames of a walk.
#[derive(Clone, Copy, Debug)]
enum Outer {
    /// The recorded frames before this place.
    Recorded(*mut Recorded),
    /// Nothing; the word at this address, if it isn't 0, is the return address of 0 that says so.
    End(usize),
    /// Something that could not be found.
    Truncated,
}

/// The frame outside of the one that is being recorded.
struct Next {
    key: u64,
    sp: usize,
    bp: usize,
    needs_bp: bool,
    id: u32,
}

impl Next {
    const fn of(frame: &Recorded) -> Self {
        Self { key: frame.key, sp: frame.sp, bp: frame.bp, needs_bp: frame.needs_bp(), id: frame.id }
    }

    const fn pc(&self) -> usize {
        memscope_shared::record::operand(self.key) as usize
    }
}

/// The words of one step, in the order of the array: what is compared first comes last.
struct Steps {
    words: *mut Word,
    len: usize,
}

impl Steps {
    /// # Safety
    /// There is room for the word.
    #[inline(always)]
    unsafe fn push(&mut self, at: usize, value: usize) {
        // SAFETY: as promised.
        unsafe { self.words.add(self.len).write(Word { at, value }) };
        self.len += 1;
    }
}

impl Stack {
    /// The id of the stack, if it can be told from the memo.
    ///
    /// # Safety
    /// `entry` must describe a hook of this thread that has not returned, `pc` must be its return address.
    #[inline(always)]
    #[must_use]
    pub unsafe fn recall(&self, pc: usize, entry: Entry, generation: u32) -> Option<u32> {
        if self.generation != generation || self.count == 0 {
            return None;
        }
        let sp = entry.sp.wrapping_add(8);
        // SAFETY: with a recorded stack there is storage; the entry is this thread's state now. A hit of the memo leads
        // to the recorded frame whose words are then compared.
        unsafe {
            let memo = &*Memo::of(self.storage.memos(), pc, sp);
            let (words, id) = memo.hit((pc, sp, entry.bp), self.storage.frames(), self.count)?;
            (first_difference(self.storage.words(), words) == 0).then_some(id)
        }
    }

    /// Walks from the leaf until the stack ends or joins the recorded one. `None` without memory.
    #[inline(always)]
    pub fn walk(
        &mut self,
        leaf: Frame,
        generation: u32,
        mut rules: impl FnMut(usize) -> Rule,
    ) -> Option<Walk> {
        if self.generation != generation || self.storage.capacity() == 0 {
            self.begin(generation)?;
        }
        self.bounds.enter(leaf.sp);
        // `open` is behind the innermost recorded frame that can still be met, `put` at the last frame put down.
        let mut open = self.recorded_end();
        let mut put = self.storage.end();
        let (mut frame, mut signals) = (leaf, 0);
        loop {
            // SAFETY: recorded frames, and the sentinel before them, which no rsp exceeds and no key equals.
            let met = unsafe {
                while (*open.sub(1)).sp < frame.sp {
                    open = open.sub(1);
                }
                (*open.sub(1)).sp == frame.sp && (*open.sub(1)).key == frame.key
            };
            if met {
                match self.join(open, frame.bp) {
                    Ok(()) => return Some(Walk { last: put, outer: Outer::Recorded(open) }),
                    Err(outer) => open = outer,
                }
            }
            if put.cast() == self.recorded_end() {
                (open, put) = self.grow(open, put)?;
            }
            let rule = rules(frame.rule_address());
            // SAFETY: there is room between the recorded frames and the walk's.
            unsafe {
                put = put.sub(1);
                put.write(Walked::new(&frame, rule));
            }
            if let Some((pc, cfa, bp)) = frame.plain_step(rule, &mut self.bounds) {
                frame = Frame::returned(pc, cfa, bp);
                continue;
            }
            match frame.rare_step(rule, &mut self.bounds, &mut rules) {
                Step::Caller(caller) if signals < MOST_SIGNALS => {
                    signals += usize::from(caller.is_exact());
                    frame = caller;
                }
                Step::End(slot) => return Some(Walk { last: put, outer: Outer::End(slot) }),
                Step::Caller(_) | Step::Truncated => {
                    return Some(Walk { last: put, outer: Outer::Truncated });
                }
            }
        }
    }

    /// Behind the last recorded frame.
    #[inline(always)]
    fn recorded_end(&self) -> *mut Recorded {
        self.storage.frames().wrapping_add(self.count)
    }

    #[cold]
    fn begin(&mut self, generation: u32) -> Option<()> {
        self.set_end(self.storage.frames());
        if self.storage.capacity() == 0 {
            self.storage.grow(0, 0, 0)?;
        }
        // SAFETY: the table is this state's own.
        unsafe { Memo::forget_all(self.storage.memos()) };
        self.generation = generation;
        Some(())
    }

    /// More room; where `open` and `put` of a walk are then.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, open: *mut Recorded, put: *mut Walked) -> Option<(*mut Recorded, *mut Walked)> {
        // SAFETY: both point into the storage.
        let (open, walked) = unsafe {
            (open.offset_from(self.storage.frames()) as usize, self.storage.end().offset_from(put) as usize)
        };
        // SAFETY: the last recorded frame, or the sentinel, which has no words.
        let words = unsafe { (*self.recorded_end().sub(1)).words() };
        self.storage.grow(self.count, words, walked)?;
        Some((self.storage.frames().wrapping_add(open), self.storage.end().wrapping_sub(walked)))
    }

    /// The walk is in the state of the recorded frame before `open`, but for rbp. Compares that, if it matters, and
    /// all words further out. If one differs: behind the innermost recorded frame that does not lead through it.
    #[inline(always)]
    fn join(&mut self, open: *mut Recorded, bp: Bp) -> Result<(), *mut Recorded> {
        // SAFETY: a recorded frame.
        let met = unsafe { &*open.sub(1) };
        if met.needs_bp() && bp.load(&mut self.bounds) != Some(met.bp) {
            return Err(open.wrapping_sub(1));
        }
        // SAFETY: the walk is in the recorded frame's state, so its words are what the next steps read.
        match unsafe { first_difference(self.storage.words(), met.words()) } {
            0 => Ok(()),
            word => Err(self.not_through(open, word)),
        }
    }

    fn not_through(&self, mut open: *mut Recorded, word: usize) -> *mut Recorded {
        // SAFETY: recorded frames; the sentinel leads through no word.
        while unsafe { (*open.sub(1)).words() } >= word {
            open = open.wrapping_sub(1);
        }
        open
    }

    /// Changes the number of valid frames; a signal handler that jumps away sees it in this order.
    #[inline(always)]
    fn set_end(&mut self, end: *mut Recorded) {
        // SAFETY: both point into the storage, or are null.
        let count = unsafe { end.offset_from_unsigned(self.storage.frames()) };
        compiler_fence(Ordering::SeqCst);
        // SAFETY: an own field.
        unsafe { (&raw mut self.count).write_volatile(count) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Makes the walked frames part of the recorded stack and interns them. `root` gives the id of the root.
    #[inline(always)]
    pub fn record<E: Emit>(
        &mut self,
        walk: Walk,
        trie: &Trie,
        emit: &mut E,
        root: impl FnOnce(&mut E) -> u32,
    ) -> u32 {
        let mut keep = true;
        let mut walked = walk.last;
        let mut steps = Steps { words: self.storage.words(), len: 0 };
        let (mut place, mut next) = match walk.outer {
            Outer::Recorded(open) => {
                // SAFETY: a recorded frame.
                let joined = unsafe { &*open.sub(1) };
                steps.len = joined.words();
                self.set_end(open);
                (open, Next::of(joined))
            }
            outer => {
                self.set_end(self.storage.frames());
                let root = root(emit);
                let next = self.outermost(walked, outer, trie, emit, root, &mut steps, &mut keep);
                walked = walked.wrapping_add(1);
                (self.storage.frames().wrapping_add(1), next)
            }
        };
        let kept = place;
        let end = self.storage.end();
        while walked != end && next.id != 0 {
            // SAFETY: the walk has put it there, and recording has not come that far.
            let (frame, key, sp) = unsafe { (&*walked, (*walked).key, (*walked).sp) };
            let bp = self.step(frame, &next, &mut steps, &mut keep);
            let id = trie.child(next.id, key, emit);
            next = Next { key, sp, bp: bp.unwrap_or(0), needs_bp: bp.is_some(), id };
            // SAFETY: there is room: the walk's frames lie further behind, but for those that were recorded.
            unsafe { place.write(Recorded::new(key, sp, bp, id, steps.len)) };
            place = place.wrapping_add(1);
            walked = walked.wrapping_add(1);
        }
        if keep && next.id != 0 {
            self.set_end(place);
            self.remember(kept);
        } else {
            self.set_end(self.storage.frames());
        }
        next.id
    }

    /// Records the outermost frame, whose caller there is none to be found.
    #[cold]
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "one call, moved out of the hot function")]
    fn outermost<E: Emit>(
        &mut self,
        walked: *mut Walked,
        outer: Outer,
        trie: &Trie,
        emit: &mut E,
        mut root: u32,
        steps: &mut Steps,
        keep: &mut bool,
    ) -> Next {
        // SAFETY: a walk has at least one frame.
        let walked = unsafe { *walked };
        if let Outer::Truncated = outer
            && root != 0
        {
            root = trie.child(root, head(kind::NODE_TRUNCATED, 0), emit);
        }
        let bp = self.end_step(&walked, outer, steps, keep);
        let id = if root == 0 { 0 } else { trie.child(root, walked.key, emit) };
        let recorded = Recorded::new(walked.key, walked.sp, bp, id, steps.len);
        // SAFETY: there is room for a frame.
        unsafe { self.storage.frames().write(recorded) };
        Next::of(&recorded)
    }

    /// Notes the words of the outermost frame's step; the frame's rbp, if it matters.
    fn end_step(
        &mut self,
        walked: &Walked,
        outer: Outer,
        steps: &mut Steps,
        keep: &mut bool,
    ) -> Option<usize> {
        let rule = walked.rule();
        match (outer, rule.kind()) {
            (Outer::End(0), Kind::End) | (Outer::Truncated, Kind::NotCode) => None,
            (Outer::End(slot), Kind::Rsp | Kind::LargeRsp | Kind::Rbp) => {
                // SAFETY: room for the words of all frames.
                unsafe { steps.push(slot, 0) };
                (rule.kind() == Kind::Rbp).then(|| self.bp_of(walked, keep))
            }
            _ => {
                *keep = false;
                None
            }
        }
    }

    /// Notes the words of a step to `next`; the frame's rbp, if it matters.
    #[inline(always)]
    fn step(&mut self, walked: &Walked, next: &Next, steps: &mut Steps, keep: &mut bool) -> Option<usize> {
        let rule = walked.rule();
        let computes = match rule.kind() {
            Kind::Rsp => false,
            Kind::Rbp => true,
            _ => return self.rare_step(rule, walked, next, steps, keep),
        };
        self.plain_step(rule, computes, walked, next, steps, keep)
    }

    #[inline(always)]
    fn plain_step(
        &mut self,
        rule: Rule,
        computes: bool,
        walked: &Walked,
        next: &Next,
        steps: &mut Steps,
        keep: &mut bool,
    ) -> Option<usize> {
        let below = rule.bp_below_cfa();
        // SAFETY: room for the words of all frames.
        unsafe {
            if below != 0 && next.needs_bp {
                steps.push(next.sp.wrapping_sub(below), next.bp);
            }
            steps.push(next.sp.wrapping_sub(8), next.pc());
        }
        if computes {
            Some(self.bp_of(walked, keep))
        } else {
            (below == 0 && next.needs_bp).then_some(next.bp)
        }
    }

    #[cold]
    #[inline(never)]
    fn rare_step(
        &mut self,
        rule: Rule,
        walked: &Walked,
        next: &Next,
        steps: &mut Steps,
        keep: &mut bool,
    ) -> Option<usize> {
        // SAFETY: room for the words of all frames, three each at the most.
        unsafe {
            match rule.kind() {
                Kind::LargeRsp => self.plain_step(rule, false, walked, next, steps, keep),
                Kind::Drap => {
                    let bp = self.bp_of(walked, keep);
                    if next.needs_bp {
                        steps.push(bp.wrapping_add_signed(rule.drap_bp_offset()), next.bp);
                    }
                    steps.push(next.sp.wrapping_sub(8), next.pc());
                    steps.push(bp.wrapping_add_signed(rule.drap_cfa_offset()), next.sp);
                    Some(bp)
                }
                Kind::Signal => {
                    if next.needs_bp {
                        steps.push(walked.sp.wrapping_add(rule::SIGNAL_RBP), next.bp);
                    }
                    steps.push(walked.sp.wrapping_add(rule::SIGNAL_RSP), next.sp);
                    steps.push(walked.sp.wrapping_add(rule::SIGNAL_RIP), next.pc());
                    None
                }
                Kind::Unknown => {
                    let bp = self.bp_of(walked, keep);
                    if next.needs_bp {
                        steps.push(bp, next.bp);
                    }
                    steps.push(bp.wrapping_add(8), next.pc());
                    Some(bp)
                }
                _ => {
                    *keep = false;
                    None
                }
            }
        }
    }

    #[inline(always)]
    fn bp_of(&mut self, walked: &Walked, keep: &mut bool) -> usize {
        walked.bp().load(&mut self.bounds).unwrap_or_else(|| {
            *keep = false;
            0
        })
    }

    /// Puts the recorded stack into the memo. The frames before `kept` are older than the others.
    #[inline(always)]
    fn remember(&mut self, kept: *mut Recorded) {
        // SAFETY: frames and words below the counts are recorded, and there is a leaf.
        unsafe {
            let frames = self.storage.frames();
            let leaf = &*frames.add(self.count - 1);
            // The join: as far out as the frames are older, if the entry has room for the words up to there.
            let mut join = kept.offset_from_unsigned(frames) - 1;
            while leaf.words() - (*frames.add(join)).words() > memo::WORDS {
                join += 1;
            }
            let joined = &*frames.add(join);
            let words = core::slice::from_raw_parts(
                self.storage.words().add(joined.words()),
                leaf.words() - joined.words(),
            );
            let pc = memscope_shared::record::operand(leaf.key) as usize;
            (*Memo::of(self.storage.memos(), pc, leaf.sp)).remember(&Known { leaf, join, joined, words });
        }
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.set_end(self.storage.frames());
        self.generation = 0;
        self.storage.release();
        self.bounds = Bounds::default();
    }
}
