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
//! A step that [`super::slow`] evaluates, a walk that got lost where reading was impossible, or one that read what need not be
//! part of a stack (`doubt`): such stacks are interned like others, but not kept to be joined.
//!
//! # Interrupted
//!
//! A signal handler may jump out of a capture. Whatever is below `count` is complete at any time: recording lowers
//! `count` before it writes above it, and raises it last.

mod doubt;
mod guide;
mod steps;
mod whole;

use super::bounds::Bounds;
use super::memo::{self, Known, Memo, Table, first_difference};
use super::rule::{Kind, Rule};
use super::storage::{Recorded, Storage, Walked, Word};
use super::trie::{Emit, Place, Trie};
use super::unwind::{Bp, Context, Frame, Step};
use core::sync::atomic::{Ordering, compiler_fence};
use doubt::{Doubts, same_page};
use guide::Guides;
pub use guide::Whole;
use memscope_shared::record::{head, kind, operand};
use steps::{Next, Steps};
use whole::Gain;

/// Most signal frames that a walk goes through. Their rsp may lead anywhere, even in a circle.
const MOST_SIGNALS: usize = 256;

/// What a walk has come through that is not plain.
#[derive(Clone, Copy, Default)]
struct Signals {
    count: usize,
    /// The last interrupted frame, and whether there were guesses.
    last: Context,
    /// Whether what the walk can still join was looked at since there was a guess.
    looked: bool,
}

impl Signals {
    /// Notes what is special about a frame, if anything is; false if there are too many such.
    #[inline(always)]
    fn pass(&mut self, frame: &Frame) -> bool {
        self.count += usize::from(frame.context.address != 0);
        self.last = frame.context.after(self.last);
        self.count <= MOST_SIGNALS
    }
}

/// A thread's recorded stack. Zero bytes are an empty one.
#[repr(C)]
#[derive(Debug)]
pub struct Stack {
    /// Number of recorded frames; 0 means that nothing can be joined.
    count: usize,
    /// The generation that everything here belongs to.
    generation: u32,
    /// The same while the memo can tell anything, else 0.
    recalls: u32,
    gain: Gain,
    doubts: Doubts,
    guides: Guides,
    /// Captures whose stack was known by a guide.
    #[cfg(test)]
    guided: u32,
    storage: Storage,
    bounds: Bounds,
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    last: *mut Walked,
    outer: Outer,
}

/// What lies further out than the frames of a walk.
#[derive(Clone, Copy, Debug)]
enum Outer {
    /// This recorded frame, and those further out.
    Recorded(*mut Recorded),
    /// Nothing; the word at this address, if it isn't 0, is the return address of 0 that says so.
    End(usize),
    /// Something that could not be found.
    Truncated,
}

/// The id of an outermost frame.
fn interned(trie: &Trie, root: u32, outer: Outer, key: u64, emit: &mut impl Emit) -> u32 {
    let parent = match outer {
        Outer::Truncated if root != 0 => trie.child(root, head(kind::NODE_TRUNCATED, 0), emit),
        _ => root,
    };
    if parent == 0 { 0 } else { trie.child(parent, key, emit) }
}

/// A first look into the memo that found nothing: the first word that differs of the entry there, or null where that is not
/// the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Miss(*const Word);

impl Stack {
    /// The id of the stack, if it is the recorded one or the memo's first entry for the caller can tell it; else how far that
    /// led.
    ///
    /// # Safety
    /// `pc`, `sp` and `bp` must be the state of the frame that called a hook of this thread that has not returned.
    #[inline(always)]
    pub unsafe fn recall(&mut self, pc: usize, sp: usize, bp: usize, generation: u32) -> Result<u32, Miss> {
        let other = Miss(core::ptr::null());
        if self.recalls != generation {
            return Err(other);
        }
        // SAFETY: there is storage since the generation began; the caller's state is this thread's now.
        unsafe {
            // A loop calls from where it called before: the walk would join at its first frame, so nothing else is looked up.
            let last = &*self.innermost();
            if last.is_of(pc, sp, bp) && self.hold(last) {
                self.gain.recalled = 1;
                return Ok(last.id);
            }
            let entry = self.memo().entry(Table::begin(pc, sp));
            if !entry.is_of(pc, sp, bp) {
                return Err(other);
            }
            let word = entry.first_difference();
            if !entry.is_end(word) {
                return Err(Miss(word));
            }
            self.agree(entry).ok_or(other)
        }
    }

