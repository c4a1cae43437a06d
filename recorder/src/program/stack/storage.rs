//! A thread's memory for captures: the recorded stack, the frames of a walk, and the memo.
//!
//! ```text
//! +--------+-------------------------------------------------+----------------------------------+
//! | memo   | s | recorded frames ->      ...  <- frames of a | s | words of the recorded        |
//! |        |   | outermost first                 walk, leaf  |   | frames ->                    |
//! |        |   |                                 at the end  |   |                              |
//! +--------+-------------------------------------------------+----------------------------------+
//!            s: sentinels: a frame further out than every other; a word that is never equal
//! ```
//!
//! A walk puts its frames down from the end, and recording moves them to the front, from the outermost on: the
//! array never needs more room than one of the two would alone. It grows by doubling; only touched pages cost
//! memory.

use super::memo::{Memo, Table};
use super::rule::Rule;
use crate::heap;
use crate::sys::memory;
use crate::sys::signal::Blocked;
use core::mem::size_of;
use core::ptr::{self, null_mut};
use core::sync::atomic::{Ordering, compiler_fence};
use memscope_shared::record::{head, kind};

/// Frames that the first mapping has room for.
const FIRST: usize = 1024;
/// Most words that one step reads.
const WORDS_A_FRAME: usize = 3;
/// The bit of [`Recorded::words`] that says that the frame needs rbp.
const NEEDS_BP: u32 = 1 << 31;
/// Frames beyond this are given up: the number of words must leave [`NEEDS_BP`] free.
const MOST: usize = 1 << 26;

/// A frame of the recorded stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// pc and kind, as in the node's record.
    pub key: u64,
    /// rsp.
    pub sp: usize,
    /// rbp, 0 where it is not needed.
    pub bp: usize,
    /// The stack's id up to here.
    pub id: u32,
    words: u32,
}

/// A word that a step has read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its address.
    pub at: usize,
    /// What was there.
    pub value: usize,
}

/// What the word that is never equal looks at.
static NOT_ZERO: usize = 1;

impl Word {
    /// A word that differs from what it says: comparisons end there.
    #[inline(always)]
    #[must_use]
    pub fn never_equal() -> Self {
        Self { at: &raw const NOT_ZERO as usize, value: 0 }
    }

    /// Whether memory holds what it says.
    ///
    /// # Safety
    /// Its address must be readable.
    #[inline(always)]
    #[must_use]
    pub unsafe fn holds(place: *const Self) -> bool {
        // SAFETY: as promised.
        unsafe { ((*place).at as *const usize).read_unaligned() == (*place).value }
    }
}

/// A frame of a walk.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// pc and kind, as in the node's record.
    pub key: u64,
    /// rsp.
    pub sp: usize,
    /// rbp, if the rule computes with it.
    pub bp: usize,
    /// The rule by which the walk goes on.
    pub rule: Rule,
}

const _: () = assert!(size_of::<Recorded>() == 32 && size_of::<Walked>() == 32 && size_of::<Word>() == 16);

impl Walked {
    /// Puts a frame down; its rbp follows where it matters.
    ///
    /// # Safety
    /// The place is one for a walk's frame.
    #[inline(always)]
    pub unsafe fn put(place: *mut Self, key: u64, sp: usize, rule: Rule) {
        // SAFETY: as promised.
        unsafe {
            (*place).key = key;
            (*place).sp = sp;
            (*place).rule = rule;
        }
    }
}

impl Recorded {
    /// A frame whose words, with all outer frames', are the first `words`.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: u64, sp: usize, bp: Option<usize>, id: u32, words: usize) -> Self {
        match bp {
            Some(bp) => Self { key, sp, bp, id, words: words as u32 | NEEDS_BP },
            None => Self { key, sp, bp: 0, id, words: words as u32 },
        }
    }

    /// Whether this is the frame of a hook's caller with this pc, rsp and, if it matters, rbp. The sentinel is none.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, pc: usize, sp: usize, bp: usize) -> bool {
        // All ones where rbp is needed: the topmost bit says so.
        let bp_mask = (self.words as i32 >> 31) as usize;
        // No pc reaches into the kind's bits.
        self.sp == sp && self.key ^ pc as u64 == head(kind::NODE, 0) && bp & bp_mask == self.bp
    }

    /// Whether this is a frame with that key and rsp.
    #[inline(always)]
    #[must_use]
    pub const fn is_at(&self, key: u64, sp: usize) -> bool {
        (self.sp ^ sp) as u64 | (self.key ^ key) == 0
    }

    /// Number of words of this frame and all outer ones.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> usize {
        (self.words & !NEEDS_BP) as usize
    }

    /// Whether what lies further out depends on rbp.
    #[inline(always)]
    #[must_use]
    pub const fn needs_bp(&self) -> bool {
        self.words & NEEDS_BP != 0
    }
}

