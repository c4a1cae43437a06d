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
//! An entry is written with its key last, and its key is taken away first: a signal handler that jumps out of
//! the middle leaves no entry.

use super::storage::{Recorded, Word};
use core::sync::atomic::{Ordering, compiler_fence};

const ENTRIES_BITS: u32 = 8;
const ENTRIES: usize = 1 << ENTRIES_BITS;
/// Words of leaf frames that an entry holds.
pub const WORDS: usize = 12;

/// An entry; zero bytes are none.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Memo {
    /// pc of the hook's caller; 0: no entry.
    key: u64,
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
    words: [Word; WORDS],
}

const _: () = assert!(size_of::<Memo>() == 256);

/// What the entry that is to be written says.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The hook's caller.
    pub leaf: &'a Recorded,
    /// Number of the recorded frame where the leaf's words end.
    pub join: usize,
    /// That frame.
    pub joined: &'a Recorded,
    /// The words of the frames between, outermost first.
    pub words: &'a [Word],
}

impl Memo {
    /// Size of a thread's table.
    pub const TABLE_BYTES: usize = ENTRIES * size_of::<Self>();

    /// The entry for a caller.
    ///
    /// # Safety
    /// `table` must be a table of [`Memo::TABLE_BYTES`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn of(table: *mut Self, pc: usize, sp: usize) -> *mut Self {
        let mixed = (pc ^ sp << 4).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
        // SAFETY: the index is below the number of entries.
        unsafe { table.add(mixed >> (usize::BITS - ENTRIES_BITS)) }
    }

    /// If the caller's state and the leaf's words are as they were: number of words of the recorded stack that are still to
    /// be compared, and the id that holds if they are equal.
    ///
    /// # Safety
    /// `frames` must have `count` recorded frames; `pc`, `sp`, `bp` must be the state of the frame that called the running
    /// hook.
    #[inline(always)]
    #[must_use]
    pub unsafe fn hit(
        &self,
        (pc, sp, bp): (usize, usize, usize),
        frames: *const Recorded,
        count: usize,
    ) -> Option<(usize, u32)> {
        let join = self.join as usize;
        if self.key != pc as u64 || self.sp != sp || bp & self.bp_mask != self.bp || join >= count {
            return None;
        }
        // SAFETY: below the number of recorded frames.
        let joined = unsafe { &*frames.add(join) };
        if joined.id != self.join_id || joined.sp != self.join_sp || joined.bp != self.join_bp {
            return None;
        }
        // SAFETY: the caller's state is the entry's, so the last word is one that its step reads; and so on outwards.
        if unsafe { first_difference(self.words.as_ptr(), self.words_len as usize) } != 0 {
            return None;
        }
        Some((joined.words(), self.id))
    }

    /// Writes the entry.
    pub fn remember(&mut self, known: &Known<'_>) {
        self.forget();
        if known.words.len() > WORDS {
            return;
        }
        for (place, word) in self.words.iter_mut().zip(known.words) {
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
        unsafe { (&raw mut self.key).write_volatile(memscope_shared::record::operand(known.leaf.key)) };
    }

    /// Takes the entry away.
    pub fn forget(&mut self) {
        // SAFETY: the entry's own field.
        unsafe { (&raw mut self.key).write_volatile(0) };
        compiler_fence(Ordering::SeqCst);
    }

    /// Empties a table.
    ///
    /// # Safety
    /// `table` must be null or a table of [`Memo::TABLE_BYTES`] that nobody else uses.
    pub unsafe fn forget_all(table: *mut Self) {
        if table.is_null() {
            return;
        }
        for index in 0..ENTRIES {
            // SAFETY: an entry of the table. Entries that were never written are not touched, only read.
            unsafe {
                if (*table.add(index)).key != 0 {
                    (*table.add(index)).forget();
                }
            }
        }
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