    /// Goes on where [`Stack::recall`] found nothing: the stack's id, or where in the memo it belongs.
    ///
    /// # Safety
    /// As for [`Stack::recall`], right after it.
    #[inline(always)]
    pub unsafe fn recall_further(
        &mut self,
        pc: usize,
        sp: usize,
        bp: usize,
        miss: Miss,
    ) -> Result<u32, usize> {
        let (mut mixed, Miss(mut word)) = (Table::begin(pc, sp), miss);
        if word.is_null() {
            return Err(mixed);
        }
        for _ in 0..memo::TRIES {
            // SAFETY: as in `recall`; the word is of the entry at this place, and those before it hold.
            unsafe {
                mixed = self.memo().entry(mixed).further(mixed, word);
                let entry = self.memo().entry(mixed);
                if !entry.is_of(pc, sp, bp) {
                    break;
                }
                word = entry.first_difference();
                if entry.is_end(word) {
                    return self.agree(entry).ok_or(mixed);
                }
            }
        }
        Err(mixed)
    }

    /// The id of an entry whose words hold, if it joins the recorded stack and that holds too.
    ///
    /// # Safety
    /// As for [`Stack::recall`].
    #[inline(always)]
    unsafe fn agree(&mut self, entry: &Memo) -> Option<u32> {
        // SAFETY: the words lead to the recorded frame, whose words are then compared.
        unsafe {
            let (id, joined) = entry.joined(self.storage.frames(), self.count)?;
            if !self.hold(&*joined) {
                return None;
            }
            self.gain.recalled = 1;
            Some(id)
        }
    }

    /// Whether the words of a recorded frame, and of all further out, are what they were.
    ///
    /// # Safety
    /// The frame's state must be that of one that runs now.
    #[inline(always)]
    unsafe fn hold(&self, frame: &Recorded) -> bool {
        // SAFETY: the frame is in the recorded state, so its words are what the next steps read.
        unsafe { first_difference(self.storage.words().add(frame.words())) < self.storage.words() }
    }

    #[inline(always)]
    const fn memo(&self) -> Table {
        // SAFETY: the storage's own table; there is one of it, and one stack for one storage.
        unsafe { Table::at(self.storage.memos()) }
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
        // `open` is at the innermost recorded frame that can still be met, `put` at the last frame put down.
        let mut open = self.innermost();
        let mut put = self.storage.end();
        let mut full = open.wrapping_add(1).cast();
        let Frame { mut key, mut sp, mut bp, .. } = leaf;
        let (mut address, mut signals) = (leaf.rule_address(), Signals::default());
        loop {
            // SAFETY: recorded frames, or the sentinel before them, which no rsp exceeds and no key equals.
            let met = unsafe {
                while (*open).sp < sp {
                    open = open.sub(1);
                }
                ((*open).sp ^ sp) as u64 | ((*open).key ^ key) == 0
            };
            if met {
                match self.join(open, bp) {
                    None => return Some(Walk { last: put, outer: Outer::Recorded(open) }),
                    Some(outer) => open = outer,
                }
            }
            if put == full {
                (open, put) = self.grow(open, put)?;
                full = self.innermost().wrapping_add(1).cast();
            }
            let rule = rules(address);
            // SAFETY: there is room between the recorded frames and the walk's.
            unsafe {
                put = put.sub(1);
                (*put).key = key;
                (*put).sp = sp;
                (*put).rule = rule;
            }
            let base = if rule.is_rsp() {
                sp
            } else {
                let (value, base) = if rule.is_rbp() {
                    let value = self.load(bp);
                    (value, value)
                } else {
                    self.rare_bp(rule, bp)
                };
                // SAFETY: as above.
                unsafe { (*put).bp = value };
                base
            };
            if let Some((pc, cfa)) = Frame::plain_step(sp, base, rule, &self.bounds) {
                if rule.small_bp_below_cfa() != 0 {
                    bp.slot = cfa.wrapping_sub(rule.small_bp_below_cfa());
                }
                (key, address, sp) = (head(kind::NODE, pc as u64), pc - 1, cfa);
                continue;
            }
            let frame = Frame { key, sp, bp, context: signals.last };
            match frame.step(rule, &mut self.bounds, &mut rules) {
                Step::Caller(caller) if signals.pass(&caller) => {
                    open = self.doubt(&mut signals, open);
                    address = caller.rule_address();
                    Frame { key, sp, bp, .. } = caller;
                }
                Step::End(slot) => return Some(Walk { last: put, outer: Outer::End(slot) }),
                Step::Caller(_) | Step::Truncated => {
                    return Some(Walk { last: put, outer: Outer::Truncated });
                }
            }
        }
    }