/// The memory; zero bytes are a valid, empty one.
#[repr(C)]
#[derive(Debug)]
pub struct Storage {
    memos: *mut Memo,
    frames: *mut Recorded,
    words: *mut Word,
    capacity: usize,
}

const fn bytes(capacity: usize) -> usize {
    let frame = size_of::<Recorded>() + WORDS_A_FRAME * size_of::<Word>();
    Table::BYTES + size_of::<Recorded>() + size_of::<Word>() + capacity * frame
}

impl Storage {
    /// Number of frames that there is room for, recorded and walked together.
    #[inline(always)]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memo's table; null while nothing is mapped.
    #[inline(always)]
    pub const fn memos(&self) -> *mut Memo {
        self.memos
    }

    /// The recorded frames. The one before the first is a sentinel: its rsp is above every other.
    #[inline(always)]
    pub const fn frames(&self) -> *mut Recorded {
        self.frames
    }

    /// Their words. The one before the first is a sentinel: it is never equal.
    #[inline(always)]
    pub const fn words(&self) -> *mut Word {
        self.words
    }

    /// The end of the array, from which a walk's frames are put down.
    #[inline(always)]
    pub const fn end(&self) -> *mut Walked {
        self.frames.wrapping_add(self.capacity).cast()
    }

    /// Doubles the room, keeping `recorded` frames with `words` words and `walked` frames.
    #[cold]
    #[inline(never)]
    pub fn grow(&mut self, recorded: usize, words: usize, walked: usize) -> Option<()> {
        let capacity = if self.capacity == 0 { FIRST } else { self.capacity * 2 };
        if capacity > MOST {
            return None;
        }
        // A handler that forks here would leave its child with half of it: the new mapping is wiped there.
        let _undisturbed = Blocked::all();
        let memos = heap::map_wiped(bytes(capacity))?.cast::<Memo>();
        let sentinel = memos.wrapping_byte_add(Table::BYTES).cast::<Recorded>();
        // SAFETY: the sentinel's place in the new mapping.
        unsafe { sentinel.write(Recorded { key: 0, sp: usize::MAX, bp: 0, id: 0, words: 0 }) };
        let frames = sentinel.wrapping_add(1);
        let word_sentinel = frames.wrapping_add(capacity).cast::<Word>();
        // SAFETY: the place between frames and words in the new mapping.
        unsafe { word_sentinel.write(Word::never_equal()) };
        let new = Self { memos, frames, words: word_sentinel.wrapping_add(1), capacity };
        if !self.memos.is_null() {
            // SAFETY: the old parts are in use up to these numbers, the new mapping is larger and apart.
            unsafe {
                ptr::copy_nonoverlapping(self.memos.cast::<u8>(), new.memos.cast(), Table::BYTES);
                ptr::copy_nonoverlapping(self.frames, new.frames, recorded);
                ptr::copy_nonoverlapping(self.words, new.words, words);
                ptr::copy_nonoverlapping(self.end().sub(walked), new.end().sub(walked), walked);
            }
        }
        let mut old = Self { ..*self };
        self.memos = new.memos;
        self.frames = new.frames;
        self.words = new.words;
        // Last: should a signal handler jump out of here, the arrays are at least as large as the capacity says.
        compiler_fence(Ordering::SeqCst);
        self.capacity = new.capacity;
        old.release();
        Some(())
    }

    /// Start and size of the mapping; size 0 where there is none.
    #[must_use]
    pub fn memory(&self) -> (*mut u8, usize) {
        (self.memos.cast(), if self.memos.is_null() { 0 } else { bytes(self.capacity) })
    }

    /// Gives the memory back.
    pub fn release(&mut self) {
        if !self.memos.is_null() {
            // SAFETY: the mapping is ours, and forgotten here.
            let _ = unsafe { memory::unmap(self.memos.cast(), bytes(self.capacity)) };
        }
        *self = Self { memos: null_mut(), frames: null_mut(), words: null_mut(), capacity: 0 };
    }
}
