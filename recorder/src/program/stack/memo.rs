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
/// Places that a look-up tries, behind the first.
pub const TRIES: usize = 7;
/// Words of leaf frames that an entry holds.
pub const WORDS: usize = 11;

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
    /// The leaf's first; the last is followed by one that is never equal.
    words: [Word; WORDS + 1],
}

const _: () = assert!(size_of::<Memo>() == 256);

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

    /// Where a caller's look-up begins.
    #[inline(always)]
    #[must_use]
    pub const fn begin(pc: usize, sp: usize) -> usize {
        mix(pc, sp << 4)
    }

    /// The entry at the place that a caller's look-up has come to.
    ///
    /// # Safety
    /// The table must not be null.
    #[inline(always)]
    #[must_use]
    pub unsafe fn entry<'a>(self, mixed: usize) -> &'a Memo {
        // SAFETY: not null; a place is below the number of entries.
        unsafe { &*self.0.add(place(mixed)) }
    }

    /// Writes the entry at the place where a caller's look-up has ended.
    ///
    /// # Safety
    /// The table must not be null.
    pub unsafe fn remember(self, mixed: usize, known: &Known<'_>) {
        // SAFETY: not null; a place is below the number of entries.
        unsafe { (*self.0.add(place(mixed))).write(known) };
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
    /// Whether the entry is of a caller in this state.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, pc: usize, sp: usize, bp: usize) -> bool {
        self.key == pc && self.sp == sp && bp & self.bp_mask == self.bp
    }

    /// The first word that is not what it was, or the one behind the last.
    ///
    /// # Safety
    /// The state of the entry's leaf must be given: then its step reads the first word, and each equal word makes
    /// the next one readable.
    #[inline(always)]
    #[must_use]
    pub unsafe fn first_difference(&self) -> *const Word {
        let mut word = self.words.as_ptr();
        // SAFETY: as promised by the caller; the comparison stops at the first difference, at the latest behind the last
        // word.
        unsafe {
            loop {
                if !Word::holds(word) {
                    return word;
                }
                if !Word::holds(word.add(1)) {
                    return word.add(1);
                }
                if !Word::holds(word.add(2)) {
                    return word.add(2);
                }
                if !Word::holds(word.add(3)) {
                    return word.add(3);
                }
                word = word.add(4);
            }
        }
    }

    /// Whether this is behind the last word.
    #[inline(always)]
    #[must_use]
    pub fn is_end(&self, word: *const Word) -> bool {
        word == self.words.as_ptr().wrapping_add(self.words_len as usize)
    }

    /// Where the look-up goes on from an entry whose words hold up to this one.
    ///
    /// # Safety
    /// The word's address must be readable, as it is when those before hold.
    #[must_use]
    pub unsafe fn further(&self, mixed: usize, word: *const Word) -> usize {
        // SAFETY: as promised; the word is one of this entry's.
        let (number, value) = unsafe {
            (word.offset_from(self.words.as_ptr()) as usize, ((*word).at as *const usize).read_unaligned())
        };
        mix(mixed ^ number, value)
    }

    /// The id, and the recorded frame where the words lead, if it is still there.
    ///
    /// # Safety
    /// `frames` must have `count` recorded frames.
    #[inline(always)]
    #[must_use]
    pub unsafe fn joined(&self, frames: *const Recorded, count: usize) -> Option<(u32, *const Recorded)> {
        let join = self.join as usize;
        if join >= count {
            return None;
        }
        // SAFETY: below the number of recorded frames.
        let joined = unsafe { &*frames.add(join) };
        let same = joined.id == self.join_id && joined.sp == self.join_sp && joined.bp == self.join_bp;
        same.then_some((self.id, joined))
    }

    fn write(&mut self, known: &Known<'_>) {
        self.forget();
        let Some(end) = self.words.get_mut(known.words.len()) else { return };
        *end = Word::never_equal();
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

/// Compares words with memory from the one before `end` to the first, which the sentinel precedes: the first that differs,
/// or the sentinel.
///
/// # Safety
/// The last word's address must be readable, and each equal word must make the address of the one before it readable:
/// so it is for words that the steps of a walk have read, if the walk's first state is given now.
#[inline(always)]
#[must_use]
pub unsafe fn first_difference(end: *const Word) -> *const Word {
    let mut end = end;
    // SAFETY: as promised by the caller; the comparison stops at the first difference, at the latest at the sentinel.
    unsafe {
        loop {
            if !Word::holds(end.sub(1)) {
                return end.sub(1);
            }
            if !Word::holds(end.sub(2)) {
                return end.sub(2);
            }
            if !Word::holds(end.sub(3)) {
                return end.sub(3);
            }
            if !Word::holds(end.sub(4)) {
                return end.sub(4);
            }
            end = end.sub(4);
        }
    }
}