    /// rbp's value. Where it can't be read the walk ends, and any value will do: a CFA of less than rsp.
    #[inline(always)]
    fn load(&mut self, bp: Bp) -> usize {
        bp.load(&mut self.bounds).unwrap_or(0)
    }

    /// The same for the rare rules that compute with it, and a base from which no plain step is possible.
    #[cold]
    #[inline(never)]
    fn rare_bp(&mut self, rule: Rule, bp: Bp) -> (usize, usize) {
        let computes = matches!(rule.kind(), Kind::Drap | Kind::Unknown);
        (if computes { self.load(bp) } else { 0 }, usize::MAX / 2)
    }

    /// The innermost recorded frame, or the sentinel.
    #[inline(always)]
    fn innermost(&self) -> *mut Recorded {
        self.storage.frames().wrapping_add(self.count).wrapping_sub(1)
    }

    #[cold]
    fn begin(&mut self, generation: u32) -> Option<()> {
        self.set_end(self.storage.frames());
        if self.storage.capacity() == 0 {
            self.storage.grow(0, 0, 0)?;
        }
        self.memo().forget_all();
        self.bounds.know_own();
        self.doubts = Doubts::default();
        self.generation = generation;
        self.recalls = if cfg!(feature = "full") { 0 } else { generation };
        Some(())
    }

