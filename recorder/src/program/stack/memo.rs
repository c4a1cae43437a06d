//! The leaf memo: stacks that a thread has captured lately, by the hook's caller.
//!
//! [`super::incremental`] steps frame by frame until it meets the recorded stack. A program that allocates from a few places
//! in turn would make it step the same leaf frames again and again. The memo remembers what that gave:
//!
//! ```text
//! key: pc, rsp (and rbp, if it matters) of the hook's caller
//! the words of the leaf frames' steps  -->  join: the recorded frame that they lead to  -->  the stack's id
//! ```
//!
//! **Why it is exact.** The caller's state is the entry's, by the key. The words are all that the steps from there to
//! the join have read (rules are functions of pc and generation). If each still holds its value, the same steps would
//! give the same frames and arrive in the same state at the join. If the recorded frame of that number
//! is still in that state (rsp, rbp, and an id, which stands for its pc and everything further out), then what the recorded
//! stack's words prove for it ([`super::incremental`]) holds here, and the id that was interned then is this stack's.
//! A hit looks up no rule, hashes nothing and writes nothing.
//!
//! # Where an entry stands
//!
//! Often one caller has many stacks: `operator new` is what calls `malloc` in all of C++. So the key is not all of
//! the index. A look-up begins at the place that the key hashes to. If the entry there has the key but its word k is the
//! first that differs, then all its words before hold, so what it says about where word k lies holds too; the word
//! found there, mixed in, makes the next place:
//!
//! ```text
//! place 0 = hash(pc, rsp)                       entry: key fits, words 0 and 1 fit, word 2 doesn't, but is v
//! place 1 = hash(place 0, 2, v)                 entry: key fits, all words fit: this is it
//! ```
//!
//! A look-up that meets another key, or has come to the end of its tries, names the place where the stack belongs; the walk
//! that follows puts it there.
//!
//! An entry is written with its key last, and its key is taken away first: a signal handler that jumps out of
//! the middle leaves no entry.

use super::storage::{Recorded, Word};
use core::sync::atomic::{Ordering, compiler_fence};

const ENTRIES_BITS: u32 = 9;
const ENTRIES: usize = 1 << ENTRIES_BITS;
/// Places that a look-up tries.
const TRIES: usize = 8;
/// Words of leaf frames that an entry holds.
pub const WORDS: usize = 12;

/// An entry; zero bytes are none.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Memo {
    /// pc of the hook's caller; 0: no entry.
    key: usize,
    sp: usize,
    /// All ones where the caller's rbp matters.
    bp_mask: usize,
    bp: usize,
    join_sp: usize,
    join_bp: usize,
    join: u32,
    join_id: u32,
    id: u32,
    words_len: u32,
    /// The leaf's first.
    words: [Word; WORDS],
}

const _: () = assert!(size_of::<Memo>() == 256);

/// The state of a hook's caller.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Return address of the hook.
    pub pc: usize,
    /// rsp after the return.
    pub sp: usize,
    /// rbp.
    pub bp: usize,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// This id, if the first so many words of the recorded stack hold.
    Id(u32, usize),
    /// Nothing.
    Nothing,
}

/// What the entry that is to be written says.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// pc of the leaf.
    pub pc: usize,
    /// The hook's caller.
    pub leaf: &'a Recorded,
    /// Number of the recorded frame where the leaf's words end.
    pub join: usize,
    /// That frame.
    pub joined: &'a Recorded,
    /// The words of the frames between, outermost first.
    pub words: &'a [Word],
}

/// A thread's table.
#[derive(Clone, Copy, Debug)]
pub struct Table(*mut Memo);

#[inline(always)]
const fn place(mixed: usize) -> usize {
    mixed >> (usize::BITS - ENTRIES_BITS)
}

