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
mod walk;
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

impl Outer {
    /// What a walk's last step has led to.
    #[inline(always)]
    const fn of(step: Step) -> Self {
        match step {
            Step::End(slot) => Self::End(slot),
            Step::Caller(_) | Step::Truncated => Self::Truncated,
        }
    }
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
        let (outer, mut walked, mut keep) = self.begin_at(walk, trie, emit, root);
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

    /// The recorded frame that a walk's others go on from, the first of those, and whether the stack may be kept so far.
    #[inline(always)]
    fn begin_at<E: Emit>(
        &mut self,
        walk: Walk,
        trie: &Trie,
        emit: &mut E,
        root: impl FnOnce(&mut E) -> u32,
    ) -> (*mut Recorded, *mut Walked, bool) {
        if let Outer::Recorded(met) = walk.outer {
            self.weigh(walk.last, met.wrapping_add(1));
            self.set_end(met.wrapping_add(1));
            return (met, walk.last, true);
        }
        self.weigh(walk.last, self.storage.frames());
        self.set_end(self.storage.frames());
        let root = root(emit);
        // SAFETY: a walk has at least one frame, and there is room for it once it was read.
        let keep = unsafe {
            let id = interned(trie, root, walk.outer, (*walk.last).key, emit);
            let (frame, keep) = self.outermost(&*walk.last, walk.outer, id);
            self.storage.frames().write(frame);
            keep
        };
        (self.storage.frames(), walk.last.wrapping_add(1), keep)
    }

    /// The outermost frame, and whether words can tell that it is, without a look at what may be unmapped.
    #[cold]
    #[inline(never)]
    fn outermost(&mut self, walked: &Walked, outer: Outer, id: u32) -> (Recorded, bool) {
        let words = self.storage.words();
        let mut steps = Steps { end: words };
        let is_own = self.bounds.is_own();
        let (bp, told) = match (outer, walked.rule.kind()) {
            (Outer::End(0), Kind::End | Kind::BeforeRoot) => (None, true),
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