    /// More room; where `open` and `put` of a walk are then.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, open: *mut Recorded, put: *mut Walked) -> Option<(*mut Recorded, *mut Walked)> {
        // SAFETY: both point into the storage.
        let (open, walked) = unsafe {
            (open.offset_from(self.storage.frames()), self.storage.end().offset_from_unsigned(put))
        };
        // SAFETY: the last recorded frame, or the sentinel, which has no words.
        let words = unsafe { (*self.innermost()).words() };
        self.storage.grow(self.count, words, walked)?;
        Some((self.storage.frames().wrapping_offset(open), self.storage.end().wrapping_sub(walked)))
    }

    /// The walk is in the state of this recorded frame, but for rbp. Compares that, if it matters, and
    /// all words further out. If one differs: the innermost recorded frame that does not lead through it.
    #[inline(always)]
    fn join(&mut self, met: *mut Recorded, bp: Bp) -> Option<*mut Recorded> {
        // SAFETY: a recorded frame.
        let frame = unsafe { &*met };
        if frame.needs_bp() && bp.load(&mut self.bounds) != Some(frame.bp) {
            return Some(met.wrapping_sub(1));
        }
        let words = self.storage.words().cast_const();
        // SAFETY: the walk is in the recorded frame's state, so its words are what the next steps read.
        let differs = unsafe { first_difference(words.add(frame.words())) };
        if differs < words {
            return None;
        }
        // SAFETY: recorded frames; the sentinel among them leads through no word.
        unsafe {
            let number = differs.offset_from_unsigned(words);
            let mut outer = met.sub(1);
            while (*outer).words() > number {
                outer = outer.sub(1);
            }
            Some(outer)
        }
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

    /// Makes the walked frames part of the recorded stack and interns them. `root` gives the id of the root; the
    /// stack then joins the memo at that place.
    #[inline(always)]
    pub fn record<E: Emit>(
        &mut self,
        walk: Walk,
        trie: &Trie,
        emit: &mut E,
        root: impl FnOnce(&mut E) -> u32,
        memo_place: usize,
    ) -> u32 {
        let words = self.storage.words();
        let (outer, mut walked, mut keep) = match walk.outer {
            Outer::Recorded(met) => {
                self.weigh(walk.last, met.wrapping_add(1));
                self.set_end(met.wrapping_add(1));
                (met, walk.last, true)
            }
            outer => {
                self.weigh(walk.last, self.storage.frames());
                self.set_end(self.storage.frames());
                let root = root(emit);
                // SAFETY: a walk has at least one frame, and there is room for it once it was read.
                let keep = unsafe {
                    let id = interned(trie, root, outer, (*walk.last).key, emit);
                    let (frame, keep) = self.outermost(&*walk.last, outer, id);
                    self.storage.frames().write(frame);
                    keep
                };
                (self.storage.frames(), walk.last.wrapping_add(1), keep)
            }
        };
        // SAFETY: a recorded frame.
        let (mut next, mut steps) = unsafe { (Next::of(&*outer, trie), Steps::after(words, &*outer)) };
        let (mut place, end) = (outer, self.storage.end());
        while walked != end && next.node.id != 0 {
            // SAFETY: the walk has put it there, and recording has not come that far.
            let (key, sp, rule) = unsafe { ((*walked).key, (*walked).sp, (*walked).rule) };
            let bp = if rule.is_rsp() {
                steps.plain(rule.small_bp_below_cfa(), &next)
            } else {
                // SAFETY: the walk has written it for such rules.
                let value = unsafe { (*walked).bp };
                if rule.is_rbp() {
                    steps.plain(rule.small_bp_below_cfa(), &next);
                    Some(value)
                } else {
                    let (bp, told);
                    (steps, bp, told) = steps.rare(rule, sp, value, next);
                    keep &= told;
                    bp
                }
            };
            let node = trie.descend(next.node, key, emit);
            next = Next { pc: operand(key) as usize, sp, bp: bp.unwrap_or(0), needs_bp: bp.is_some(), node };
            place = place.wrapping_add(1);
            // SAFETY: there is room: the walk's frames lie further behind, but for those that were recorded.
            unsafe { place.write(Recorded::new(key, sp, bp, node.id, steps.count(words))) };
            walked = walked.wrapping_add(1);
        }
        if self.gain.is_none() {
            self.rest();
        } else if keep && next.node.id != 0 {
            self.set_end(place.wrapping_add(1));
            self.remember(memo_place);
        } else {
            self.set_end(self.storage.frames());
        }
        next.node.id
    }

    /// The outermost frame, and whether words can tell that it is, without a look at what may be unmapped.
    #[cold]
    #[inline(never)]
    fn outermost(&mut self, walked: &Walked, outer: Outer, id: u32) -> (Recorded, bool) {
        let words = self.storage.words();
        let mut steps = Steps { end: words };
        let is_own = self.bounds.is_own();
        let (bp, told) = match (outer, walked.rule.kind()) {
            (Outer::End(0), Kind::End) => (None, true),
            (Outer::Truncated, Kind::NotCode) => (None, is_own),
            (Outer::End(slot), kind @ (Kind::Rsp | Kind::LargeRsp | Kind::Rbp)) => {
                steps.push(slot, 0);
                ((kind == Kind::Rbp).then_some(walked.bp), is_own || same_page(slot, walked.sp))
            }
            _ => (None, false),
        };
        let told = self.doubts.are_settled() && told;
        if !told {
            self.bounds.leave();
        }
        (Recorded::new(walked.key, walked.sp, bp, id, steps.count(words)), told)
    }

    /// Puts the recorded stack into the memo.
    #[inline(always)]
    fn remember(&mut self, place: usize) {
        // SAFETY: frames and words below the counts are recorded, and there is a leaf; with them there is a memo.
        unsafe {
            let frames = self.storage.frames();
            let leaf = &*frames.add(self.count - 1);
            // The join: as far out as there is room for the words: it stays as it is for longest.
            let mut join = (self.count - 1).saturating_sub(memo::WORDS);
            while leaf.words() - (*frames.add(join)).words() > memo::WORDS {
                join += 1;
            }
            let joined = &*frames.add(join);
            let words = core::slice::from_raw_parts(
                self.storage.words().add(joined.words()),
                leaf.words() - joined.words(),
            );
            let pc = operand(leaf.key) as usize;
            self.memo().remember(place, &Known { pc, leaf, join, joined, words });
        }
    }

    /// Start and size of the mapped memory.
    pub fn memory(&self) -> (*mut u8, usize) {
        self.storage.memory()
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        self.set_end(self.storage.frames());
        (self.generation, self.recalls) = (0, 0);
        self.gain = Gain::default();
        self.doubts = Doubts::default();
        self.storage.release();
        self.guides.release();
        self.bounds = Bounds::default();
    }
}