#[inline(always)]
const fn mix(a: usize, b: usize) -> usize {
    (a ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Table {
    /// Size of a table.
    pub const BYTES: usize = ENTRIES * size_of::<Memo>();

    /// The table at this address.
    ///
    /// # Safety
    /// It must be null or [`Table::BYTES`] of zero bytes or of a table, used by nobody else as long as this value.
    #[must_use]
    pub const unsafe fn at(address: *mut Memo) -> Self {
        Self(address)
    }

    /// Looks a caller's stack up: what was found, and the place where the stack's entry belongs.
    ///
    /// # Safety
    /// The table must not be null; `frames` must have `count` recorded frames; the caller must be that of a running hook of
    /// this thread.
    #[inline(always)]
    #[must_use]
    pub unsafe fn find(self, caller: Caller, frames: *const Recorded, count: usize) -> (Found, usize) {
        let mut mixed = mix(caller.pc, caller.sp << 4);
        for _ in 1..TRIES {
            // SAFETY: a place is below the number of entries.
            let entry = unsafe { &*self.0.add(place(mixed)) };
            if !entry.is_of(caller) {
                break;
            }
            // SAFETY: the caller's state is the entry's.
            match unsafe { entry.first_difference() } {
                None => {
                    // SAFETY: `frames` are as promised.
                    if let Some(words) = unsafe { entry.joins(frames, count) } {
                        return (Found::Id(entry.id, words), place(mixed));
                    }
                    break;
                }
                Some((number, value)) => mixed = mix(mixed ^ number, value),
            }
        }
        (Found::Nothing, place(mixed))
    }

    /// Writes an entry at a place that [`Table::find`] has named.
    ///
    /// # Safety
    /// The table must not be null.
    pub unsafe fn remember(self, place: usize, known: &Known<'_>) {
        // SAFETY: not null; the place is masked to the table's length.
        unsafe { (*self.0.add(place % ENTRIES)).write(known) };
    }

    /// Empties the table.
    pub fn forget_all(self) {
        if self.0.is_null() {
            return;
        }
        for index in 0..ENTRIES {
            // SAFETY: an entry of the table. Those that were never written are not touched, only read.
            unsafe {
                if (*self.0.add(index)).key != 0 {
                    (*self.0.add(index)).forget();
                }
            }
        }
    }
}

impl Memo {
    #[inline(always)]
    const fn is_of(&self, caller: Caller) -> bool {
        self.key == caller.pc && self.sp == caller.sp && caller.bp & self.bp_mask == self.bp
    }

    /// The first word that is not what it was: (number, what it is).
    ///
    /// # Safety
    /// The state of the entry's leaf must be given: then its step reads the first word, and each equal word makes
    /// the next one readable.
    #[inline(always)]
    unsafe fn first_difference(&self) -> Option<(usize, usize)> {
        let mut word = self.words.as_ptr();
        for number in 0..self.words_len as usize {
            // SAFETY: as promised by the caller; the comparison stops at the first difference. The entry has as many
            // words.
            unsafe {
                let value = ((*word).at as *const usize).read_unaligned();
                if value != (*word).value {
                    return Some((number, value));
                }
                word = word.add(1);
            }
        }
        None
    }

    /// If the recorded frame where the words lead is still there: number of words to compare from there.
    ///
    /// # Safety
    /// `frames` must have `count` recorded frames.
    #[inline(always)]
    unsafe fn joins(&self, frames: *const Recorded, count: usize) -> Option<usize> {
        let join = self.join as usize;
        if join >= count {
            return None;
        }
        // SAFETY: below the number of recorded frames.
        let joined = unsafe { &*frames.add(join) };
        let same = joined.id == self.join_id && joined.sp == self.join_sp && joined.bp == self.join_bp;
        same.then_some(joined.words())
    }

    fn write(&mut self, known: &Known<'_>) {
        self.forget();
        if known.words.len() > WORDS {
            return;
        }
        for (place, word) in self.words.iter_mut().zip(known.words.iter().rev()) {
            *place = *word;
        }
        self.words_len = known.words.len() as u32;
        self.sp = known.leaf.sp;
        self.bp_mask = if known.leaf.needs_bp() { usize::MAX } else { 0 };
        self.bp = known.leaf.bp;
        self.id = known.leaf.id;
        self.join = known.join as u32;
        self.join_id = known.joined.id;
        self.join_sp = known.joined.sp;
        self.join_bp = known.joined.bp;
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the entry's own field.
        unsafe { (&raw mut self.key).write_volatile(known.pc) };
    }

    fn forget(&mut self) {
        // SAFETY: the entry's own field.
        unsafe { (&raw mut self.key).write_volatile(0) };
        compiler_fence(Ordering::SeqCst);
    }
}

/// Compares words with memory from the last one (the leaf's) to the first: the number of the first that differs, counted
/// from 1, or 0 where all are equal.
///
/// # Safety
/// The last word's address must be readable, and each equal word must make the address of the one before it readable:
/// so it is for words that the steps of a walk have read, if the walk's first state is given now.
#[inline(always)]
#[must_use]
pub unsafe fn first_difference(words: *const Word, len: usize) -> usize {
    let mut left = len;
    // SAFETY: as promised by the caller; the comparison stops at the first difference.
    unsafe {
        while left >= 4 {
            for step in 1..=4 {
                let word = *words.add(left - step);
                if (word.at as *const usize).read_unaligned() != word.value {
                    return left - step + 1;
                }
            }
            left -= 4;
        }
        while left > 0 {
            let word = *words.add(left - 1);
            if (word.at as *const usize).read_unaligned() != word.value {
                return left;
            }
            left -= 1;
        }
    }
    0
}
